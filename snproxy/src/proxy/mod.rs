//! A proxy inside of another program: built, started, asked and ended by calls.
//!
//! It runs on threads of its own. What is the host program's stays as it is: signals, its log, its capabilities, its limit of
//! descriptors.

mod builder;
mod running;
mod service;
mod tls;

pub use builder::{Builder, Error};
pub use running::{Proxy, Stats, UpstreamStats};
pub use service::{Policy, SendProxy, Service, Upstream};
pub use tls::{Certificates, ClientTls, UpstreamTls, Verify};

pub(crate) use service::every_address;
pub(crate) use tls::is_word;
