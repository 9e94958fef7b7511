//! What happens often and is said now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Counts what happens between two lines about it.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Unsaid>);

#[derive(Debug, Default)]
struct Unsaid {
    said: Option<Instant>,
    since: u64,
}

impl Seldom {
    /// Counts one more: how many there were since this was last said; `None` while it is too early to say it again.
    pub(super) fn count(&self, now: Instant) -> Option<u64> {
        let mut unsaid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unsaid.since += 1;
        let quiet = |said: Instant| now.saturating_duration_since(said) < SAY_AGAIN;
        if unsaid.said.is_some_and(quiet) {
            return None;
        }
        unsaid.said = Some(now);
        Some(std::mem::take(&mut unsaid.since))
    }
}

/// Most lines of one kind in [`SAY_AGAIN`].
const MAX_LINES: u32 = 100;

/// Limits lines that each have something of their own to say.
#[derive(Debug, Default)]
pub(super) struct LineLimit(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    since: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl LineLimit {
    /// Whether one more line is written, and how many before it were not; `None`: it is not.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |since: Instant| now.saturating_duration_since(since) < SAY_AGAIN;
        if !lines.since.is_some_and(is_recent) {
            lines.since = Some(now);
            lines.written = 0;
        }
        if lines.written == MAX_LINES {
            lines.suppressed += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_above_the_limit_are_counted() {
        let limit = LineLimit::default();
        let start = Instant::now();
        let admit = |seconds| limit.admit(start + Duration::from_secs(seconds));
        assert!((0..100).all(|_| admit(1) == Some(0)));
        assert!((0..7).all(|_| admit(10).is_none()));
        assert_eq!((admit(11), admit(11)), (Some(7), Some(0)));
    }

    #[test]
    fn many_in_a_short_time_are_one_line_with_their_number() {
        let seldom = Seldom::default();
        let start = Instant::now();
        let after = |seconds| seldom.count(start + Duration::from_secs(seconds));
        assert_eq!(after(0), Some(1));
        assert_eq!(after(1), None);
        assert_eq!(after(9), None);
        assert_eq!(after(10), Some(3));
        assert_eq!(after(11), None);
    }
}
