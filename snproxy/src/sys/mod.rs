//! The system calls that no crate offers in safe form. The only unsafe code in user space.

pub mod bpf;
pub mod memory;
pub mod privileges;
