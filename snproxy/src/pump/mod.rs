//! Moves bytes both ways between two sockets until both directions are done.
//!
//! Promises: no byte is lost, added or reordered; a FIN from one end is a FIN to the other, and the
//! opposite direction goes on; a reset arrives as a reset; what is held is bounded by one buffer per
//! direction. Knows neither ports nor headers. A mechanism is a file beside `copy.rs`: one round of reading and writing,
//! and the flush of what its receiver did not take; `one_way.rs` picks between them.

mod copy;
mod one_way;
mod splice;
mod timeouts;

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::time::Instant;

use crate::conf::Mechanism;
use crate::route::load::Load;
use crate::sys;
use crate::sys::stream::Stream;

use one_way::OneWay;
use timeouts::Clock;

pub use timeouts::{Timeout, Timeouts};

/// How long an end that takes nothing holds up the reset of the other one.
const SETTLE_LIMIT: Duration = Duration::from_mins(1);

/// One of the two ends of a proxied connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Client,
    Upstream,
}

/// What goes to the upstream before the pump reads from the client itself.
#[derive(Debug)]
pub enum First {
    /// These bytes; `read` of them (or of bytes dropped before them) came from the client, `header` of which were a header.
    Bytes {
        bytes: BytesMut,
        read: usize,
        header: usize,
    },
    /// The client reset before it was decided.
    Reset,
}

/// Why the pump stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Both ends sent FIN and all bytes were handed to the kernel; whoever was second has still to get the FIN of the
    /// other one, by the close of its socket.
    Clean,
    /// This end reset, or could no longer be written to.
    Reset(Side),
    /// A limit on time was reached.
    Timeout(Timeout),
}

/// Bytes moved so far, readable while the pump runs.
///
/// Units: bytes taken from the client (`up`) and from the upstream (`down`).
#[derive(Debug, Default)]
pub struct Meter {
    pub up: AtomicU64,
    pub down: AtomicU64,
    /// Of its upstream, where they are counted.
    pub answers: Option<Arc<dyn Answers>>,
    /// How many there were when the client asked.
    answers_before: AtomicU32,
}

/// Counts what an upstream answers to all of its clients.
pub trait Answers: Debug + Send + Sync {
    fn note(&self);
    /// So far; wraps around.
    fn count(&self) -> u32;
}

impl Meter {
    /// One that counts the answers of this upstream.
    pub fn of(answers: Option<Arc<dyn Answers>>) -> Self {
        Self {
            answers,
            ..Self::default()
        }
    }

    fn note_question(&self) {
        if let Some(answers) = &self.answers {
            self.answers_before.store(answers.count(), Relaxed);
        }
    }

    fn note_answer(&self) {
        if let Some(answers) = &self.answers {
            answers.note();
        }
    }

    /// Whether the upstream answered another client since this one asked.
    pub fn has_answered_others(&self) -> bool {
        let before = self.answers_before.load(Relaxed);
        self.answers
            .as_ref()
            .is_some_and(|answers| answers.count() != before)
    }
}

/// Where it is entered what becomes of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Books<'a> {
    meter: &'a Meter,
    /// Connections of its upstream.
    load: Option<&'a Load>,
}

impl<'a> Books<'a> {
    pub fn new(meter: &'a Meter, load: Option<&'a Load>) -> Self {
        Self { meter, load }
    }
}

impl<'a> From<&'a Meter> for Books<'a> {
    fn from(meter: &'a Meter) -> Self {
        Self::new(meter, None)
    }
}

/// How a connection is pumped.
#[derive(Debug)]
pub struct Rule {
    pub mechanism: Mechanism,
    /// `None`: no limit.
    pub timeouts: Option<Box<Timeouts>>,
}

/// Pumps between `client` and `upstream` until both directions are done.
///
/// `first` decides what the upstream gets first; bytes from the upstream flow meanwhile, after those that are `early`:
/// read from it already. Unless the result is [`Stop::Clean`], both sockets are set to reset on close.
///
/// Errors: what `cut` resolved to, if it did.
/// Cancel safety: dropping it loses bytes in flight; use `cut`.
pub async fn run<C>(
    client: &Stream,
    upstream: &Stream,
    first: impl Future<Output = First> + Unpin,
    early: BytesMut,
    rule: Rule,
    cut: impl Future<Output = C>,
    books: impl Into<Books<'_>>,
) -> Result<Stop, C> {
    let Books { meter, load } = books.into();
    // Boxed, as all that few connections need: each one has the room for as long as it lives.
    let clock = rule
        .timeouts
        .map(|timeouts| Box::new(Clock::new(timeouts, meter)));
    let clock = clock.as_deref();
    let timeout = clock.map(|clock| Box::pin(clock.reached()));
    // The kernel knows nothing of the keys.
    let mechanism = if client.is_tls() || upstream.is_tls() {
        Mechanism::Copy
    } else {
        rule.mechanism
    };
    let mut up = Up {
        first: Some(first),
        way: OneWay::new(Side::Client, client, upstream, mechanism, &meter.up),
    };
    let mut down = OneWay::new(Side::Upstream, upstream, client, mechanism, &meter.down);
    let read = early.len();
    down.put_first(early, read);
    let stop = tokio::select! {
        biased;
        stop = both_ways(client, upstream, &mut up, &mut down, (clock, load)) => Ok(stop),
        timeout = maybe(timeout) => Ok(Stop::Timeout(timeout)),
        cut = cut => Err(cut),
    };
    if !matches!(stop, Ok(Stop::Clean)) {
        reset_on_close(client);
        reset_on_close(upstream);
    }
    stop
}

/// Makes the close of `stream` a reset (RST in place of FIN).
pub fn reset_on_close(stream: &Stream) {
    // Fails only on a socket that is gone already, which needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Which end of a direction failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Broken {
    From,
    To,
}

/// The way up, which begins when it is decided what goes first.
struct Up<'a, F> {
    first: Option<F>,
    way: OneWay<'a>,
}

impl<F: Future<Output = First> + Unpin> Up<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>, clock: Option<&Clock<'_>>) -> Poll<Result<(), Stop>> {
        if let Some(first) = &mut self.first {
            match ready!(Pin::new(first).poll(cx)) {
                First::Bytes {
                    bytes,
                    read,
                    header,
                } => {
                    if let Some(clock) = clock {
                        clock.behind_header(header);
                    }
                    self.way.put_first(bytes, read);
                }
                First::Reset => return Poll::Ready(Err(Stop::Reset(Side::Client))),
            }
            self.first = None;
        }
        self.way.poll(cx, clock).map_err(|broken| match broken {
            Broken::From => Stop::Reset(Side::Client),
            Broken::To => Stop::Reset(Side::Upstream),
        })
    }
}

async fn both_ways(
    client: &Stream,
    upstream: &Stream,
    up: &mut Up<'_, impl Future<Output = First> + Unpin>,
    down: &mut OneWay<'_>,
    (clock, load): (Option<&Clock<'_>>, Option<&Load>),
) -> Stop {
    let mut up = poll_fn(|cx| up.poll(cx, clock));
    let mut down = poll_fn(|cx| {
        down.poll(cx, clock).map_err(|broken| match broken {
            Broken::From => Stop::Reset(Side::Upstream),
            Broken::To => Stop::Reset(Side::Client),
        })
    });
    // Only a regular end is passed on as a FIN, and only here: after a write that failed, the read of the same socket
    // ends as if the other side had finished.
    tokio::select! {
        biased;
        ended = &mut up => match ended {
            Ok(()) => {
                finish(upstream, Side::Client, clock);
                // Boxed, here and below: a connection that is open both ways needs no room for it.
                Box::pin(second(down, client, (upstream, Side::Client), client)).await
            }
            Err(Stop::Reset(Side::Upstream)) => {
                // It takes no more, but what it sent before is still the client's.
                let _ = down.await;
                Box::pin(settle(client, Side::Upstream)).await
            }
            Err(stop) => stop,
        },
        ended = &mut down => match ended {
            Ok(()) => {
                finish(client, Side::Upstream, clock);
                let left = async {
                    let _ended = load.map(Load::note_ended);
                    second(up, upstream, (client, Side::Upstream), client).await
                };
                Box::pin(left).await
            }
            Err(stop @ Stop::Reset(Side::Client)) => {
                let _ = up.await;
                stop
            }
            Err(_) => Box::pin(settle(client, Side::Upstream)).await,
        },
    }
}

/// The direction that is left when `done` has sent its FIN; its receiver gets the FIN by the close that follows.
async fn second(
    left: impl Future<Output = Result<(), Stop>>,
    done: &Stream,
    (receiver, side): (&Stream, Side),
    client: &Stream,
) -> Stop {
    let ended = tokio::select! {
        ended = left => ended,
        // Nobody reads it any more, so its reset must be looked for.
        () = done.broken() => return settle(receiver, side).await,
    };
    match ended {
        Ok(()) => Stop::Clean,
        Err(Stop::Reset(Side::Upstream)) => settle(client, Side::Upstream).await,
        Err(stop) => stop,
    }
}

/// Lets `receiver` have what was written to it before the reset of `side` is passed on, which would void it.
///
/// An end that closed completely is reset by its own kernel some time later (a minute on Linux), and a server that
/// answers and closes with bytes unread resets at once: neither takes back what it sent. Given up when the receiver
/// takes nothing for [`SETTLE_LIMIT`].
async fn settle(receiver: &Stream, side: Side) -> Stop {
    let mut wait = Duration::from_millis(5);
    let mut left = usize::MAX;
    let mut taken_at = Instant::now();
    while let Ok(unsent @ 1..) = sys::socket::unsent(receiver) {
        if unsent < left {
            left = unsent;
            taken_at = Instant::now();
        } else if taken_at.elapsed() >= SETTLE_LIMIT {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Its bytes stay unsent for good, and nobody is left to have them.
            () = receiver.broken() => break,
        }
        wait = (wait * 2).min(Duration::from_millis(200));
    }
    Stop::Reset(side)
}

/// Sends the FIN of `side` to `stream`.
fn finish(stream: &Stream, side: Side, clock: Option<&Clock<'_>>) {
    if let Some(clock) = clock {
        clock.ended(side);
    }
    // ENOTCONN: the other end has reset, which the opposite direction finds out.
    let _ = stream.shutdown(Shutdown::Write);
}

/// For ever, without a future.
async fn maybe<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
