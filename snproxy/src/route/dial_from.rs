//! Which source address an upstream is dialled from, and how many source ports its connections took.
//!
//! One source address has some 28,000 ports towards one destination. All of 127.0.0.0/8 is this host's, so that a pod of
//! this host can be dialled from further addresses once they have run out.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

/// Further addresses that a pod of this host is dialled from: 127.0.0.2 and those after it.
pub const FURTHER: u8 = 64;

/// A source address: the one that the kernel picks (0), or a further one of loopback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Source(u8);

impl Source {
    /// `None`: the kernel picks it.
    pub fn ip(self) -> Option<IpAddr> {
        // 127.0.0.1 is what the kernel picks.
        self.is_further()
            .then(|| Ipv4Addr::new(127, 0, 0, self.0 + 1).into())
    }

    pub fn is_further(self) -> bool {
        self.0 > 0
    }
}

/// What dials of one upstream found.
#[derive(Debug, Default)]
pub struct DialFrom {
    /// Where the last one found a port: the kernel's search of an address without any is slow.
    last: AtomicU8,
    /// The kernel's own choice is worth a try again.
    is_due: AtomicBool,
    /// No address had a port a moment ago.
    is_over: AtomicBool,
    /// A dial from a further address failed a moment ago, although it had a port.
    further_fails: AtomicBool,
    /// Connections so far; wraps around.
    made: AtomicU32,
}

impl DialFrom {
    /// For the upstream that takes the place of the one with these.
    #[must_use]
    pub fn inherited(&self) -> Self {
        Self {
            last: AtomicU8::new(self.last.load(Relaxed)),
            ..Self::default()
        }
    }

    /// The one to dial from, without taking a turn.
    pub fn now(&self) -> Source {
        Source(self.last.load(Relaxed))
    }

    /// The one to dial from first.
    pub fn first(&self) -> Source {
        let last = self.now();
        let goes_back =
            last.is_further() && self.is_due.load(Relaxed) && self.is_due.swap(false, Relaxed);
        if goes_back { Source(0) } else { last }
    }

    /// Where to look once no port was found at `first`: from where the last dial found one, around. Empty while it is
    /// known that there is none.
    pub fn others(&self, first: Source) -> impl Iterator<Item = Source> + use<> {
        let last = self.last.load(Relaxed);
        let most = if self.is_over.load(Relaxed) || self.further_fails.load(Relaxed) {
            0
        } else {
            FURTHER + 1
        };
        (0..most)
            .map(move |step| Source((last + step) % (FURTHER + 1)))
            .filter(move |source| *source != first)
    }

    /// Takes note of a connection; true when it is the first from a further address since the kernel's own choice did.
    pub fn found(&self, source: Source) -> bool {
        self.note_made();
        if self.last.load(Relaxed) == source.0 {
            return false;
        }
        self.last.swap(source.0, Relaxed) == 0
    }

    /// Takes note of a connection from wherever.
    pub fn note_made(&self) {
        self.made.fetch_add(1, Relaxed);
    }

    /// Takes note that there is no port anywhere, until it is worth a look again.
    pub fn note_over(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Takes note that the upstream cannot be reached from a further address: dials begin at the ordinary one again, and
    /// end there until it is worth a look again.
    pub fn note_further_fails(&self) {
        self.further_fails.store(true, Relaxed);
        self.last.store(0, Relaxed);
    }

    /// Whether a dial would find no port, as far as is known: the kernel's search of all of them takes milliseconds.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }

    /// From now on it is worth a look again.
    pub fn look_again(&self) {
        for flag in [&self.is_over, &self.further_fails] {
            if flag.load(Relaxed) {
                flag.store(false, Relaxed);
            }
        }
    }

    /// From now on the kernel's own choice is worth a try.
    pub fn go_back(&self) {
        if self.now().is_further() {
            self.is_due.store(true, Relaxed);
        }
    }

    /// Connections so far; wraps around.
    pub fn made(&self) -> u32 {
        self.made.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(from: &DialFrom, first: Source) -> Vec<u8> {
        from.others(first).map(|source| source.0).collect()
    }

    #[test]
    fn further_addresses_begin_behind_the_ordinary_one() {
        assert_eq!(Source(0).ip(), None);
        assert_eq!(Source(1).ip(), Some("127.0.0.2".parse().unwrap()));
        assert_eq!(Source(FURTHER).ip(), Some("127.0.0.65".parse().unwrap()));
    }

    #[test]
    fn a_dial_begins_where_the_last_one_found_a_port() {
        let from = DialFrom::default();
        assert_eq!(from.first(), Source(0));
        let all: Vec<u8> = (1..=FURTHER).collect();
        assert_eq!(others(&from, Source(0)), all);
        assert!(from.found(Source(3)), "news");
        assert!(!from.found(Source(3)));
        assert!(!from.found(Source(4)), "that it left the first is known");
        assert_eq!(from.first(), Source(4));
        let around = others(&from, Source(4));
        assert_eq!(around[..2], [5, 6]);
        assert_eq!(around.last(), Some(&3));
        assert_eq!(around.len(), usize::from(FURTHER));
        assert_eq!(from.made(), 3);
    }

    #[test]
    fn it_goes_back_now_and_then_by_one_dial() {
        let from = DialFrom::default();
        from.go_back();
        from.found(Source(5));
        assert_eq!(from.first(), Source(5), "it was not asked to");
        from.go_back();
        assert_eq!(from.now(), Source(5));
        assert_eq!(from.first(), Source(0));
        assert_eq!(from.first(), Source(5));
        // In vain: on from where it was.
        assert_eq!(others(&from, Source(0))[..2], [5, 6]);
        from.found(Source(0));
        assert_eq!(from.first(), Source(0));
    }

    #[test]
    fn what_was_searched_in_vain_is_not_searched_again_at_once() {
        let from = DialFrom::default();
        assert!(!from.is_over());
        from.note_over();
        assert!(from.is_over());
        assert_eq!(others(&from, Source(0)), [0; 0]);
        from.look_again();
        assert_eq!(others(&from, Source(0)).len(), usize::from(FURTHER));
    }

    #[test]
    fn a_failure_at_a_further_address_holds_up_no_dial() {
        let from = DialFrom::default();
        from.found(Source(3));
        from.note_further_fails();
        assert!(!from.is_over());
        assert_eq!(from.first(), Source(0));
        assert_eq!(others(&from, Source(0)), [0; 0]);
        from.look_again();
        assert_eq!(others(&from, Source(0)).len(), usize::from(FURTHER));
    }
}
