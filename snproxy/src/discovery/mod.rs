//! Where configuration comes from: a set of sources, and word of its changes.
//!
//! Whether a change matters is the caller's to find out, by comparing [`Sources`](crate::conf::Sources).

pub mod certs;
mod files;
mod pending;
pub mod s3;
mod watch;
mod whole;

pub use files::Root;
pub use watch::{Watch, Writers};
