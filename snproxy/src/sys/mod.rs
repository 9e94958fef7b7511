//! The system calls that no crate offers in safe form, and what the running kernel is.
//! The only unsafe code in user space.

pub mod bpf;
pub mod cgroup;
pub mod interfaces;
pub mod kernel;
pub mod lease;
pub mod memory;
pub mod names;
pub mod privileges;
pub mod signal;
pub mod socket;
pub mod stream;
mod tls;
