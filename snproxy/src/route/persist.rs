//! Where the clients of a network were carried last, for ports that keep them there (PERSIST).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::conf::Persist;

use super::sources::network;

/// Networks that are remembered at once (about 80 bytes each); beyond that, new ones are carried by the policy alone
/// until others are over.
const MAX_KEPT: usize = 1 << 17;
const SHARDS: usize = 16;
/// Time between two looks for those that are over, where there are too many.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// Port and first address of the network.
type Key = (u16, IpAddr);

/// Where clients were carried last.
#[derive(Debug, Default)]
pub struct Kept([Mutex<Shard>; SHARDS]);

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Key, Place>,
    swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    upstream: SocketAddr,
    until: Instant,
}

impl Kept {
    /// Where this client's network was carried last, if that is not over: a pod, or another host's proxy.
    pub fn find(
        &self,
        persist: Persist,
        port: u16,
        client: IpAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let key = (port, network(client, persist.network));
        let place = self.shard(&key).places.get(&key).copied()?;
        (now < place.until).then_some(place.upstream)
    }

    /// Its connections go there from now on, for as long as `persist` says.
    pub fn note(
        &self,
        persist: Persist,
        port: u16,
        client: IpAddr,
        upstream: SocketAddr,
        now: Instant,
    ) {
        let key = (port, network(client, persist.network));
        let until = now + persist.time;
        let mut shard = self.shard(&key);
        if shard.has_room(&key, now) {
            shard.places.insert(key, Place { upstream, until });
        }
    }

    /// How many networks are remembered.
    pub fn len(&self) -> usize {
        let shards = self.0.iter();
        shards.map(|shard| lock(shard).places.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let byte = match key.1 {
            IpAddr::V4(ip) => ip.octets()[2] ^ ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[7] ^ ip.octets()[15],
        };
        lock(&self.0[usize::from(byte) % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn has_room(&mut self, key: &Key, now: Instant) -> bool {
        let most = MAX_KEPT / SHARDS;
        if self.places.len() < most || self.places.contains_key(key) {
            return true;
        }
        if self.swept.is_some_and(|swept| now < swept + SWEEP_AGAIN) {
            return false;
        }
        self.swept = Some(now);
        self.places.retain(|_, place| now < place.until);
        self.places.len() < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Network;
    use std::net::Ipv4Addr;

    const PERSIST: Persist = Persist {
        time: Duration::from_mins(5),
        network: Network { v4: 24, v6: 64 },
    };

    #[test]
    fn a_network_is_kept_until_its_time_is_over() {
        let (kept, start) = (Kept::default(), Instant::now());
        let pod = SocketAddr::from(([127, 0, 0, 1], 30_000));
        let client = |last| IpAddr::from([10, 0, 0, last]);
        assert_eq!(kept.find(PERSIST, 1, client(1), start), None);
        kept.note(PERSIST, 1, client(1), pod, start);
        let later = |secs| start + Duration::from_secs(secs);
        assert_eq!(kept.find(PERSIST, 1, client(9), later(299)), Some(pod));
        assert_eq!(
            kept.find(PERSIST, 2, client(1), later(1)),
            None,
            "another port"
        );
        assert_eq!(kept.find(PERSIST, 1, [10, 0, 1, 1].into(), later(1)), None);
        kept.note(PERSIST, 1, client(2), pod, later(200));
        assert_eq!(kept.find(PERSIST, 1, client(1), later(499)), Some(pod));
        assert_eq!(kept.find(PERSIST, 1, client(1), later(500)), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_makes_room_when_it_is_over() {
        let (kept, start) = (Kept::default(), Instant::now());
        let pod = SocketAddr::from(([127, 0, 0, 1], 30_000));
        let each = Persist {
            network: Network { v4: 32, v6: 128 },
            ..PERSIST
        };
        let many = u32::try_from(MAX_KEPT).unwrap() + 1000;
        for bits in 0..many {
            kept.note(each, 1, Ipv4Addr::from_bits(bits).into(), pod, start);
        }
        assert_eq!(kept.len(), MAX_KEPT);
        let later = start + Duration::from_mins(6);
        kept.note(each, 1, [192, 0, 2, 1].into(), pod, later);
        assert_eq!(kept.find(each, 1, [192, 0, 2, 1].into(), later), Some(pod));
    }
}
