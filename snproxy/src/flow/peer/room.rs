//! Where peers wait that have not asked for anything yet, or not to the end of a line: so many of one source, so many in all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Most that wait of one source.
const PER_SOURCE: usize = 16;
/// Most that wait in all.
const IN_ALL: usize = 4096;

/// The silent connections on PORT. One more than there is room for takes the place of the oldest.
#[derive(Debug, Default)]
pub struct Room(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    /// By number, which grows: the first is the oldest. Dropping the sender tells whose seat it is.
    taken: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    by_source: HashMap<IpAddr, BTreeSet<u64>>,
    next: u64,
    closed: bool,
}

/// A place in the room; dropping it frees the place.
#[derive(Debug)]
pub struct Seat<'a> {
    room: &'a Room,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Room {
    pub fn enter(&self, source: IpAddr) -> Seat<'_> {
        let (seat, lost) = oneshot::channel();
        let mut seats = self.seats();
        let number = seats.next;
        seats.next += 1;
        if !seats.closed {
            let of_source = seats.by_source.get(&source);
            let oldest = of_source
                .filter(|of_source| of_source.len() >= PER_SOURCE)
                .and_then(|of_source| of_source.first().copied());
            let full = || (seats.taken.len() >= IN_ALL).then(|| seats.taken.keys().next().copied());
            if let Some(oldest) = oldest.or_else(|| full().flatten()) {
                seats.free(oldest);
            }
            seats.taken.insert(number, (source, seat));
            seats.by_source.entry(source).or_default().insert(number);
        }
        drop(seats);
        Seat {
            room: self,
            number,
            lost,
        }
    }

    /// Sends everybody away, and whoever enters from now on.
    pub fn close(&self) {
        let mut seats = self.seats();
        seats.closed = true;
        seats.taken.clear();
        seats.by_source.clear();
    }

    pub fn is_closed(&self) -> bool {
        self.seats().closed
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn free(&mut self, number: u64) {
        let Some((source, _)) = self.taken.remove(&number) else {
            return;
        };
        if let Some(of_source) = self.by_source.get_mut(&source) {
            of_source.remove(&number);
            if of_source.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }
}

impl Seat<'_> {
    /// Resolves when the place went to somebody else, or the room is closed.
    ///
    /// Cancel safety: yes.
    pub async fn taken(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.room.seats().free(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn source(number: usize) -> IpAddr {
        Ipv4Addr::from(u32::try_from(number).unwrap()).into()
    }

    /// Numbers of those that lost their seats.
    fn lost(seats: &mut [Seat<'_>]) -> Vec<u64> {
        let lost = seats.iter_mut().filter_map(|seat| {
            (seat.lost.try_recv() == Err(TryRecvError::Closed)).then_some(seat.number)
        });
        lost.collect()
    }

    #[test]
    fn one_source_too_many_displaces_its_own_oldest() {
        let room = Room::default();
        let mut others = [room.enter(source(1))];
        let mut seats: Vec<_> = (0..PER_SOURCE + 2).map(|_| room.enter(source(2))).collect();
        assert_eq!(lost(&mut seats), [1, 2]);
        assert!(lost(&mut others).is_empty());
        // Whoever sits anew is the youngest.
        seats.remove(2);
        seats.push(room.enter(source(2)));
        seats.push(room.enter(source(2)));
        assert_eq!(lost(&mut seats), [1, 2, 4]);
    }

    #[test]
    fn one_too_many_displaces_the_oldest_of_all() {
        let room = Room::default();
        let mut seats: Vec<_> = (0..IN_ALL + 3)
            .map(|number| room.enter(source(number)))
            .collect();
        assert_eq!(lost(&mut seats), [0, 1, 2]);
        drop(seats);
        let seats = room.seats();
        assert!(seats.taken.is_empty() && seats.by_source.is_empty());
    }

    #[test]
    fn nobody_sits_in_a_closed_room() {
        let room = Room::default();
        let mut before = [room.enter(source(1))];
        room.close();
        let mut after = [room.enter(source(1))];
        assert!(room.is_closed());
        assert_eq!((lost(&mut before), lost(&mut after)), (vec![0], vec![1]));
    }
}
