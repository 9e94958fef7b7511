use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Sets its flag when dropped: threads that go on until then also end when the scenario panics.
#[derive(Debug)]
pub struct Ending<'f>(pub &'f AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Waits until `cond` holds and gives the time it took; panics with `what` when `limit` passes first.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut cond: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if cond() {
            return start.elapsed();
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_asked_again_until_it_holds() {
        let mut asked = 0;
        eventually(Duration::from_secs(5), "third time", || {
            asked += 1;
            asked == 3
        });
        assert_eq!(asked, 3);
    }
}
