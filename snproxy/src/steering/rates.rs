//! Rates of ports: the maps that the program asks, and what it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use snproxy_common::steering::{Bucket, MAP_BUCKETS, MAP_RATES, PORT_KEY_BITS, port_key};

use super::SteeringError;

pub use snproxy_common::rate::RateLimit;

pub(super) type Trie<V> = LpmTrie<MapData, u64, V>;

/// The limits and the buckets of the ports that have a rate. There is memory for these only.
#[derive(Clone)]
pub(super) struct Rates(Arc<Mutex<Maps>>);

struct Maps {
    limits: Trie<RateLimit>,
    buckets: Trie<Bucket>,
}

impl Rates {
    pub(super) fn new(limits: Trie<RateLimit>, buckets: Trie<Bucket>) -> Self {
        Self(Arc::new(Mutex::new(Maps { limits, buckets })))
    }

    /// Gives ports their limits. A bucket that is there stays as it is, with its count.
    pub(super) fn write(&self, limits: &[(u16, RateLimit)]) -> Result<(), SteeringError> {
        let mut maps = self.maps();
        for (port, limit) in limits {
            let key = key(*port);
            // Not by a flag of the insert: kernels before 6.13 overwrite all the same.
            match maps.buckets.get(&key, 0) {
                Ok(_) => {}
                Err(MapError::KeyNotFound) => maps
                    .buckets
                    .insert(&key, Bucket::default(), 0)
                    .map_err(|error| not("write bpf map", MAP_BUCKETS, &error))?,
                Err(error) => return Err(not("read bpf map", MAP_BUCKETS, &error)),
            }
            maps.limits
                .insert(&key, *limit, 0)
                .map_err(|error| not("write bpf map", MAP_RATES, &error))?;
        }
        Ok(())
    }

    /// Takes limit and bucket away.
    pub(super) fn remove(&self, ports: &[u16]) -> Result<(), SteeringError> {
        let mut maps = self.maps();
        for port in ports {
            let key = key(*port);
            gone(maps.limits.remove(&key))
                .map_err(|error| not("write bpf map", MAP_RATES, &error))?;
            gone(maps.buckets.remove(&key))
                .map_err(|error| not("write bpf map", MAP_BUCKETS, &error))?;
        }
        Ok(())
    }

    /// Lookups that were refused by the rate of their port, of each of these ports.
    pub(super) fn limited(
        &self,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<BTreeMap<u16, u64>, SteeringError> {
        let maps = self.maps();
        ports
            .into_iter()
            .filter_map(|port| match maps.buckets.get(&key(port), 0) {
                Ok(bucket) => Some(Ok((port, bucket.limited))),
                Err(MapError::KeyNotFound) => None,
                Err(error) => Some(Err(not("read bpf map", MAP_BUCKETS, &error))),
            })
            .collect()
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        // A panic leaves the kernel's maps as they are.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(port: u16) -> Key<u64> {
    Key::new(PORT_KEY_BITS, port_key(port))
}

fn not(operation: &'static str, map: &str, error: &MapError) -> SteeringError {
    SteeringError::of_aya(operation, map, error, &[])
}

/// What is not there needs no removal: an earlier one may have got half way.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}

/// The rate of every port that has one, as last told; `None` where a write failed half way.
#[derive(Clone, Debug, Default)]
pub struct KnownRates(BTreeMap<u16, Option<RateLimit>>);

impl KnownRates {
    /// The ports that have a rate, or may have one.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.keys().copied()
    }

    pub fn get(&self, port: u16) -> Option<RateLimit> {
        self.0.get(&port).copied().flatten()
    }

    /// Makes the rates of the ports named in `want` so; writes only what differs. Other ports keep theirs.
    ///
    /// Nothing to do: `write` is not called. Errors: those of `write`; the ports it was given are written again by the
    /// next call.
    pub fn bring<E>(
        &mut self,
        want: impl IntoIterator<Item = (u16, RateLimit)>,
        write: impl FnOnce(&[(u16, RateLimit)]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let changes: Vec<(u16, RateLimit)> = want
            .into_iter()
            .filter(|(port, limit)| self.get(*port) != Some(*limit))
            .collect();
        if changes.is_empty() {
            return Ok(0);
        }
        let written = write(&changes);
        for (port, limit) in &changes {
            self.0.insert(*port, written.is_ok().then_some(*limit));
        }
        written.map(|()| changes.len())
    }

    /// Takes the rates away from ports that are to have none.
    ///
    /// Errors: those of `remove`; the next call asks for the same ports again.
    pub fn retain<E>(
        &mut self,
        keep: impl Fn(u16) -> bool,
        remove: impl FnOnce(&[u16]) -> Result<(), E>,
    ) -> Result<(), E> {
        let leaving: Vec<u16> = self.ports().filter(|port| !keep(*port)).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        remove(&leaving)?;
        for port in leaving {
            self.0.remove(&port);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: RateLimit = RateLimit::new(1, 1);
    const FAST: RateLimit = RateLimit::new(1000, 2000);

    #[track_caller]
    fn writes(known: &mut KnownRates, want: &[(u16, RateLimit)], expected: &[(u16, RateLimit)]) {
        let mut written = Vec::new();
        let made = known.bring(want.iter().copied(), |changes| {
            written.extend_from_slice(changes);
            Ok::<_, ()>(())
        });
        assert_eq!(made, Ok(expected.len()));
        assert_eq!(written, expected);
    }

    #[test]
    fn only_changed_rates_are_written() {
        let mut known = KnownRates::default();
        writes(&mut known, &[(1, SLOW), (2, FAST)], &[(1, SLOW), (2, FAST)]);
        writes(&mut known, &[(1, SLOW), (2, SLOW)], &[(2, SLOW)]);
        writes(&mut known, &[(3, FAST)], &[(3, FAST)]);
        assert_eq!(known.get(1), Some(SLOW));
        assert_eq!(known.get(4), None);
    }

    #[test]
    fn a_failed_write_is_made_again_and_can_be_taken_back() {
        let mut known = KnownRates::default();
        writes(&mut known, &[(1, SLOW)], &[(1, SLOW)]);
        let failed = known.bring([(1, FAST), (2, FAST)], |_| Err("no"));
        assert_eq!(failed, Err("no"));
        writes(&mut known, &[(1, SLOW)], &[(1, SLOW)]);
        // The second one may be half there.
        let mut removed = Vec::new();
        let done = known.retain(
            |port| port == 1,
            |ports| {
                removed.extend_from_slice(ports);
                Ok::<_, ()>(())
            },
        );
        assert_eq!((done, removed), (Ok(()), vec![2]));
        assert_eq!(known.ports().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_failed_removal_is_asked_for_again() {
        let mut known = KnownRates::default();
        writes(&mut known, &[(1, SLOW)], &[(1, SLOW)]);
        assert_eq!(known.retain(|_| false, |_| Err("no")), Err("no"));
        assert_eq!(known.retain(|_| false, |_| Ok::<_, &str>(())), Ok(()));
        let nothing = known.retain(
            |_| false,
            |_| -> Result<(), ()> { panic!("nothing to remove") },
        );
        assert_eq!(nothing, Ok(()));
    }
}
