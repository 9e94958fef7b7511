//! What happens when: the one clock of a simulation.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

/// Events in the order of their times; those of one time in the order in which they were planned.
pub(crate) struct Agenda<E> {
    events: BinaryHeap<Reverse<Planned<E>>>,
    planned: u64,
    now: Duration,
}

struct Planned<E> {
    at: Duration,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self {
            events: BinaryHeap::new(),
            planned: 0,
            now: Duration::ZERO,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn plan(&mut self, after: Duration, event: E) {
        self.events.push(Reverse(Planned {
            at: self.now + after,
            number: self.planned,
            event,
        }));
        self.planned += 1;
    }

    /// The next event before `end`; it is the time of this event from then on.
    pub(crate) fn next(&mut self, end: Duration) -> Option<E> {
        if self.events.peek()?.0.at >= end {
            return None;
        }
        let Reverse(Planned { at, event, .. }) = self.events.pop()?;
        self.now = at;
        Some(event)
    }
}

impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Planned<E> {}

/// The time until the next of events that come at `rate` a second, one independent of the other.
pub(crate) fn until_next(rate: f64, random: &mut fastrand::Rng) -> Duration {
    Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_planning() {
        let mut agenda = Agenda::new();
        for (after, name) in [(2, 'c'), (1, 'a'), (2, 'd'), (1, 'b'), (9, 'e')] {
            agenda.plan(Duration::from_secs(after), name);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.next(Duration::from_secs(9))).collect();
        assert_eq!(order, ['a', 'b', 'c', 'd']);
        assert_eq!(agenda.now(), Duration::from_secs(2));
    }
}
