//! How many connections there are of something, and the places that keep them under a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use arc_swap::ArcSwapOption;

use super::sentence::Sentence;

/// It was full, and is closed until it is below its limit far enough.
const CLOSED: u32 = 1 << 31;

/// How many connections there may be at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limit {
    /// 0: none.
    pub most: u32,
    /// Percent of it below which what was full takes new ones again.
    pub reopen: u8,
}

impl Limit {
    /// `None`: as many as can be counted.
    pub fn new(most: Option<u32>, reopen: u8) -> Self {
        Self {
            most: most.unwrap_or(u32::MAX),
            reopen,
        }
    }

    fn reopens_at(self, active: u32) -> bool {
        u64::from(active) * 100 < u64::from(self.most) * u64::from(self.reopen)
    }
}

/// Live connections of something with a [`Limit`].
///
/// Shape: the number in 31 bits; the highest one says that it is closed.
#[derive(Debug, Default)]
pub struct Count(AtomicU32);

impl Count {
    pub fn active(&self) -> u32 {
        self.0.load(Relaxed) & !CLOSED
    }

    /// Whether one more would be admitted.
    pub fn has_room(&self, limit: Limit) -> bool {
        admitted(self.0.load(SeqCst), limit).is_some()
    }

    /// Counts one more connection; false where there is no place. Whoever has one gives it back by
    /// [`release`](Self::release).
    pub fn admit(&self, limit: Limit) -> bool {
        // In one order with those who wait: a place that comes free is seen, or they are seen by who frees it.
        self.0
            .fetch_update(SeqCst, SeqCst, |state| admitted(state, limit))
            .is_ok()
    }

    pub fn release(&self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// The state with one connection more.
fn admitted(state: u32, limit: Limit) -> Option<u32> {
    let active = state & !CLOSED;
    let most = limit.most.min(!CLOSED);
    let is_closed = state & CLOSED != 0 && !limit.reopens_at(active);
    if is_closed || active >= most {
        return None;
    }
    let active = active + 1;
    Some(if active == most {
        active | CLOSED
    } else {
        active
    })
}

/// Live connections of one pod of one service; the same across reloads.
#[derive(Debug, Default)]
pub struct Load {
    count: Count,
    /// Those of them that the upstream has ended: they hold their places, and are no work.
    ended: AtomicU32,
    /// `None`: its connections live on.
    sentence: ArcSwapOption<Sentence>,
}

/// A connection that its upstream has ended; until this is dropped.
#[derive(Debug)]
pub struct Ended<'l>(&'l Load);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_sub(1, Relaxed);
    }
}

/// One place at a pod; dropping it frees the place.
#[derive(Debug)]
pub struct Permit(Arc<Load>);

impl Load {
    pub fn active(&self) -> u32 {
        self.count.active()
    }

    /// Live connections that the upstream has not ended.
    pub fn working(&self) -> u32 {
        self.active().saturating_sub(self.ended.load(Relaxed))
    }

    /// The upstream has ended one of its connections, which still lives.
    pub fn note_ended(&self) -> Ended<'_> {
        self.ended.fetch_add(1, Relaxed);
        Ended(self)
    }

    /// Whether one more would be admitted.
    pub fn has_room(&self, limit: Limit) -> bool {
        self.count.has_room(limit)
    }

    /// `None` when it is full.
    pub fn admit(self: &Arc<Self>, limit: Limit) -> Option<Permit> {
        self.count.admit(limit).then(|| Permit(Arc::clone(self)))
    }

    pub fn sentence(&self) -> Option<Arc<Sentence>> {
        self.sentence.load_full()
    }

    /// Passes a sentence on all connections, in place of any other, or takes it back.
    pub fn sentence_to(&self, sentence: Option<Sentence>) {
        self.sentence.store(sentence.map(Arc::new));
    }
}

impl Permit {
    /// Of the pod that it is a place at.
    pub fn load(&self) -> &Load {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(most: u32, reopen: u8) -> Limit {
        Limit { most, reopen }
    }

    #[test]
    fn threads_that_race_for_permits_never_hold_more_than_the_limit() {
        for reopen in [100, 50] {
            let load = Arc::new(Load::default());
            let highest = AtomicU32::new(0);
            let inside = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..20_000 {
                            if let Some(permit) = load.admit(limit(7, reopen)) {
                                highest.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                                inside.fetch_sub(1, Relaxed);
                                drop(permit);
                            }
                        }
                    });
                }
            });
            assert!(
                (1..=7).contains(&highest.load(Relaxed)),
                "{highest:?} inside at once"
            );
            assert_eq!(load.active(), 0);
        }
    }

    #[test]
    fn a_limit_of_zero_admits_nobody() {
        assert!(Arc::new(Load::default()).admit(limit(0, 100)).is_none());
    }

    #[test]
    fn what_was_full_reopens_below_the_lower_threshold() {
        let load = Arc::new(Load::default());
        let limit = limit(4, 75);
        let mut permits: Vec<_> = (0..4).map(|_| load.admit(limit).unwrap()).collect();
        assert!(load.admit(limit).is_none());
        permits.pop();
        assert!(load.admit(limit).is_none(), "3 are not below 75 % of 4");
        permits.pop();
        assert!(load.has_room(limit));
        permits.push(load.admit(limit).unwrap());
        permits.push(load.admit(limit).expect("open until it is full again"));
        assert!(load.admit(limit).is_none());
        permits.clear();
        assert_eq!(load.active(), 0);
    }

    #[test]
    fn a_limit_that_was_raised_counts_at_once_and_one_that_was_lowered_ends_nothing() {
        let load = Arc::new(Load::default());
        let _held: Vec<_> = (0..4).map(|_| load.admit(limit(4, 100)).unwrap()).collect();
        assert!(load.admit(limit(4, 100)).is_none());
        assert!(load.admit(limit(5, 100)).is_some());
        assert!(load.admit(limit(2, 100)).is_none());
        assert_eq!(load.active(), 4);
    }
}
