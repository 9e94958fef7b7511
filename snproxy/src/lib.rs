//! A layer-4 proxy as a part of another program.
//!
//! The command `snproxy` serves the ports of a cluster, and is described in README.md. This is the same proxy for a program that
//! wants one of its own: what to serve is said by [`Service`]s, [`Builder::start`] starts it on threads of its own, and
//! [`Proxy`] is asked, changed and drained. Nothing of the host program is touched: neither its signals, nor its log
//! (events go to `tracing`), nor its capabilities, nor its limit of descriptors. But one thing: with certificates in S3 the
//! process gets `ring` as rustls's default provider, unless it has one. Install your own before [`Builder::start`].
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use snproxy::{Policy, Proxy, Service, Upstream};
//!
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let address = server.local_addr()?.to_string();
//! std::thread::spawn(move || {
//!     for mut client in server.incoming().flatten() {
//!         let _ = client.write_all(b"hello");
//!     }
//! });
//!
//! let service = Service::new("web")
//!     .listen("127.0.0.1:0")
//!     .policy(Policy::Wlc)
//!     .upstream(Upstream::new(address).weight(2).max_conn(100))
//!     .set("IDLETIMEOUT", "5m");
//! let proxy = Proxy::builder().service(service).start()?;
//!
//! let mut said = String::new();
//! TcpStream::connect(proxy.local_addrs()[0])?.read_to_string(&mut said)?;
//! assert_eq!(said, "hello");
//! assert_eq!(proxy.stats()?.upstreams.len(), 1);
//! proxy.drain()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is wrong is said before anything is served:
//!
//! ```
//! use snproxy::{Error, Proxy, Service};
//!
//! let service = Service::new("web").listen("127.0.0.1:0").upstream("10.0.0.7:80");
//! let refused = Proxy::builder().service(service.set("IDLETIMEOUT", "soon")).start();
//! let Err(Error::Refused(findings)) = refused else { panic!() };
//! assert!(findings[0].contains("expected a duration such as"), "{findings:?}");
//! ```
//!
//! What is not listed here is not for use: it changes with any version.

// Public for snproxy's own tests and benchmarks.
#[doc(hidden)]
pub mod addr;
#[doc(hidden)]
pub mod diag;

#[doc(hidden)]
pub mod conf;
#[doc(hidden)]
pub mod sys;
#[doc(hidden)]
pub mod wire;

#[doc(hidden)]
pub mod route;

#[doc(hidden)]
pub mod discovery;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod pump;
#[doc(hidden)]
pub mod steering;

#[doc(hidden)]
pub mod flow;

#[doc(hidden)]
pub mod admin;

#[doc(hidden)]
pub mod daemon;

mod proxy;

#[doc(hidden)]
pub mod cli;

pub use proxy::{
    Builder, Certificates, ClientTls, Error, Policy, Proxy, SendProxy, Service, Stats, Upstream,
    UpstreamStats, UpstreamTls, Verify,
};
