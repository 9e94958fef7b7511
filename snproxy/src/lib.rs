pub mod addr;
pub mod conf;
pub mod diag;
pub mod discovery;
pub mod steering;
pub mod sys;
