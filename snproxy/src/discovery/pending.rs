//! When a change is over, from what is seen of it. No clock: the time is an argument.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant};

/// Quiet after which a change is over: replacing a set of files makes several events, a few milliseconds apart. It is
/// more than half of the time from the change of one among 61,000 mappings until it works (2026-11-21).
const SETTLE: Duration = Duration::from_millis(50);

/// Events without a pause are reported after this long, as soon as each file is whole.
const SETTLE_AT_MOST: Duration = Duration::from_millis(200);

/// Quiet after which what started counts as finished though nothing said so.
pub(super) const WRITTEN: Duration = Duration::from_secs(1);

/// What happened to a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Happened {
    /// More is to follow: somebody writes it, or removed it to put another in its place.
    Started,
    /// It is there as a whole: renamed to this name, or closed by its writer.
    Finished,
}

/// A change that is going on.
#[derive(Debug, Default)]
pub(super) struct Pending {
    first: Option<Instant>,
    last: Option<Instant>,
    /// What has started, and when something last happened to it.
    started: HashMap<OsString, Instant>,
}

impl Pending {
    pub(super) fn on(&mut self, name: &OsStr, happened: Happened, now: Instant) {
        match happened {
            Happened::Finished => self.started.remove(name),
            Happened::Started => self.started.insert(name.to_owned(), now),
        };
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// When the change is over if nothing more happens; `None` without a change.
    pub(super) fn due(&self) -> Option<Instant> {
        let settled = (self.last? + SETTLE).min(self.first? + SETTLE_AT_MOST);
        // No limit here: half a file that parses would unmap what its other half says.
        let written = self.started.values().max().map(|last| *last + WRITTEN);
        Some(written.map_or(settled, |written| written.max(settled)))
    }

    /// Forgets the change; `false` if there is none that is over at `now`.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let over = self.due().is_some_and(|due| due <= now);
        if over {
            *self = Self::default();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_rename_is_over_after_the_debounce() {
        let start = Instant::now();
        let mut pending = Pending::default();
        assert_eq!(pending.due(), None);
        pending.on("a".as_ref(), Happened::Finished, start);
        pending.on("b".as_ref(), Happened::Finished, ms(start, 30));
        assert_eq!(pending.due(), Some(ms(start, 80)));
        assert!(!pending.take(ms(start, 79)));
        assert!(pending.take(ms(start, 80)));
        assert!(!pending.take(ms(start, 500)));
    }

    #[test]
    fn a_slow_writer_is_waited_for_until_it_closes() {
        let start = Instant::now();
        let mut pending = Pending::default();
        for at in [0, 700, 1400, 2100] {
            pending.on("a".as_ref(), Happened::Started, ms(start, at));
            assert_eq!(pending.due(), Some(ms(start, at + 1000)));
        }
        // Another file in the meantime does not make this one complete.
        pending.on("b".as_ref(), Happened::Finished, ms(start, 2200));
        assert_eq!(pending.due(), Some(ms(start, 3100)));
        pending.on("a".as_ref(), Happened::Finished, ms(start, 2300));
        assert!(pending.take(ms(start, 2400)));
    }

    #[test]
    fn events_without_a_pause_are_reported_after_200_ms() {
        let start = Instant::now();
        let mut pending = Pending::default();
        for at in (0..2000).step_by(20) {
            pending.on("a".as_ref(), Happened::Finished, ms(start, at));
        }
        assert_eq!(pending.due(), Some(ms(start, 200)));
        // A stream that rewrites in place: at once when the file is whole again.
        pending.on("a".as_ref(), Happened::Started, ms(start, 2000));
        assert_eq!(pending.due(), Some(ms(start, 3000)));
        pending.on("a".as_ref(), Happened::Finished, ms(start, 2010));
        assert!(pending.take(ms(start, 2010)));
    }
}
