//! Who is connected to an address of metrics, and who leaves when a place is wanted.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Callers at once.
const MAX_CALLERS: usize = 32;
/// Of one source: an IPv4 address, or a /64 of IPv6.
const MAX_OF_SOURCE: usize = 8;

/// Who is connected, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers(Arc<Mutex<Seats>>);

#[derive(Debug, Default)]
struct Seats {
    list: Vec<Seat>,
    /// Callers so far.
    count: u64,
}

#[derive(Debug)]
struct Seat {
    number: u64,
    source: u128,
    /// Has sent its request.
    is_busy: bool,
    leave: CancellationToken,
}

/// The place of one caller; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Caller {
    callers: Callers,
    number: u64,
    leave: CancellationToken,
}

impl Callers {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more. Where its source has its share, or all places are taken, another caller leaves: the oldest
    /// without a request, of the source with the most.
    pub(super) fn enter(&self, ip: IpAddr) -> Caller {
        let source = network(ip);
        let leave = CancellationToken::new();
        let mut seats = self.seats();
        if let Some(crowded) = seats.crowded(source) {
            seats.free_one_of(crowded);
        }
        seats.count += 1;
        let number = seats.count;
        seats.list.push(Seat {
            number,
            source,
            is_busy: false,
            leave: leave.clone(),
        });
        Caller {
            callers: self.clone(),
            number,
            leave,
        }
    }
}

impl Seats {
    fn of(&self, source: u128) -> usize {
        let of_source = |seat: &&Seat| seat.source == source;
        self.list.iter().filter(of_source).count()
    }

    /// The source of which a caller has to leave for one more of `source`.
    fn crowded(&self, source: u128) -> Option<u128> {
        if self.of(source) >= MAX_OF_SOURCE {
            return Some(source);
        }
        // The last of equals counts: that of the oldest caller.
        let sources = self.list.iter().rev().map(|seat| seat.source);
        let most = sources.max_by_key(|source| self.of(*source));
        most.filter(|_| self.list.len() >= MAX_CALLERS)
    }

    fn free_one_of(&mut self, source: u128) {
        let seats = || self.list.iter().enumerate();
        let mut of_source = seats().filter(|(_, seat)| seat.source == source);
        let oldest = of_source.clone().next();
        let idle = of_source.find(|(_, seat)| !seat.is_busy);
        if let Some((at, _)) = idle.or(oldest) {
            self.list.remove(at).leave.cancel();
        }
    }
}

impl Caller {
    /// Its request is here.
    pub(super) fn is_busy(&self) {
        let mut seats = self.callers.seats();
        let mut seats = seats.list.iter_mut();
        if let Some(seat) = seats.find(|seat| seat.number == self.number) {
            seat.is_busy = true;
        }
    }

    /// Returns when its place is wanted.
    pub(super) async fn has_to_leave(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut seats = self.callers.seats();
        seats.list.retain(|seat| seat.number != self.number);
    }
}

/// Addresses that one caller can choose from are one source.
fn network(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn has_left(caller: &Caller) -> bool {
        caller.leave.is_cancelled()
    }

    #[test]
    fn oldest_idle_caller_of_a_crowding_source_leaves() {
        let callers = Callers::default();
        let other = callers.enter(ip(1));
        let crowd: Vec<Caller> = (0..MAX_OF_SOURCE).map(|_| callers.enter(ip(2))).collect();
        crowd[0].is_busy();
        let next = callers.enter(ip(2));
        let left: Vec<bool> = crowd.iter().map(has_left).collect();
        assert!(left[1] && left.iter().filter(|left| **left).count() == 1);
        assert!(!has_left(&other) && !has_left(&next));
        drop((crowd, next));
        assert_eq!(callers.seats().list.len(), 1);
    }

    #[test]
    fn source_with_the_most_makes_room() {
        let callers = Callers::default();
        let single = callers.enter(ip(0));
        let pairs: Vec<Caller> = (0..MAX_CALLERS - 1)
            .map(|at| callers.enter(ip(1 + u8::try_from(at / 2).unwrap())))
            .collect();
        let late = callers.enter(ip(100));
        assert!(!has_left(&single) && !has_left(&late));
        assert!(has_left(&pairs[0]));
        assert_eq!(callers.seats().list.len(), MAX_CALLERS);
        let network: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(
            super::network(network),
            super::network("2001:db8::2".parse().unwrap())
        );
    }
}
