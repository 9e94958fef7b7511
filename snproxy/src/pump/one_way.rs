//! One direction: which mechanism moves its bytes, and where they wait.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::task::yield_now;

use super::splice::{self, Pipe};
use super::timeouts::Clock;
use super::{Broken, Side, copy};
use crate::conf::Mechanism;
use crate::sys::stream::Stream;

/// Rounds until the other connections of the worker have their turn.
const TURN: usize = 4;
/// Full buffers in a row that mean bulk.
const FULL_ROUNDS: u8 = 2;
/// Splices of less than [`FEW`] bytes in a row after which it is bulk no more.
const SMALL_ROUNDS: u8 = 9;
const FEW: usize = 8 * 1024;

/// What one read-and-write round came to.
pub(super) enum Round {
    Moved(usize),
    NotReady,
    End,
    Broken(Broken),
}

/// Carries all of `from`, up to its FIN, to `to`. The FIN itself is the caller's to pass on.
pub(super) struct OneWay<'a> {
    /// Which `from` is.
    side: Side,
    from: &'a Stream,
    to: &'a Stream,
    /// Bytes read from `from`.
    count: &'a AtomicU64,
    /// Of a copy, that `to` would not take yet.
    held: BytesMut,
    /// The same of a splice.
    pipe: Option<Pipe>,
    pace: Pace,
    /// The end of `from` was read, and `to` told of it.
    is_over: bool,
    /// Resolves when `from` breaks while bytes of it are stuck.
    reset: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

/// What the last rounds say of the next one.
#[derive(Clone, Copy)]
enum Pace {
    Copy,
    Splice,
    /// Adaptive, by messages; so many full buffers in a row.
    Messages(u8),
    /// Adaptive, by bulk; so many small splices in a row.
    Bulk(u8),
}

impl<'a> OneWay<'a> {
    pub(super) fn new(
        side: Side,
        from: &'a Stream,
        to: &'a Stream,
        mechanism: Mechanism,
        count: &'a AtomicU64,
    ) -> Self {
        Self {
            side,
            from,
            to,
            count,
            held: BytesMut::new(),
            pipe: None,
            pace: match mechanism {
                Mechanism::Copy => Pace::Copy,
                Mechanism::Splice => Pace::Splice,
                Mechanism::Adaptive => Pace::Messages(0),
            },
            is_over: false,
            reset: None,
        }
    }

    /// Before anything is moved: `bytes` go ahead of all that is read; `read` of them came from `from`.
    pub(super) fn put_first(&mut self, bytes: BytesMut, read: usize) {
        self.count.fetch_add(read as u64, Relaxed);
        self.held = bytes;
    }

    /// Moves what can be moved; ready at the FIN of `from`, with all that came before it written.
    ///
    /// `clock` is told of each move. Errors: which end broke. All that came before a broken `from` has been
    /// written, unless `to` would not take it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        clock: Option<&Clock<'_>>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..TURN {
            ready!(self.poll_flush(cx, clock))?;
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.from.poll_readable(cx)).is_err() {
                return Poll::Ready(Err(Broken::From));
            }
            match self.round() {
                Round::Moved(bytes) => {
                    self.count.fetch_add(bytes as u64, Relaxed);
                    if let Some(clock) = clock {
                        clock.moved(self.side);
                    }
                }
                Round::NotReady => {}
                Round::End if self.to.is_tls() => {
                    self.to.end();
                    self.is_over = true;
                }
                Round::End => return Poll::Ready(Ok(())),
                Round::Broken(broken) => return Poll::Ready(Err(broken)),
            }
        }
        // One connection that is always ready must not keep its worker from the others: those are looked for first.
        let _ = pin!(yield_now()).poll(cx);
        Poll::Pending
    }

    fn round(&mut self) -> Round {
        let round = match self.pace {
            Pace::Splice | Pace::Bulk(_) => splice::round(self.from, self.to, &mut self.pipe),
            Pace::Copy | Pace::Messages(_) => None,
        };
        let round = round.unwrap_or_else(|| copy::round(self.from, self.to, &mut self.held));
        self.pace = match (self.pace, &round) {
            (Pace::Messages(full), Round::Moved(copy::BUFFER)) if full + 1 >= FULL_ROUNDS => {
                Pace::Bulk(0)
            }
            (Pace::Messages(full), Round::Moved(copy::BUFFER)) => Pace::Messages(full + 1),
            (Pace::Messages(_), Round::Moved(_)) => Pace::Messages(0),
            (Pace::Bulk(small), Round::Moved(..FEW)) if small + 1 >= SMALL_ROUNDS => {
                Pace::Messages(0)
            }
            (Pace::Bulk(small), Round::Moved(..FEW)) => Pace::Bulk(small + 1),
            (Pace::Bulk(_), Round::Moved(_)) => Pace::Bulk(0),
            (pace, _) => pace,
        };
        round
    }

    /// Moves what waits; where it has to go on waiting, a reset of `from` ends it: the bytes are void, and nobody
    /// else would notice.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        clock: Option<&Clock<'_>>,
    ) -> Poll<Result<(), Broken>> {
        if self.waiting() == 0 {
            // In a TLS session what was stuck may go with what the other direction sent.
            if self.reset.take().is_some()
                && let Some(clock) = clock
            {
                clock.stuck(self.side, false);
                clock.moved(self.side);
            }
            return Poll::Ready(Ok(()));
        }
        let waiting = self.waiting();
        let flushed = if self.pipe.is_some() {
            splice::poll_flush(self.to, &mut self.pipe, cx)
        } else {
            copy::poll_flush(self.to, &mut self.held, cx)
        };
        if let Some(clock) = clock {
            clock.stuck(self.side, flushed.is_pending());
            if self.waiting() < waiting {
                clock.moved(self.side);
            }
        }
        if flushed.is_pending() {
            let from = self.from;
            let reset = self.reset.get_or_insert_with(|| Box::pin(from.broken()));
            ready!(reset.as_mut().poll(cx));
            self.reset = None;
            return Poll::Ready(Err(Broken::From));
        }
        self.reset = None;
        flushed
    }

    /// Bytes taken from `from` that `to` has not.
    fn waiting(&self) -> usize {
        self.held.len() + self.pipe.as_ref().map_or(0, Pipe::filled) + self.to.unsent()
    }
}
