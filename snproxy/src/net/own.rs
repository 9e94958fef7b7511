//! Which addresses are this host's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::io::Errno;
use tracing::debug;

use crate::addr::is_private;
use crate::sys;

/// How long it is known of an address whether it is ours: one that fails over to this host is ours a second later.
const KNOWN_FOR: Duration = Duration::from_secs(1);
/// Most addresses of which it is known; 40 bytes each.
const MAX_KNOWN: usize = 4096;

/// Answers of [`is_own`] of the last second, for the sources of peers, private ones among them.
#[derive(Debug, Default)]
pub struct OwnSources(Mutex<HashMap<IpAddr, (bool, Instant)>>);

impl OwnSources {
    /// Whether an address is one of this host, by the kernel's word or a young memory of it.
    pub fn has(&self, ip: IpAddr, now: Instant) -> bool {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((is_own, at)) = known().get(&ip)
            && now.saturating_duration_since(*at) < KNOWN_FOR
        {
            return *is_own;
        }
        // Not under the lock: others need not wait for the kernel.
        let Ok(is_own) = query(ip) else {
            // Without descriptors or memory it cannot be known, so that the caller has to be checked as a local one.
            return true;
        };
        let mut known = known();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(ip, (is_own, now));
        is_own
    }
}

/// The addresses of this host that are not private, as last read.
///
/// A connection may ask this, where [`is_own`] costs four system calls.
#[derive(Debug, Default)]
pub struct OwnAddrs(ArcSwap<Box<[IpAddr]>>);

impl OwnAddrs {
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.load().contains(&ip)
    }

    /// Reads them from the kernel. If that fails, the last ones stay.
    pub fn refresh(&self) {
        match sys::interfaces::addresses() {
            Ok(mut all) => {
                all.retain(|ip| !is_private(*ip));
                self.0.store(all.into_boxed_slice().into());
            }
            Err(error) => debug!(%error, "failed to list the addresses of this host"),
        }
    }
}

/// Whether an address is one of this host; no where that cannot be known. Nothing is sent.
pub fn is_own(ip: IpAddr) -> bool {
    query(ip).unwrap_or(false)
}

/// Whether an address is one of this host. Nothing is sent.
///
/// A bind alone says yes to every address under `ip_nonlocal_bind`.
///
/// # Errors
/// The kernel has no descriptor or memory for the question.
fn query(ip: IpAddr) -> io::Result<bool> {
    let (bind, is_v4) = match ip {
        // From an address of others there is no route.
        IpAddr::V4(_) => (ip, true),
        // An own address is reached from itself (RFC 6724, rule 1).
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), false),
    };
    let connected = UdpSocket::bind((bind, 0)).and_then(|socket| {
        socket.connect((ip, 1))?;
        socket.local_addr()
    });
    match connected {
        Ok(local) => Ok(is_v4 || local.ip() == ip),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => Err(error),
            _ => Ok(false),
        },
    }
}

/// Whether this host has an address to reach another one from, of the same family; true where that cannot be told.
/// Nothing is sent.
pub fn has_source(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 1)));
    !connected.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sources_are_bounded_and_renewed() {
        let own = OwnSources::default();
        let now = Instant::now();
        let known = (0..u32::try_from(MAX_KNOWN).unwrap()).map(|last| {
            let ip = Ipv4Addr::from(0x0A00_0000 + last);
            (IpAddr::from(ip), (true, now))
        });
        own.0.lock().unwrap().extend(known);
        let ip = "10.0.0.7".parse().unwrap();
        assert!(own.has(ip, now + KNOWN_FOR / 2), "as it was known");
        assert!(!own.has("192.0.2.1".parse().unwrap(), now));
        assert!(own.0.lock().unwrap().len() <= MAX_KNOWN);
        assert!(own.has("127.0.0.1".parse().unwrap(), now));
    }

    #[test]
    fn only_an_address_of_this_host_is_own() {
        assert!(is_own("127.0.0.7".parse().unwrap()));
        assert!(is_own("::1".parse().unwrap()));
        // For documentation: no host has them.
        assert!(!is_own("192.0.2.1".parse().unwrap()));
        assert!(!is_own("2001:db8::1".parse().unwrap()));
    }
}
