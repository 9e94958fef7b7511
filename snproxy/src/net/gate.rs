//! A port's rate, asked right after accept: for listeners that no program of the kernel stands before.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use snproxy_common::rate::RateLimit;

/// Lets connections through as far as the rate allows.
#[derive(Debug)]
pub struct Gate {
    /// Time is counted from here.
    origin: Instant,
    bucket: Mutex<Bucket>,
    limited: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    limit: Option<RateLimit>,
    arrival: u64,
}

impl Gate {
    pub fn new(limit: Option<RateLimit>) -> Self {
        Self {
            origin: Instant::now(),
            bucket: Mutex::new(Bucket { limit, arrival: 0 }),
            limited: AtomicU64::new(0),
        }
    }

    /// From now on another rate, or none; the count goes on.
    pub fn set(&self, limit: Option<RateLimit>) {
        self.bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .limit = limit;
    }

    /// Whether a connection that comes now keeps to the rate; counted if not.
    pub fn lets_through(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(limit) = bucket.limit else {
            return true;
        };
        // Of 584 years.
        let now = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (is_within, arrival) = limit.take(bucket.arrival, now);
        bucket.arrival = arrival;
        drop(bucket);
        if !is_within {
            self.limited.fetch_add(1, Relaxed);
        }
        is_within
    }

    /// Connections that it did not let through.
    pub fn limited(&self) -> u64 {
        self.limited.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lets_a_burst_through_and_counts_the_rest() {
        // None comes back during the test.
        let rare = RateLimit {
            interval: 1 << 50,
            burst: 3 << 50,
        };
        let gate = Gate::new(Some(rare));
        let through = (0..10).filter(|_| gate.lets_through()).count();
        assert_eq!((through, gate.limited()), (3, 7));
        gate.set(None);
        assert!((0..10).all(|_| gate.lets_through()));
        gate.set(Some(rare));
        assert!(!gate.lets_through());
        assert_eq!(gate.limited(), 8);
    }
}
