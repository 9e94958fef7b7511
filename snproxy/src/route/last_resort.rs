//! Dials of an upstream that is remembered as down, for connections that have no other candidate left.
//!
//! What is remembered may be old, so such an upstream is dialed all the same. Many clients may wait for it at once: few
//! of them dial, the others wait for what these dials find.

use std::time::{Duration, Instant};

/// Least time between two such dials of one upstream: 20 a second, however many clients there are.
pub const GAP: Duration = Duration::from_millis(50);
/// Longest time for which a connection waits for its turn to dial.
pub const WAIT: Duration = Duration::from_secs(1);
/// Longest such dial: one SYN, and a second one if the first one was lost.
pub const CONNECT: Duration = Duration::from_millis(1200);

/// The dials of one upstream.
#[derive(Clone, Debug, Default)]
pub struct Dials {
    /// When the last one began.
    begun: Option<Instant>,
    /// When the last one began that failed.
    failed: Option<Instant>,
}

/// What a connection may do that has no other candidate left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    Dial,
    /// Ask for its turn again then: another connection dials now.
    Wait(Instant),
    /// A dial failed that began after the connection came.
    Failed,
}

impl Dials {
    /// The turn of a connection that came to its last candidates at `came`.
    pub fn turn(&mut self, came: Instant, now: Instant) -> Turn {
        if self.failed.is_some_and(|failed| failed >= came) {
            return Turn::Failed;
        }
        let next = self.begun.map_or(now, |begun| begun + GAP);
        if next <= now {
            self.begun = Some(now);
            Turn::Dial
        } else if next < came + WAIT {
            Turn::Wait(next)
        } else {
            Turn::Failed
        }
    }

    /// A dial that began at `began` failed.
    pub fn note_failure(&mut self, began: Instant) {
        self.failed = self.failed.max(Some(began));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_connections_share_few_dials() {
        let mut dials = Dials::default();
        let start = Instant::now();
        let mut dialed = 0;
        // 1,000 connections a second for a second, each of which comes back when it is told to.
        for millis in 0..1000 {
            let came = start + Duration::from_millis(millis);
            if dials.turn(came, came) == Turn::Dial {
                dialed += 1;
            }
        }
        assert_eq!(dialed, 20);
    }

    #[test]
    fn a_connection_waits_for_a_dial_that_began_after_it_came() {
        let mut dials = Dials::default();
        let came = Instant::now();
        assert_eq!(dials.turn(came, came), Turn::Dial);
        let later = came + Duration::from_millis(10);
        assert_eq!(dials.turn(later, later), Turn::Wait(came + GAP));
        // That one began before: the upstream may have come back since.
        dials.note_failure(came);
        assert_eq!(dials.turn(later, later), Turn::Wait(came + GAP));
        assert_eq!(dials.turn(later, came + GAP), Turn::Dial);
        dials.note_failure(came + GAP);
        assert_eq!(dials.turn(later, came + GAP), Turn::Failed);
        assert_eq!(dials.turn(came + GAP * 2, came + GAP * 2), Turn::Dial);
    }

    #[test]
    fn a_connection_does_not_wait_for_ever() {
        let mut dials = Dials::default();
        let came = Instant::now();
        let late = came + WAIT.saturating_sub(GAP / 2);
        assert_eq!(dials.turn(late, late), Turn::Dial);
        assert_eq!(dials.turn(came, late + GAP / 4), Turn::Failed);
    }
}
