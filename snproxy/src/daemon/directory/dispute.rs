//! When to say again what somebody else wrote of this host, or removed.

use std::time::{Duration, Instant};

/// How long what etcd has of this host may differ from what was said, as it does while that is on its way.
const FIRST: Duration = Duration::from_secs(1);
/// Each further time doubles that, up to this: another host that publishes at the same address does not give way.
const LONGEST: Duration = Duration::from_mins(1);
/// After so long it is as if it were the first time: longer than two hosts take that write in turns.
const FORGET: Duration = Duration::from_mins(5);

#[derive(Debug, Default)]
pub(super) struct Dispute {
    /// Since when etcd has something else of this host than what it said.
    since: Option<Instant>,
    /// When all was last said again, and after how long.
    last: Option<(Instant, Duration)>,
}

impl Dispute {
    /// Whether it is time to say all again.
    pub(super) fn look(&mut self, is_odd: bool, now: Instant) -> bool {
        if !is_odd {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let for_long = |since, long| now.saturating_duration_since(since) >= long;
        let last = self.last.filter(|(last, _)| !for_long(*last, FORGET));
        let patience = last.map_or(FIRST, |(_, patience)| (patience * 2).min(LONGEST));
        let is_time = for_long(since, patience);
        if is_time {
            self.since = None;
            self.last = Some((now, patience));
        }
        is_time
    }

    /// What this host says is about to change.
    pub(super) fn is_on_its_way(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times at which all is said again within ten minutes, in seconds, by one whose words are gone a second later.
    fn said(start: Instant, dispute: &mut Dispute) -> Vec<u64> {
        let mut said = Vec::new();
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            let is_odd = said.last().is_none_or(|last| second > last + 1);
            if dispute.look(is_odd, now) {
                said.push(second);
            }
        }
        said
    }

    #[test]
    fn a_dispute_is_fought_less_and_less() {
        let start = Instant::now();
        let mut dispute = Dispute::default();
        let times = said(start, &mut dispute);
        assert_eq!(times[..5], [1, 5, 11, 21, 39]);
        assert!(times.len() < 20, "{times:?}");
        // Calm for long: at once, as at first.
        let later = start + Duration::from_hours(1);
        assert!(!dispute.look(false, later));
        assert_eq!(said(later, &mut dispute)[..2], [1, 5]);
    }

    #[test]
    fn what_is_on_its_way_is_no_dispute() {
        let start = Instant::now();
        let mut dispute = Dispute::default();
        for turn in 0..100 {
            let now = start + Duration::from_millis(500) * turn;
            assert!(!dispute.look(true, now));
            dispute.is_on_its_way();
        }
    }
}
