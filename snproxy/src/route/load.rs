//! How many connections a pod carries, and the permits that keep it under its `maxConn`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Live connections of one mapping; the same across reloads.
#[derive(Debug, Default)]
pub struct Load {
    active: AtomicU32,
}

/// One place under a pod's `maxConn`; dropping it frees the place.
#[derive(Debug)]
pub struct Permit(Arc<Load>);

impl Load {
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// `None` when `max_conn` connections are live already.
    pub fn admit(self: &Arc<Self>, max_conn: u32) -> Option<Permit> {
        let room = |active| (active < max_conn).then_some(active + 1);
        self.active.fetch_update(Relaxed, Relaxed, room).ok()?;
        Some(Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_race_for_permits_never_hold_more_than_the_limit() {
        let load = Arc::new(Load::default());
        let highest = AtomicU32::new(0);
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(permit) = load.admit(7) {
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

    #[test]
    fn a_limit_of_zero_admits_nobody() {
        assert!(Arc::new(Load::default()).admit(0).is_none());
    }
}
