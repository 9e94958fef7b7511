//! Who waits for a place, in the order in which they came.
//!
//! One at a time has its turn and looks for a place; the next one's comes when a place may have come free. Knows nothing
//! of the places themselves: whoever frees one says so, whoever got one too, for there may be more.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// A bounded queue.
#[derive(Debug, Default)]
pub struct Queue {
    line: Mutex<Line>,
    /// Of the line, to be read without the lock.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Line {
    next: u64,
    /// By ascending number.
    waiting: VecDeque<Waiter>,
    /// A place may have come free since the last look.
    freed: bool,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    client: SocketAddr,
    since: Instant,
    waker: Option<Waker>,
    /// Its turn was given, and it is looking.
    is_looking: bool,
}

/// One who waits; dropping it leaves the queue.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<Queue>,
    number: u64,
}

/// One who waits, for who asks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Waiting {
    pub client: SocketAddr,
    pub since: Instant,
}

impl Queue {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.len.load(SeqCst)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Joins behind all others; `None` where `most` wait already.
    pub fn enter(self: &Arc<Self>, most: u32, client: SocketAddr, now: Instant) -> Option<Ticket> {
        let mut line = self.line();
        if line.waiting.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
            return None;
        }
        let number = line.next;
        line.next += 1;
        // The first one looks at once: what it waits for may have come free before it was here.
        line.freed |= line.waiting.is_empty();
        line.waiting.push_back(Waiter {
            number,
            client,
            since: now,
            waker: None,
            is_looking: false,
        });
        self.len.store(line.waiting.len(), SeqCst);
        Some(Ticket {
            queue: Arc::clone(self),
            number,
        })
    }

    /// A place may have come free: the first one who is not looking already has its turn.
    pub fn wake(&self) {
        if self.is_empty() {
            return;
        }
        let mut line = self.line();
        line.freed = true;
        let waker = line.first().and_then(|first| first.waker.take());
        drop(line);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// All who wait, in their order.
    pub fn waiting(&self) -> Vec<Waiting> {
        let line = self.line();
        let waiting = line.waiting.iter();
        waiting
            .map(|&Waiter { client, since, .. }| Waiting { client, since })
            .collect()
    }
}

impl Line {
    /// The first one who is not looking.
    fn first(&mut self) -> Option<&mut Waiter> {
        self.waiting.iter_mut().find(|waiter| !waiter.is_looking)
    }

    fn at(&self, number: u64) -> Option<usize> {
        let found = self
            .waiting
            .binary_search_by_key(&number, |waiter| waiter.number);
        found.ok()
    }
}

impl Ticket {
    /// How many are before it.
    pub fn position(&self) -> usize {
        self.queue.line().at(self.number).unwrap_or(0)
    }

    /// Looks for a place though none was said to be free: the first one has its turn.
    pub fn wake(&self) {
        self.queue.wake();
    }

    /// Ready when it is this one's turn to look for a place; polled again, it has not found one and waits for the next turn.
    pub fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut line = self.queue.line();
        if let Some(at) = line.at(self.number) {
            line.waiting[at].is_looking = false;
        }
        let freed = line.freed;
        match line.first() {
            Some(first) if first.number == self.number && freed => {
                first.is_looking = true;
                first.waker = None;
                line.freed = false;
                Poll::Ready(())
            }
            _ => {
                if let Some(at) = line.at(self.number) {
                    line.waiting[at].waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        if let Some(at) = line.at(self.number) {
            line.waiting.remove(at);
        }
        self.queue.len.store(line.waiting.len(), SeqCst);
        drop(line);
        // The turn that it had, or would have had, is the next one's.
        self.queue.wake();
    }
}

#[cfg(test)]
mod tests;
