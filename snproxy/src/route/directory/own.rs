//! What this host serves, as it says it to the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::route::Table;
use crate::route::service::{Service, Standing};
use crate::wire::directory::{Run, Serves, block_of};

/// How long a port must be full before it is said: under load places come and go all the time, and each word is a write
/// to etcd that every host reads. A host that is not said to be full is called, and says BUSY.
const FULL_FIRST: Duration = Duration::from_millis(400);
/// Each time that it was said in vain doubles that, up to this.
const FULL_LONGEST: Duration = Duration::from_secs(30);
/// After so long with places it is as if it had never been full.
const FORGET: Duration = Duration::from_mins(2);

/// Runs of ports, by block; blocks without one are left out.
pub type Offer = BTreeMap<u8, Arc<[Run]>>;

/// Which ports are said to be full.
#[derive(Debug, Default)]
pub struct Fullness(HashMap<u16, Full>);

#[derive(Clone, Copy, Debug)]
struct Full {
    /// `None`: it has places.
    since: Option<Instant>,
    is_said: bool,
    patience: Duration,
    /// When it last had none.
    last: Instant,
}

impl Fullness {
    /// Whether a port is to be called full.
    fn look(&mut self, port: u16, is_full: bool, now: Instant) -> bool {
        if !is_full && !self.0.contains_key(&port) {
            return false;
        }
        let full = self.0.entry(port).or_insert(Full {
            since: None,
            is_said: false,
            patience: FULL_FIRST,
            last: now,
        });
        if is_full {
            let since = *full.since.get_or_insert(now);
            full.last = now;
            full.is_said |= now.saturating_duration_since(since) >= full.patience;
            return full.is_said;
        }
        full.since = None;
        if std::mem::take(&mut full.is_said) {
            full.patience = (full.patience * 2).min(FULL_LONGEST);
        }
        if now.saturating_duration_since(full.last) >= FORGET {
            self.0.remove(&port);
        }
        false
    }
}

/// What the pods of this host serve for other hosts now.
pub fn offer(table: &Table, fullness: &mut Fullness, now: Instant) -> Offer {
    let mut offer: BTreeMap<u8, Vec<Run>> = BTreeMap::new();
    let is_reached = |port: u16| table.conf.cluster_ports.contains(port) && port != table.conf.port;
    let services = table.services().filter(|service| !service.is_app);
    for service in services.filter(|service| is_reached(service.port.get())) {
        let port = service.port.get();
        let pods = pods(&service);
        if pods == 0 {
            continue;
        }
        let serves = Serves {
            pods,
            is_full: fullness.look(port, is_full(&service), now),
        };
        let runs = offer.entry(block_of(port)).or_default();
        match runs.last_mut() {
            Some(run) if run.last + 1 == port && run.serves == serves => run.last = port,
            _ => runs.push(Run {
                first: port,
                last: port,
                serves,
            }),
        }
    }
    offer
        .into_iter()
        .map(|(block, runs)| (block, runs.into()))
        .collect()
}

/// Pods that take connections, as they are counted for hosts that ask.
fn pods(service: &Service<'_>) -> u16 {
    let takes = service
        .pods
        .iter()
        .filter(|pod| pod.upstream.is_up() && pod.max_conn > 0);
    u16::try_from(takes.count()).unwrap_or(u16::MAX)
}

/// Whether those that are up have no place.
fn is_full(service: &Service<'_>) -> bool {
    let is_open = |pod: usize| service.standing(pod) == Standing::Open;
    !(0..service.pods.len()).any(is_open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_full_once_it_was_so_for_a_while_and_each_time_longer() {
        let start = Instant::now();
        let mut fullness = Fullness::default();
        let mut at = 0;
        let mut look = |is_full, after| {
            at += after;
            fullness.look(1024, is_full, start + Duration::from_millis(at))
        };
        assert!(!look(false, 0));
        assert!(!look(true, 500));
        assert!(!look(true, 300));
        assert!(look(true, 200));
        assert!(look(true, 10_000));
        // A place: known at once.
        assert!(!look(false, 500));
        assert!(!look(true, 500));
        assert!(!look(true, 500), "twice as long as the first time");
        assert!(look(true, 500));
        assert!(!look(false, 500));
        // Calm for long: as at first.
        assert!(!look(false, 120_000));
        assert!(!look(true, 500));
        assert!(look(true, 500));
    }

    #[test]
    fn a_port_that_is_full_and_free_in_turns_is_never_called_full() {
        let start = Instant::now();
        let mut fullness = Fullness::default();
        for turn in 0..100 {
            let now = start + Duration::from_millis(500) * turn;
            assert!(!fullness.look(1024, turn % 2 == 0, now));
        }
        assert_eq!(fullness.0.len(), 1);
    }
}
