//! Whether an upstream takes connections: a state machine that is told what happened and when.
//!
//! Clients' dials are evidence that costs nothing; checks are made when they are due. Time and jitter are arguments.

use std::time::{Duration, Instant};

use crate::conf::Check;

/// Longest wait between checks of an upstream that is down, whatever its `hold` doubled to.
pub const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// What happened to an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// A client's connection to it was made.
    Dialled,
    /// A client's connection to it could not be made.
    NotDialled,
    /// It answered a client in time.
    Served,
    /// It took a client's connection, and did not answer in time.
    Silent,
    /// A check found it well.
    Passed,
    /// A check found it unwell.
    Missed,
}

/// What is known of one upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Health {
    state: State,
    /// `None`: as it began.
    since: Option<Instant>,
    /// When the next check is due; of one that is down there is always one.
    next: Option<Instant>,
    /// The last wait of a down: one that falls silent again goes on from here.
    wait: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// What speaks against it, each kind in a row.
    Up {
        not_dialled: u32,
        silent: u32,
        missed: u32,
    },
    Down {
        /// Checks that passed in a row.
        passed: u32,
        /// It is down for its silence: that it takes connections is known, and says nothing.
        silent: bool,
    },
}

const UP: State = State::Up {
    not_dialled: 0,
    silent: 0,
    missed: 0,
};

/// The check of an upstream of which only dials tell: one failure takes it down, one success brings it back.
pub fn passive() -> Check {
    Check {
        interval: None,
        fails: 1,
        hold: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        jitter: 0,
        timeout: Duration::from_secs(1),
        send: Box::default(),
        expect: Box::default(),
    }
}

impl Default for Health {
    /// Up, for want of evidence.
    fn default() -> Self {
        Self {
            state: UP,
            since: None,
            next: None,
            wait: Duration::ZERO,
        }
    }
}

impl Health {
    /// The state after `event`, which ended at `now`. `bits`: uniform ones, for the jitter of the next check.
    #[must_use]
    pub fn after(self, event: Event, check: &Check, bits: u64, now: Instant) -> Self {
        match self.state {
            State::Up {
                not_dialled,
                silent,
                missed,
            } => {
                let up = |not_dialled, silent, missed| Self {
                    state: State::Up {
                        not_dialled,
                        silent,
                        missed,
                    },
                    ..self
                };
                match event {
                    Event::Dialled => up(0, silent, missed),
                    Event::Served => up(0, 0, missed),
                    Event::NotDialled if not_dialled + 1 < check.fails => {
                        up(not_dialled + 1, silent, missed)
                    }
                    Event::Silent if silent + 1 < check.fails => {
                        up(not_dialled, silent + 1, missed)
                    }
                    Event::Passed => Self {
                        next: check.interval.map(|_| now + pause(check, bits)),
                        // That it takes connections does not mean that it answers.
                        ..up(0, if check.expect.is_empty() { silent } else { 0 }, 0)
                    },
                    Event::Missed if missed + 1 < check.fall => Self {
                        next: Some(now + pause(check, bits)),
                        ..up(not_dialled, silent, missed + 1)
                    },
                    Event::NotDialled | Event::Silent | Event::Missed => {
                        self.fallen(event == Event::Silent, check, now)
                    }
                }
            }
            State::Down { passed, silent } => match event {
                Event::Dialled if silent || !check.expect.is_empty() => self,
                Event::Served if !check.expect.is_empty() => self,
                Event::Passed if passed + 1 < check.rise => Self {
                    state: State::Down {
                        passed: passed + 1,
                        silent,
                    },
                    next: Some(now + pause(check, bits)),
                    ..self
                },
                Event::Dialled | Event::Served | Event::Passed => Self {
                    state: UP,
                    since: Some(now),
                    next: check.interval.map(|_| now + pause(check, bits)),
                    ..self
                },
                Event::NotDialled | Event::Silent | Event::Missed => {
                    self.still_down(silent, check, now)
                }
            },
        }
    }

    fn fallen(self, silent: bool, check: &Check, now: Instant) -> Self {
        // A connection is all that a plain check asks for: one that is silent comes back by it, and falls again.
        let relapsed = silent && self.since.is_some_and(|since| now < since + LONGEST_HOLD);
        let wait = if relapsed {
            self.longer(check)
        } else {
            check.hold
        };
        Self {
            state: State::Down { passed: 0, silent },
            since: Some(now),
            next: Some(now + wait),
            wait,
        }
    }

    fn still_down(self, silent: bool, check: &Check, now: Instant) -> Self {
        let down = Self {
            state: State::Down { passed: 0, silent },
            ..self
        };
        // Many dials fail at once where many clients wait: only the check that was due counts.
        if !self.due(now) {
            return down;
        }
        let wait = self.longer(check);
        Self {
            next: Some(now + wait),
            wait,
            ..down
        }
    }

    /// Twice the last wait, and not longer than a check would be apart from the next one anyway.
    fn longer(self, check: &Check) -> Duration {
        let longest = check.interval.unwrap_or(LONGEST_HOLD).min(LONGEST_HOLD);
        (self.wait * 2).min(longest).max(check.hold)
    }

    /// The same state with the next check at `at`; `None`: one that is up is not checked any more.
    #[must_use]
    pub fn with_next(self, at: Option<Instant>) -> Self {
        Self {
            next: if self.is_up() { at } else { self.next },
            ..self
        }
    }

    pub fn is_up(self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Whether it is up, and a success would tell something all the same: failures are being counted.
    pub fn is_doubtful(self) -> bool {
        matches!(
            self.state,
            State::Up {
                not_dialled: 1..,
                ..
            } | State::Up { silent: 1.., .. }
        )
    }

    /// Clients in a row that it did not answer, while it is up.
    pub fn silences(self) -> u32 {
        match self.state {
            State::Up { silent, .. } => silent,
            State::Down { .. } => 0,
        }
    }

    /// Whether it is down because it did not answer clients.
    pub fn is_down_for_silence(self) -> bool {
        matches!(self.state, State::Down { silent: true, .. })
    }

    /// Whether it is up although its last check failed: the next one is due whoever sees it listen.
    pub fn is_missed(self) -> bool {
        matches!(self.state, State::Up { missed: 1.., .. })
    }

    /// When it went up or down; `None`: it never did.
    pub fn since(self) -> Option<Instant> {
        self.since
    }

    /// That of one that came at `now`.
    #[must_use]
    pub fn came(self, now: Instant) -> Self {
        Self {
            since: Some(now),
            ..self
        }
    }

    /// When the next check is due.
    pub fn next(self) -> Option<Instant> {
        self.next
    }

    /// Whether it is down and a check is due.
    pub fn due(self, now: Instant) -> bool {
        !self.is_up() && self.next.is_some_and(|next| next <= now)
    }
}

/// From one check to the next, of an upstream whose state is not settled or that is well.
fn pause(check: &Check, bits: u64) -> Duration {
    spread(check.interval.unwrap_or(check.hold), check.jitter, bits)
}

/// `time`, longer or shorter by `jitter` percent at most, as `bits` have it.
fn spread(time: Duration, jitter: u8, bits: u64) -> Duration {
    let part = time * u32::from(jitter.min(100)) / 100;
    let width = 2 * part.as_nanos();
    let more = (width.min(u128::from(u64::MAX)) * u128::from(bits)) >> 64;
    time.saturating_sub(part) + Duration::from_nanos(u64::try_from(more).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
