pub mod addr;
pub mod wire;
