//! The addresses of one family of a name: from answers that may hold another part of them each time.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Most addresses of one family that are kept; conf uses fewer.
const MAX_KEPT: usize = 64;
/// Most addresses that left which are remembered.
const MAX_LEFT: usize = 256;
/// Number of TTLs for which an address that left is remembered.
const MEMORY_TTLS: u32 = 20;
/// Bounds of the same in time.
const MIN_MEMORY: Duration = Duration::from_secs(30);
const MAX_MEMORY: Duration = Duration::from_mins(10);

/// Addresses of one family of a name.
///
/// Some name servers answer with a few of many addresses, others each time. An address that replaces another one and
/// was there shortly before is a turn; one may be a failback, two mean that the set turns. From then on addresses stay
/// for a while after the last answer that had them.
#[derive(Debug, Default)]
pub(super) struct FamilyAddrs {
    /// In the order in which they came, so that those that stay keep their places.
    kept: Vec<Seen>,
    left: Vec<Seen>,
    /// When an answer came before this one.
    last: Option<Instant>,
    /// When the set turned last, and the time before.
    turns: [Option<Instant>; 2],
    /// Whether there was an answer, an empty one among them.
    pub(super) is_answered: bool,
    /// Why the last question failed.
    pub(super) failed: Option<io::Error>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    ip: IpAddr,
    /// The last answer that had it.
    at: Instant,
}

impl FamilyAddrs {
    pub(super) fn addrs(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.kept.iter().map(|seen| seen.ip)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Takes the addresses of an answer; true where others are kept now.
    pub(super) fn take(&mut self, answer: &[IpAddr], ttl: Duration, now: Instant) -> bool {
        self.is_answered = true;
        self.failed = None;
        let memory = (ttl * MEMORY_TTLS).clamp(MIN_MEMORY, MAX_MEMORY);
        let is_remembered = |at: Instant| now.saturating_duration_since(at) < memory;
        self.left.retain(|seen| is_remembered(seen.at));
        let before: Vec<IpAddr> = self.addrs().collect();
        let was_answer = |seen: &Seen| self.last == Some(seen.at);
        let is_missing = |seen: &Seen| was_answer(seen) && !answer.contains(&seen.ip);
        let is_back =
            |seen: &Seen| !was_answer(seen) && is_remembered(seen.at) && answer.contains(&seen.ip);
        let mut known = self.kept.iter().chain(&self.left);
        if self.kept.iter().any(is_missing) && known.any(is_back) {
            self.turns = [Some(now), self.turns[0]];
        }
        for ip in answer {
            if let Some(seen) = self.kept.iter_mut().find(|seen| seen.ip == *ip) {
                seen.at = now;
            } else {
                self.left.retain(|seen| seen.ip != *ip);
                self.kept.push(Seen { ip: *ip, at: now });
            }
        }
        self.last = Some(now);
        let is_turning = self.turns[1].is_some_and(is_remembered);
        let stays = |seen: &Seen| seen.at == now || (is_turning && is_remembered(seen.at));
        let gone = self.kept.extract_if(.., |seen| !stays(seen));
        self.left.extend(gone);
        self.cut(now);
        !self.addrs().eq(before)
    }

    /// Takes addresses of a source that has all of them each time.
    pub(super) fn replace(&mut self, addrs: &[IpAddr], now: Instant) -> bool {
        self.turns = [None, None];
        self.left.clear();
        self.take(addrs, Duration::ZERO, now)
    }

    /// Leaves out what is above the limits: first what is in no recent answer, then what came last.
    fn cut(&mut self, now: Instant) {
        while self.kept.len() > MAX_KEPT {
            let oldest = self.kept.iter().enumerate();
            let oldest = oldest.filter(|(_, seen)| seen.at < now);
            let oldest = oldest.min_by_key(|(_, seen)| seen.at).map(|(at, _)| at);
            match oldest {
                Some(at) => drop(self.kept.remove(at)),
                None => self.kept.truncate(MAX_KEPT),
            }
        }
        let above = self.left.len().saturating_sub(MAX_LEFT);
        self.left.drain(..above);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    struct Name {
        addrs: FamilyAddrs,
        start: Instant,
    }

    impl Name {
        fn new() -> Self {
            Self {
                addrs: FamilyAddrs::default(),
                start: Instant::now(),
            }
        }

        /// The addresses after an answer with these at this second.
        fn take(&mut self, second: u64, answer: &[u8]) -> Vec<u8> {
            let ips: Vec<IpAddr> = answer.iter().map(|it| [10, 0, 0, *it].into()).collect();
            let now = self.start + Duration::from_secs(second);
            self.addrs.take(&ips, TTL, now);
            let last = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => unreachable!(),
            };
            self.addrs.addrs().map(last).collect()
        }
    }

    #[test]
    fn moved_name_leaves_its_old_addresses_at_once() {
        let mut name = Name::new();
        assert_eq!(name.take(0, &[1, 2]), [1, 2]);
        assert_eq!(name.take(5, &[2, 1]), [1, 2], "another order is no change");
        assert_eq!(name.take(10, &[3]), [3]);
        assert_eq!(name.take(200, &[1]), [1], "came back long after it left");
    }

    #[test]
    fn failback_leaves_the_other_address_at_once() {
        let mut name = Name::new();
        name.take(0, &[1]);
        assert_eq!(name.take(5, &[2]), [2]);
        assert_eq!(name.take(10, &[1]), [1]);
        assert_eq!(name.take(15, &[1, 2]), [1, 2], "none is missing");
        assert_eq!(name.take(20, &[2]), [2]);
    }

    #[test]
    fn turning_set_keeps_all_of_its_addresses() {
        let mut name = Name::new();
        name.take(0, &[1, 2]);
        name.take(5, &[3, 4]);
        name.take(10, &[5, 6]);
        assert_eq!(name.take(15, &[2, 1]), [2, 1]);
        assert_eq!(name.take(20, &[4, 3]), [2, 1, 4, 3]);
        assert_eq!(name.take(25, &[6, 5]), [2, 1, 4, 3, 6, 5]);
        for second in (30..330).step_by(15) {
            name.take(second, &[1, 2]);
            name.take(second + 5, &[3, 4]);
            assert_eq!(name.take(second + 10, &[5, 6]), [2, 1, 4, 3, 6, 5]);
        }
        // Twenty TTLs later those that were in no answer leave; those in answers stay in their places.
        for second in (330..430).step_by(5) {
            name.take(second, &[1, 4]);
        }
        assert_eq!(name.take(430, &[1, 4]), [1, 4]);
    }

    #[test]
    fn addresses_that_stay_outlast_any_number_of_others() {
        let mut name = Name::new();
        name.take(0, &[1, 2, 3]);
        for second in 1..200 {
            let other = u8::try_from(10 + second).unwrap();
            let kept = name.take(second, &[other, 3, 2, 10, 1]);
            assert_eq!(kept[..3], [1, 2, 3]);
            assert!(kept.len() <= MAX_KEPT);
            name.take(second, &[other, 3, 2, 1]);
        }
    }

    #[test]
    fn answer_with_more_addresses_than_the_limit_is_stable() {
        let mut name = Name::new();
        let all: Vec<u8> = (0..100).collect();
        let first = name.take(0, &all);
        let turned: Vec<u8> = all.iter().rev().copied().collect();
        assert_eq!(name.take(5, &turned), first);
    }
}
