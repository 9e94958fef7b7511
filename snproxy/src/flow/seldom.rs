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

#[cfg(test)]
mod tests {
    use super::*;

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
