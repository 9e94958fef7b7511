//! How long a connection may be in which state, and which of these limits is reached first.
//!
//! One timer for all of them, set to the nearest one; nothing of this exists for a connection without limits.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Meter, Side};

/// Milliseconds between two bytes of an upstream that are two answers.
const ANSWER_PAUSE: u64 = 100;
/// No such moment yet.
const NEVER: u64 = u64::MAX;

/// The limits of one connection; `None`: off.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Timeouts {
    /// Nothing moves in either direction.
    pub idle: Option<Duration>,
    /// The client has not ended, and sends nothing. What it sent and the upstream does not take is not held against it.
    pub client_idle: Option<Duration>,
    /// The same of the upstream.
    pub upstream_idle: Option<Duration>,
    /// From the client's first byte, behind a header, to the upstream's.
    pub first_byte: Option<Duration>,
    /// From one side's FIN to the other one's.
    pub linger: Option<Duration>,
    /// From the start, whatever happens.
    pub lifetime: Option<Duration>,
}

/// One of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timeout {
    Idle,
    ClientIdle,
    UpstreamIdle,
    FirstByte,
    Linger,
    Lifetime,
}

impl Timeouts {
    /// `None` where all of them are off.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// What a connection with limits remembers of its past.
///
/// Units: milliseconds since the start.
pub(super) struct Clock<'a> {
    timeouts: Box<Timeouts>,
    start: Instant,
    meter: &'a Meter,
    up: Hand,
    down: Hand,
    /// Bytes of the client that ask for nothing.
    header: AtomicU64,
    /// The client's first byte behind them.
    asked_at: AtomicU64,
    /// The first FIN.
    ended_at: AtomicU64,
    /// A limit began that may be nearer than the one that the timer is set to.
    is_new: AtomicBool,
}

/// Of one direction.
#[derive(Default)]
struct Hand {
    moved_at: AtomicU64,
    /// Bytes wait until their receiver takes them.
    is_stuck: AtomicBool,
    has_ended: AtomicBool,
}

impl<'a> Clock<'a> {
    pub(super) fn new(timeouts: Box<Timeouts>, meter: &'a Meter) -> Self {
        Self {
            timeouts,
            start: Instant::now(),
            meter,
            up: Hand::default(),
            down: Hand::default(),
            header: AtomicU64::new(0),
            asked_at: AtomicU64::new(NEVER),
            ended_at: AtomicU64::new(NEVER),
            is_new: AtomicBool::new(false),
        }
    }

    fn hand(&self, from: Side) -> &Hand {
        match from {
            Side::Client => &self.up,
            Side::Upstream => &self.down,
        }
    }

    /// The first so many bytes of the client ask for nothing.
    pub(super) fn behind_header(&self, bytes: usize) {
        self.header.store(bytes as u64, Relaxed);
    }

    /// Bytes that came from this side moved.
    pub(super) fn moved(&self, from: Side) {
        let now = self.now();
        let before = self.hand(from).moved_at.swap(now, Relaxed);
        // One that goes on answering is counted now and then: many connections share the count.
        let is_answer = from == Side::Upstream && (before == 0 || before + ANSWER_PAUSE <= now);
        if is_answer {
            self.meter.note_answer();
        }
        let has_asked = || self.meter.up.load(Relaxed) > self.header.load(Relaxed);
        if self.asked_at.load(Relaxed) == NEVER && has_asked() {
            self.asked_at.store(now, Relaxed);
            self.meter.note_question();
            self.is_new.store(true, Relaxed);
        }
    }

    /// Whether bytes that came from this side wait for the other one.
    pub(super) fn stuck(&self, from: Side, is_stuck: bool) {
        self.hand(from).is_stuck.store(is_stuck, Relaxed);
    }

    /// This side's FIN was passed on.
    pub(super) fn ended(&self, side: Side) {
        self.hand(side).has_ended.store(true, Relaxed);
        self.ended_at.fetch_min(self.now(), Relaxed);
        self.is_new.store(true, Relaxed);
    }

    /// Resolves when a limit is reached. To be polled by the task that moves the bytes, after it did.
    pub(super) async fn reached(&self) -> Timeout {
        let mut timer = pin!(sleep_until(self.start));
        loop {
            self.is_new.store(false, Relaxed);
            let now = Instant::now();
            let nearest = self.nearest(now);
            match nearest {
                Some((at, timeout)) if at <= now => return timeout,
                Some((at, _)) => timer.as_mut().reset(at),
                None => {}
            }
            poll_fn(|cx| {
                if self.is_new.load(Relaxed) {
                    return Poll::Ready(());
                }
                match nearest {
                    Some(_) => timer.as_mut().poll(cx),
                    None => Poll::Pending,
                }
            })
            .await;
        }
    }

    /// The limit that is reached first if nothing happens, and when.
    fn nearest(&self, now: Instant) -> Option<(Instant, Timeout)> {
        let at = |moment: &AtomicU64| match moment.load(Relaxed) {
            NEVER => None,
            moment => Some(self.start + Duration::from_millis(moment)),
        };
        // Of a direction that is stuck the clock stands still.
        let silent_since = |hand: &Hand| match (&hand.has_ended, &hand.is_stuck) {
            (ended, _) if ended.load(Relaxed) => None,
            (_, stuck) if stuck.load(Relaxed) => Some(now),
            _ => at(&hand.moved_at),
        };
        let moved = at(&self.up.moved_at).max(at(&self.down.moved_at));
        let has_answered = self.meter.down.load(Relaxed) > 0 || self.down.has_ended.load(Relaxed);
        let asked = at(&self.asked_at).filter(|_| !has_answered);
        let Timeouts {
            idle,
            client_idle,
            upstream_idle,
            first_byte,
            linger,
            lifetime,
        } = *self.timeouts;
        let limits = [
            (first_byte, asked, Timeout::FirstByte),
            (client_idle, silent_since(&self.up), Timeout::ClientIdle),
            (
                upstream_idle,
                silent_since(&self.down),
                Timeout::UpstreamIdle,
            ),
            (idle, moved, Timeout::Idle),
            (linger, at(&self.ended_at), Timeout::Linger),
            (lifetime, Some(self.start), Timeout::Lifetime),
        ];
        let limits = limits
            .into_iter()
            .filter_map(|(limit, since, timeout)| Some((since? + limit?, timeout)));
        limits.min_by_key(|(at, _)| *at)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}
