pub mod addr;
pub mod steering;
pub mod sys;
