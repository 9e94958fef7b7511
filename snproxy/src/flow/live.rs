//! Connections alive now: counted for status, waited for and cut by drain.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::route::sentence::{Cause, Sentence};

use super::Shared;
use super::end::End;
use super::reached::Held;

thread_local! {
    /// Which worker this thread is.
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// No call yet.
const NEVER: u64 = u64::MAX;

/// The connections that are being served.
#[derive(Debug)]
pub struct Live {
    workers: Box<[Worker]>,
    left: Notify,
    /// Grows when connections are to look whether they are to end.
    call: AtomicU64,
    cutting: AtomicBool,
    cut_spread_ms: AtomicU64,
    /// Without waiting for the turn.
    cut_now: CancellationToken,
}

/// The connections of one worker: what each of them touches as it comes and goes is no other worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Worker {
    now: AtomicU64,
    /// Those of them that have not asked for anything yet.
    waiting: AtomicU64,
    total: AtomicU64,
    cut: Notify,
}

/// One live connection; dropping it takes it off the books.
pub struct Alive {
    shared: Arc<Shared>,
    worker: usize,
}

/// One of them that has not asked for anything yet; dropping it says that it has, or is gone.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Worker);

/// When a connection is to end.
struct Turn<'a> {
    /// `None`: it is the drain's.
    sentence: Option<Arc<Sentence>>,
    over: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl Turn<'_> {
    /// How the connection ends now; `None` where the sentence was taken back, of which nobody is told.
    fn end(&self, held: Option<&Held>) -> Option<End> {
        let Some(sentence) = &self.sentence else {
            return Some(End::Drain);
        };
        let now = held.and_then(Held::sentence);
        same(now.as_ref(), Some(sentence)).then_some(match sentence.cause {
            Cause::Removed => End::Removed,
            Cause::Down => End::Down,
        })
    }
}

fn same(one: Option<&Arc<Sentence>>, other: Option<&Arc<Sentence>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

impl Alive {
    /// One that `worker` serves.
    pub fn enter(shared: Arc<Shared>, worker: usize) -> Self {
        let counts = shared.live.worker(worker);
        counts.now.fetch_add(1, Relaxed);
        counts.total.fetch_add(1, Relaxed);
        Self { shared, worker }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let live = &self.shared.live;
        // In one order with the flag, so that the last one to leave a drain is not missed.
        let before = live.worker(self.worker).now.fetch_sub(1, SeqCst);
        if before == 1 && live.now() == 0 {
            live.left.notify_waiters();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Live {
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| Worker::default()).collect(),
            left: Notify::new(),
            call: AtomicU64::new(0),
            cutting: AtomicBool::new(false),
            cut_spread_ms: AtomicU64::new(0),
            cut_now: CancellationToken::new(),
        }
    }

    /// From now on the calling thread is this worker.
    pub fn work_as(worker: usize) {
        HERE.set(worker);
    }

    fn worker(&self, worker: usize) -> &Worker {
        // There is at least one.
        &self.workers[worker % self.workers.len()]
    }

    /// Which worker is to serve a new connection that `accepter` took: itself, unless another one has clearly less to
    /// do. `random` bits say which other one is looked at.
    pub fn place(&self, accepter: usize, random: u64) -> usize {
        let count = self.workers.len();
        if count < 2 {
            return accepter;
        }
        let others = u64::try_from(count - 1).unwrap_or(u64::MAX);
        let step = usize::try_from(random % others).unwrap_or(0) + 1;
        let other = (accepter + step) % count;
        let mine = self.worker(accepter).now.load(Relaxed);
        let theirs = self.worker(other).now.load(Relaxed);
        // To hand one over costs the other one a wake-up: worth it for a long stream, not for a short one among many.
        if mine > theirs + theirs / 4 {
            other
        } else {
            accepter
        }
    }

    /// All that are served, those that wait among them.
    pub fn now(&self) -> u64 {
        self.workers
            .iter()
            .map(|worker| worker.now.load(SeqCst))
            .sum()
    }

    /// Other proxies' connections that have not asked for anything yet: spare ones, and those for questions.
    pub fn waiting(&self) -> u64 {
        self.workers
            .iter()
            .map(|worker| worker.waiting.load(Relaxed))
            .sum()
    }

    /// One of the calling thread's worker.
    pub(super) fn wait(&self) -> Waiting<'_> {
        let counts = self.worker(HERE.get());
        counts.waiting.fetch_add(1, Relaxed);
        Waiting(counts)
    }

    /// Since the start.
    pub fn total(&self) -> u64 {
        self.workers
            .iter()
            .map(|worker| worker.total.load(Relaxed))
            .sum()
    }

    /// Ends every connection, spread evenly over `spread`.
    pub fn cut(&self, spread: Duration) {
        let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        self.cut_spread_ms.store(millis, Relaxed);
        self.cutting.store(true, SeqCst);
        self.call();
    }

    /// Has each connection look whether it is to end.
    pub fn call(&self) {
        self.call.fetch_add(1, SeqCst);
        for worker in &self.workers {
            worker.cut.notify_waiters();
        }
    }

    /// Ends every connection at once, also those that wait for their turn.
    pub fn cut_now(&self) {
        self.cut_now.cancel();
        self.cut(Duration::ZERO);
    }

    /// Resolves when it is time for one connection to end, and says why: in a drain, and where it has a pod, by the sentence
    /// on the connections of that. The bits that `random` gives then choose its turn. To be polled by one task.
    ///
    /// Cancel safety: yes.
    pub(super) async fn cut_turn(&self, held: Option<&Held>, random: impl Fn() -> u64) -> End {
        let notify = &self.worker(HERE.get()).cut;
        let mut called = pin!(notify.notified());
        let mut seen = NEVER;
        let mut turn = None;
        poll_fn(move |cx| {
            // Once a call: it is polled at each move of its connection, which is not to take a lock every time.
            while self.call.load(SeqCst) != seen {
                // Before the look, so that no call is missed.
                called.set(notify.notified());
                seen = self.call.load(SeqCst);
                if called.as_mut().poll(cx).is_ready() {
                    // Between the two: this one wakes nobody any more.
                    seen = NEVER;
                    continue;
                }
                turn = self.next_turn(turn.take(), held, &random);
            }
            let Some(waiting) = &mut turn else {
                return Poll::Pending;
            };
            ready!(waiting.over.as_mut().poll(cx));
            if let Some(end) = waiting.end(held) {
                return Poll::Ready(end);
            }
            turn = None;
            Poll::Pending
        })
        .await
    }

    /// The turn that a connection has by now, which is the one that it had unless that is over.
    fn next_turn<'a>(
        &'a self,
        turn: Option<Box<Turn<'a>>>,
        held: Option<&Held>,
        random: impl Fn() -> u64,
    ) -> Option<Box<Turn<'a>>> {
        let sentence = if self.cutting.load(SeqCst) {
            None
        } else {
            Some(held.and_then(Held::sentence)?)
        };
        let turn = turn.filter(|turn| same(turn.sentence.as_ref(), sentence.as_ref()));
        // Boxed: each connection would have the room for as long as it lives.
        turn.or_else(|| {
            let over: Pin<Box<dyn Future<Output = ()> + Send>> = match &sentence {
                None => Box::pin(self.turn(random())),
                Some(sentence) => Box::pin(sleep_until(sentence.turn(random()).into())),
            };
            Some(Box::new(Turn { sentence, over }))
        })
    }

    async fn turn(&self, random: u64) {
        let spread = self.cut_spread_ms.load(Relaxed);
        let turn = (u128::from(random) * u128::from(spread)) >> 64;
        let turn = Duration::from_millis(u64::try_from(turn).unwrap_or(spread));
        tokio::select! {
            () = tokio::time::sleep(turn) => {}
            () = self.cut_now.cancelled() => {}
        }
    }

    /// Resolves when no connection is alive.
    ///
    /// Cancel safety: yes.
    pub async fn none_left(&self) {
        loop {
            let mut left = pin!(self.left.notified());
            // Registered before the look, so that the last one to leave is not missed.
            left.as_mut().enable();
            if self.now() == 0 {
                return;
            }
            left.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never before the end of the spread.
    fn last() -> u64 {
        u64::MAX
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_about_a_connection_leaves_it_alone() {
        let live = Arc::new(Live::new(1));
        let cut = tokio::spawn({
            let live = Arc::clone(&live);
            async move { live.cut_turn(None, last).await }
        });
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            live.call();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!cut.is_finished());
        let start = tokio::time::Instant::now();
        live.cut(Duration::from_secs(4));
        // A further call does not draw its turn anew.
        tokio::time::sleep(Duration::from_secs(2)).await;
        live.call();
        assert_eq!(cut.await.unwrap(), End::Drain);
        let after = start.elapsed();
        assert!((3900..=4100).contains(&after.as_millis()), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_at_once_waits_for_no_turn() {
        let live = Arc::new(Live::new(1));
        live.cut(Duration::from_hours(1));
        let cut = tokio::spawn({
            let live = Arc::clone(&live);
            async move { live.cut_turn(None, last).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!cut.is_finished());
        live.cut_now();
        assert_eq!(cut.await.unwrap(), End::Drain);
    }
}
