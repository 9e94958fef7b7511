//! How many connections each source has, roughly, at the cost of one counter.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Counters; sources that meet in one are counted together.
const COUNTERS: usize = 4096;

/// Connections by source: an IPv4 address, or a /64 of IPv6.
#[derive(Debug)]
pub(super) struct Shares {
    counters: Box<[AtomicU32]>,
    /// Odd, and not known to clients: they cannot choose with whom they meet.
    factor: u64,
}

/// The counter of one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share(usize);

impl Default for Shares {
    fn default() -> Self {
        Self {
            counters: (0..COUNTERS).map(|_| AtomicU32::new(0)).collect(),
            factor: RandomState::new().hash_one(0u8) | 1,
        }
    }
}

impl Shares {
    pub(super) fn of(&self, source: IpAddr) -> Share {
        let network = match source {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // The upper half.
            IpAddr::V6(ip) => u64::try_from(ip.to_bits() >> 64).unwrap_or(0),
        };
        let mixed = (network ^ (network >> 32)).wrapping_mul(self.factor) >> 40;
        Share(usize::try_from(mixed).unwrap_or(0) % COUNTERS)
    }

    pub(super) fn active(&self, share: Share) -> u32 {
        self.counters[share.0].load(Relaxed)
    }

    /// Counts one more connection.
    pub(super) fn take(&self, share: Share) -> Share {
        self.counters[share.0].fetch_add(1, Relaxed);
        share
    }

    pub(super) fn release(&self, share: Share) {
        self.counters[share.0].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_counted_apart() {
        let shares = Shares::default();
        let of = |ip: &str| shares.of(ip.parse().unwrap());
        let one = shares.take(of("10.0.0.1"));
        assert_eq!(shares.active(of("10.0.0.1")), 1);
        let others = (0..=255).map(|last| of(&format!("10.0.1.{last}")));
        let met = others.filter(|other| shares.active(*other) > 0).count();
        assert!(met <= 3, "{met} of 256 meet it");
        shares.release(one);
        assert_eq!(shares.active(of("10.0.0.1")), 0);
        assert_eq!(of("2001:db8::1").0, of("2001:db8::2").0, "one /64");
    }
}
