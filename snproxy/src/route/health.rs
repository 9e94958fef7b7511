//! Whether an upstream takes connections: a state machine that is told what happened and when.

use std::time::{Duration, Instant};

/// First wait between probes of an upstream that is down; doubles up to [`LONGEST_WAIT`].
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between probes.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What is known of one upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    Up,
    /// The last dial failed; the next probe is due at `retry`.
    Down {
        retry: Instant,
        wait: Duration,
    },
}

impl Health {
    /// The state after a dial or probe that ended at `now`.
    #[must_use]
    pub fn after(self, connected: bool, now: Instant) -> Self {
        match (self, connected) {
            (_, true) => Self::Up,
            (Self::Up, false) => Self::Down {
                retry: now + FIRST_WAIT,
                wait: FIRST_WAIT,
            },
            // Many dials fail at once where many clients wait: only the probe that was due counts.
            (Self::Down { retry, .. }, false) if now < retry => self,
            (Self::Down { wait, .. }, false) => {
                let wait = (wait * 2).min(LONGEST_WAIT);
                Self::Down {
                    retry: now + wait,
                    wait,
                }
            }
        }
    }

    /// Whether it is down for the first time only, and since less than `within`.
    pub fn failed_within(self, within: Duration, now: Instant) -> bool {
        matches!(self, Self::Down { retry, wait: FIRST_WAIT } if now + FIRST_WAIT < retry + within)
    }

    /// Whether a probe is due.
    pub fn due(self, now: Instant) -> bool {
        matches!(self, Self::Down { retry, .. } if retry <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_of_a_dead_upstream_back_off_from_one_second_to_thirty() {
        let mut now = Instant::now();
        let mut health = Health::Up;
        let mut waits = Vec::new();
        for _ in 0..7 {
            health = health.after(false, now);
            assert_eq!(
                health.after(false, now),
                health,
                "thirty clients fail as one"
            );
            let Health::Down { retry, wait } = health else {
                panic!("{health:?}")
            };
            assert_eq!(retry, now + wait);
            assert!(!health.due(now) && health.due(retry));
            waits.push(wait.as_secs());
            now = retry;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn one_success_is_enough_to_be_up() {
        let now = Instant::now();
        assert_eq!(Health::Up.after(false, now).after(true, now), Health::Up);
        assert!(!Health::Up.due(now));
    }
}
