//! The connections for questions, as `flow/questions.rs` keeps them: one per host that is asked, of which some stay.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use snproxy::route::peers::Answers;

use crate::costs::{IDLE_LIMIT, MAX_BATCH, MAX_CONNECTS, MAX_STAYS, MAX_WAITING, ROUND_TRIP};

pub(super) struct Links {
    of: Vec<Link>,
    connecting: usize,
    /// Hosts that wait for a place to connect.
    waiting: VecDeque<usize>,
    staying: usize,
}

/// How many pods serve this port?
#[derive(Clone)]
pub(super) struct Question {
    pub(super) port: usize,
    pub(super) answers: Arc<Answers>,
}

#[derive(Clone, Default)]
struct Link {
    questions: VecDeque<Question>,
    asked: Vec<Question>,
    state: State,
    stays: bool,
    idle_since: Duration,
    /// Whether its end for want of questions is planned.
    is_watched: bool,
}

#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum State {
    #[default]
    Closed,
    Waits,
    Connects,
    Asks,
    Idle,
}

/// What happens to the connection of a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Begins(usize),
    Connected(usize),
    Sends(usize),
    Answered(usize),
    IsIdle(usize, Duration),
}

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    pub(super) at: usize,
    pub(super) connects: u8,
    pub(super) sent: u8,
    pub(super) answered: Vec<Question>,
    pub(super) next: Vec<Next>,
}

impl Next {
    pub(super) fn after(self) -> Duration {
        match self {
            Self::Begins(_) | Self::Sends(_) => Duration::ZERO,
            Self::Connected(_) | Self::Answered(_) => ROUND_TRIP,
            Self::IsIdle(_, after) => after,
        }
    }
}

impl Links {
    pub(super) fn new(hosts: usize) -> Self {
        Self {
            of: vec![Link::default(); hosts],
            connecting: 0,
            waiting: VecDeque::new(),
            staying: 0,
        }
    }

    pub(super) fn ask(&mut self, at: usize, question: Question) -> Option<Next> {
        let link = &mut self.of[at];
        assert!(link.questions.len() < MAX_WAITING, "questions are dropped");
        link.questions.push_back(question);
        match link.state {
            State::Closed => {
                link.state = State::Waits;
                Some(Next::Begins(at))
            }
            State::Idle => {
                link.state = State::Asks;
                Some(Next::Sends(at))
            }
            State::Waits | State::Connects | State::Asks => None,
        }
    }

    pub(super) fn go_on(&mut self, next: Next, now: Duration) -> Done {
        match next {
            Next::Begins(at) => {
                self.waiting.push_back(at);
                self.connect(at)
            }
            Next::Connected(at) => {
                self.connecting -= 1;
                let link = &mut self.of[at];
                link.state = State::Asks;
                link.stays = self.staying < MAX_STAYS;
                self.staying += usize::from(link.stays);
                let mut done = self.connect(at);
                done.next.push(Next::Sends(at));
                done
            }
            Next::Sends(at) => {
                let link = &mut self.of[at];
                let count = link.questions.len().min(MAX_BATCH);
                link.asked = link.questions.drain(..count).collect();
                Done {
                    at,
                    sent: 1,
                    next: vec![Next::Answered(at)],
                    ..Done::default()
                }
            }
            Next::Answered(at) => self.answered(at, now),
            Next::IsIdle(at, _) => self.idle(at, now),
        }
    }

    /// The next one that waits for a place, if there is one.
    fn connect(&mut self, at: usize) -> Done {
        let mut done = Done {
            at,
            ..Done::default()
        };
        if self.connecting < MAX_CONNECTS
            && let Some(first) = self.waiting.pop_front()
        {
            self.connecting += 1;
            self.of[first].state = State::Connects;
            done.connects = 1;
            done.next.push(Next::Connected(first));
        }
        done
    }

    fn answered(&mut self, at: usize, now: Duration) -> Done {
        let link = &mut self.of[at];
        let mut done = Done {
            at,
            answered: std::mem::take(&mut link.asked),
            ..Done::default()
        };
        if !link.questions.is_empty() {
            done.next.push(Next::Sends(at));
        } else if link.stays {
            link.state = State::Idle;
            link.idle_since = now;
            if !link.is_watched {
                link.is_watched = true;
                done.next.push(Next::IsIdle(at, IDLE_LIMIT));
            }
        } else {
            link.state = State::Closed;
        }
        done
    }

    fn idle(&mut self, at: usize, now: Duration) -> Done {
        let link = &mut self.of[at];
        let mut done = Done {
            at,
            ..Done::default()
        };
        let idle = now.saturating_sub(link.idle_since);
        if link.state == State::Idle && idle >= IDLE_LIMIT {
            link.state = State::Closed;
            link.stays = false;
            link.is_watched = false;
            self.staying -= 1;
        } else {
            let rest = IDLE_LIMIT.saturating_sub(idle).max(ROUND_TRIP);
            done.next.push(Next::IsIdle(at, rest));
        }
        done
    }
}
