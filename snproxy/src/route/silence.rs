//! Clients that an upstream did not answer in time: whose silence counts, and how many upstreams it may take down.
//!
//! A client can ask for what takes long, or not finish its request. So each source counts once, takes part in taking down
//! one upstream of a port at a time, and EJECTMAX bounds how many upstreams of a port may be down.

use std::net::IpAddr;

/// A client's address, of IPv6 its /64 network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Source(u64);

impl Source {
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip {
            // 0000::/32 is no unicast network.
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 64).unwrap_or(u64::MAX),
        })
    }
}

/// Most sources that are remembered of one upstream.
const MAX_SOURCES: usize = 1024;

/// Sources that an upstream left without an answer since it last answered one.
#[derive(Clone, Debug, Default)]
pub struct Unanswered(Vec<Source>);

impl Unanswered {
    /// False where it was there already.
    pub fn add(&mut self, source: Source) -> bool {
        let is_new = !self.0.contains(&source);
        if is_new {
            if self.0.len() >= MAX_SOURCES {
                self.0.remove(0);
            }
            self.0.push(source);
        }
        is_new
    }

    pub fn has(&self, source: Source) -> bool {
        self.0.contains(&source)
    }

    pub fn remove(&mut self, source: Source) {
        self.0.retain(|other| *other != source);
    }

    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

/// Whether one more of `all` upstreams may go down, of which `down` are, where `most` percent may be.
pub fn may_eject(all: usize, down: usize, most: u8) -> bool {
    (down + 1).saturating_mul(100) <= all.saturating_mul(most.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_rounded_down() {
        let most = |all| (0..all).filter(|down| may_eject(all, *down, 50)).count();
        assert_eq!([1, 2, 3, 4, 5, 10].map(most), [0, 1, 1, 2, 2, 5]);
        assert!(may_eject(1, 0, 100) && !may_eject(9, 0, 0));
    }

    #[test]
    fn a_source_counts_once_and_ipv6_by_network() {
        let mut unanswered = Unanswered::default();
        let source = |ip: &str| Source::of(ip.parse().unwrap());
        assert!(unanswered.add(source("192.0.2.1")));
        assert!(!unanswered.add(source("192.0.2.1")));
        assert!(unanswered.add(source("192.0.2.2")));
        assert!(unanswered.add(source("2001:db8::1")));
        assert!(!unanswered.add(source("2001:db8::ffff:1")));
        assert!(unanswered.add(source("2001:db8:0:1::1")));
        unanswered.remove(source("192.0.2.2"));
        assert!(!unanswered.has(source("192.0.2.2")) && unanswered.has(source("192.0.2.1")));
    }
}
