//! Addresses of names: /etc/hosts first, then the servers of /etc/resolv.conf.
//!
//! A client of its own, because `getaddrinfo` returns no TTL, blocks, and fails both families if one fails.
//! It follows the C library where a name may mean several things: search list, ndots, order of servers.

mod config;
mod hosts;
mod message;
mod resolver;
mod server;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use hosts::from_hosts;
pub use resolver::Resolver;

/// Largest /etc/hosts or /etc/resolv.conf of which all is read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Family of addresses that one question is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IpVersion {
    V4,
    V6,
}

impl IpVersion {
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Families that a name is looked up for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Families {
    pub const BOTH: Self = Self { v4: true, v6: true };

    pub fn has(self, version: IpVersion) -> bool {
        match version {
            IpVersion::V4 => self.v4,
            IpVersion::V6 => self.v6,
        }
    }

    /// The families of either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            v4: self.v4 || other.v4,
            v6: self.v6 || other.v6,
        }
    }
}

/// Answer for one family of a name.
#[derive(Debug)]
pub enum Answer {
    /// At least one address.
    Addresses { addrs: Vec<IpAddr>, ttl: Duration },
    /// The name exists and has no address of this family.
    Empty,
    /// The last addresses stay: no server answered, or the name has no address at all (`NotFound`).
    Failed(io::Error),
}

/// Version of the files that names depend on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stamp([Option<FileStamp>; 2]);

/// Device, inode, time in seconds and nanoseconds, size.
type FileStamp = (u64, u64, i64, i64, u64);

impl Stamp {
    pub fn now() -> Self {
        Self([stamp(HOSTS), stamp(RESOLV_CONF)])
    }
}

fn stamp(path: &str) -> Option<FileStamp> {
    let file = fs::metadata(path).ok()?;
    let (dev, ino) = (file.dev(), file.ino());
    Some((dev, ino, file.mtime(), file.mtime_nsec(), file.size()))
}

/// Text of a file, empty where it cannot be read: a host without it has no such names.
fn text_of(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // What was read until an error is used, as the C library does.
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the resolver of this host, with what is known of its servers.
pub fn resolver() -> Arc<Resolver> {
    static LAST: Mutex<Option<(Stamp, Arc<Resolver>)>> = Mutex::new(None);
    let stamp = Stamp([None, stamp(RESOLV_CONF)]);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((seen, resolver)) if *seen == stamp => Arc::clone(resolver),
        _ => {
            let resolver = Arc::new(Resolver::new(&text_of(RESOLV_CONF)));
            *last = Some((stamp, Arc::clone(&resolver)));
            resolver
        }
    }
}

/// Looks up one name, for callers that keep no addresses themselves: those of IPv4, then those of IPv6.
///
/// # Errors
///
/// `NotFound` if the name has no address; others if no server answered.
pub async fn addresses(name: &str, grace: Duration) -> io::Result<Vec<IpAddr>> {
    let hosts = from_hosts(&[(name, Families::BOTH)]).pop().flatten();
    if let Some(addrs) = hosts {
        return Ok(addrs);
    }
    let (mut found, mut failed) = (Vec::new(), io::Error::from(io::ErrorKind::NotFound));
    let mut note = |_, answer| match answer {
        Answer::Addresses { addrs, .. } => found.extend(addrs),
        Answer::Empty => {}
        Answer::Failed(error) => failed = error,
    };
    let resolver = resolver();
    resolver
        .look_up(name, Families::BOTH, grace, &mut note)
        .await;
    // The family that answers first differs from call to call.
    found.sort_by_key(IpAddr::is_ipv6);
    if found.is_empty() {
        Err(failed)
    } else {
        Ok(found)
    }
}
