//! Limits on what one source network asks of one port: connections at once, and new ones in a time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::conf::{Network, PortConf, Rate};

/// Sources that are remembered at once (about 64 bytes each); beyond that, those that ask for nothing now are forgotten.
const MAX_SOURCES: usize = 1 << 17;
const SHARDS: usize = 16;
/// Time between two looks for those.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// Port and first address of the network.
type Key = (u16, IpAddr);

/// What all sources have and had.
#[derive(Debug)]
pub struct Sources {
    start: Instant,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    known: HashMap<Key, Source>,
    /// When those that ask for nothing were forgotten last, from the start on.
    swept: Duration,
}

#[derive(Debug, Default)]
struct Source {
    live: u32,
    /// When its bucket is full again, from the start on.
    full_at: Duration,
}

/// A connection of a source; dropping it takes it off its books.
#[derive(Debug)]
pub struct SourcePermit {
    sources: Arc<Sources>,
    key: Key,
}

/// Over a limit of its source: no connection now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused;

impl Sources {
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            shards: Default::default(),
        }
    }

    /// Counts one more connection of `client` to `port` where `conf` limits it.
    ///
    /// Shape: `None` where there is no number to keep: no limit on it, or more sources than are remembered.
    /// Errors: it is over a limit.
    pub fn admit(
        self: &Arc<Self>,
        conf: &PortConf,
        port: u16,
        client: IpAddr,
        now: Instant,
    ) -> Result<Option<SourcePermit>, Refused> {
        let now = now.saturating_duration_since(self.start);
        if let Some(limit) = conf.source_rate {
            let key = (port, network(client, limit.network));
            self.shard(&key).take_turn(key, limit.rate, now)?;
        }
        let Some(limit) = conf.source_max_conn else {
            return Ok(None);
        };
        let key = (port, network(client, limit.network));
        let mut shard = self.shard(&key);
        let Some(source) = shard.source(key, now) else {
            return Ok(None);
        };
        if source.live >= limit.count {
            return Err(Refused);
        }
        source.live += 1;
        drop(shard);
        Ok(Some(SourcePermit {
            sources: Arc::clone(self),
            key,
        }))
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let last = match key.1 {
            IpAddr::V4(ip) => ip.octets()[2] ^ ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[7] ^ ip.octets()[15],
        };
        let shard = &self.shards[usize::from(last) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// `None` where too many are known, and all of them need to be.
    fn source(&mut self, key: Key, now: Duration) -> Option<&mut Source> {
        let is_full = self.known.len() >= MAX_SOURCES / SHARDS && !self.known.contains_key(&key);
        if is_full {
            if now < self.swept + SWEEP_AGAIN {
                return None;
            }
            self.swept = now;
            self.known
                .retain(|_, source| source.live > 0 || source.full_at > now);
            if self.known.len() >= MAX_SOURCES / SHARDS {
                return None;
            }
        }
        Some(self.known.entry(key).or_default())
    }

    fn take_turn(&mut self, key: Key, rate: Rate, now: Duration) -> Result<(), Refused> {
        let Some(source) = self.source(key, now) else {
            return Ok(());
        };
        let interval = Duration::from_secs(1) / rate.per_second;
        let full_at = source.full_at.max(now);
        if full_at.saturating_sub(now) > interval * (rate.burst - 1) {
            return Err(Refused);
        }
        source.full_at = full_at + interval;
        Ok(())
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        let mut shard = self.sources.shard(&self.key);
        if let Some(source) = shard.known.get_mut(&self.key) {
            source.live = source.live.saturating_sub(1);
            if source.live == 0 && source.full_at.is_zero() {
                shard.known.remove(&self.key);
            }
        }
    }
}

/// The first address of the network that counts as one source.
pub fn network(ip: IpAddr, network: Network) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let rest = u32::MAX.checked_shr(u32::from(network.v4)).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & !rest).into()
        }
        IpAddr::V6(ip) => {
            let rest = u128::MAX.checked_shr(u32::from(network.v6)).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & !rest).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{SourceMaxConn, SourceRate};

    const WHOLE: Network = Network { v4: 24, v6: 64 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_its_first_address() {
        let of = |text: &str, v4, v6| network(ip(text), Network { v4, v6 }).to_string();
        assert_eq!(of("10.1.2.3", 24, 64), "10.1.2.0");
        assert_eq!(of("10.1.2.3", 32, 64), "10.1.2.3");
        assert_eq!(of("10.1.2.3", 1, 64), "0.0.0.0");
        assert_eq!(of("2001:db8:1:2:3:4:5:6", 24, 64), "2001:db8:1:2::");
        assert_eq!(of("2001:db8::6", 24, 128), "2001:db8::6");
    }

    #[test]
    fn a_source_has_as_many_connections_as_it_may_and_others_have_theirs() {
        let now = Instant::now();
        let sources = Arc::new(Sources::new(now));
        let conf = PortConf {
            source_max_conn: Some(SourceMaxConn {
                count: 2,
                network: WHOLE,
            }),
            ..PortConf::default()
        };
        let admit = |port, client: &str| sources.admit(&conf, port, ip(client), now);
        let held = [admit(1, "10.0.0.1"), admit(1, "10.0.0.2")];
        assert!(held.iter().all(|permit| matches!(permit, Ok(Some(_)))));
        assert!(admit(1, "10.0.0.3").is_err());
        assert!(admit(1, "10.0.1.3").is_ok());
        assert!(admit(2, "10.0.0.3").is_ok());
        drop(held);
        assert!(admit(1, "10.0.0.3").is_ok());
        let left: usize = sources
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().known.len())
            .sum();
        assert_eq!(left, 0, "nothing is kept of those who left");
    }

    #[test]
    fn a_source_comes_as_often_as_its_rate_says_after_its_burst() {
        let start = Instant::now();
        let sources = Arc::new(Sources::new(start));
        let rate = Rate {
            per_second: 10,
            burst: 5,
        };
        let conf = PortConf {
            source_rate: Some(SourceRate {
                rate,
                network: WHOLE,
            }),
            ..PortConf::default()
        };
        let passed = |from: u64, until: u64| {
            let times = (from..until).map(|millis| start + Duration::from_millis(millis));
            times
                .filter(|now| sources.admit(&conf, 1, ip("10.0.0.1"), *now).is_ok())
                .count()
        };
        assert_eq!(passed(0, 1), 1);
        assert_eq!(passed(1, 50), 4, "the rest of the burst");
        assert_eq!(passed(50, 2050), 20, "then ten a second");
        assert_eq!(
            passed(60_000, 60_020),
            5,
            "a rest fills the bucket, no further"
        );
    }

    #[test]
    fn sources_are_remembered_up_to_a_bound() {
        let now = Instant::now();
        let sources = Arc::new(Sources::new(now));
        let one = SourceMaxConn {
            count: 1,
            network: Network { v4: 32, v6: 128 },
        };
        let conf = PortConf {
            source_max_conn: Some(one),
            ..PortConf::default()
        };
        let many = u32::try_from(MAX_SOURCES).unwrap() + 100;
        let held: Vec<_> = (0..many)
            .filter_map(|bits| {
                let client = Ipv4Addr::from_bits(bits).into();
                sources.admit(&conf, 1, client, now).expect("each is new")
            })
            .collect();
        assert_eq!(held.len(), MAX_SOURCES);
    }
}
