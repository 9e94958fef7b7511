//! The words that scenarios are written in.
//!
//! A [`Net`] is a small cluster: namespaces of their own, joined by a switch. Each [`Host`] in it runs one snproxy and
//! any number of [`Pod`]s; a [`Peer`] stands in for the proxy of a host; a [`Client`] opens connections from another
//! namespace. Nothing here touches the namespace that the tests were started in, and every guard takes back what it made
//! when it is dropped, also while a test panics.
//!
//! Scenarios may run in parallel: names are unique, and equal addresses in two nets never meet.

mod certs;
mod cgroup;
mod check;
mod client;
mod conn;
mod eventually;
mod figure;
mod host;
mod namespace;
mod net;
mod noise;
mod peer;
mod pod;
mod process;
mod programs;
mod s3;
mod tls;
mod watch;

pub use certs::{Ca, Issued};
pub use cgroup::Cgroup;
pub use check::check;
pub use client::{Attempt, Client};
pub use conn::{Conn, Ended};
pub use eventually::{Ending, eventually};
pub use figure::{Figure, print_figure};
pub use host::{Host, snproxy_binary};
pub use namespace::Namespace;
pub use net::Net;
pub use noise::{Heard, Noise};
pub use peer::{Call, PROXY_PORT, Peer, request_for};
pub use pod::{Guest, Pod, Visit};
pub use process::Process;
pub use s3::S3;
pub use tls::{TlsConn, TlsEnded};
pub use watch::Watch;
