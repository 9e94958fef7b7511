pub mod addr;
pub mod diag;

pub mod conf;

pub mod discovery;
