//! The threads that serve connections: each with a runtime of its own, so that a connection stays where it began.
//!
//! Nothing is handed from thread to thread while bytes move. All workers of a small machine, and the first few of a big
//! one, accept from the same listener: each connection wakes every one of them that sleeps.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::{io, thread};

use rustix::process::{Resource, getrlimit};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::conf::{self, Conf};
use crate::flow::live::Live;
use crate::flow::{self, Shared};
use crate::net::{gate::Gate, listener};

use super::crowd::Crowd;

/// Most workers that accept from the one listener.
const MAX_ACCEPTERS: usize = 4;

/// Most connections that are accepted before the ones that there are have their turn, when the queue has not been empty for
/// a while.
const MAX_BATCH: usize = 256;

/// So often [`MIN_BATCH`] is tried before more are accepted at once: 64 clients that open one connection after the other
/// cost 3 % more CPU time where all who wait are accepted first (2026-11-21).
const PATIENT: u32 = 8;

/// The same as a rule; where descriptors run short, when as many find none left for their pod; and of ports that have a queue of
/// their own, so that who fills it does not keep the others waiting.
const MIN_BATCH: usize = 4;

/// The same of ports that are set aside. A turn is [`EVENT_INTERVAL`] steps and a connection takes about ten: with more at once
/// the connections that there are would come to wait longer and longer for theirs.
const ASIDE_BATCH: usize = 1;

/// Descriptors that are not for connections.
const OTHER_DESCRIPTORS: u64 = 100;

/// Tasks that a worker runs until it looks for events, however many tasks wait.
const EVENT_INTERVAL: u32 = 32;

/// The running workers.
pub(super) struct Workers {
    shared: Arc<Shared>,
    runtimes: Arc<[Handle]>,
    next: AtomicUsize,
    over: CancellationToken,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Workers {
    /// How many `conf` asks for.
    pub(super) fn count(conf: &Conf) -> usize {
        let cpus = || available_parallelism().map_or(1, NonZero::get);
        match conf.workers {
            conf::Workers::PerCpu => cpus(),
            conf::Workers::Count(workers) => usize::from(workers.get()),
        }
    }

    /// Starts as many as `shared` was made for. They inherit what this thread kept of its privileges.
    pub(super) fn start(count: usize, shared: &Arc<Shared>) -> io::Result<Self> {
        let mut runtimes = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        let over = CancellationToken::new();
        // One that cannot be had ends those before it.
        let incomplete = over.clone().drop_guard();
        for worker in 0..count {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .event_interval(EVENT_INTERVAL)
                .build()?;
            runtimes.push(runtime.handle().clone());
            let over = over.clone();
            let thread = thread::Builder::new()
                .name(format!("worker-{worker}"))
                .spawn(move || {
                    Live::work_as(worker);
                    runtime.block_on(over.cancelled());
                })?;
            threads.push(thread);
        }
        incomplete.disarm();
        Ok(Self {
            shared: Arc::clone(shared),
            runtimes: runtimes.into(),
            next: AtomicUsize::new(0),
            over,
            threads: Mutex::new(threads),
        })
    }

    /// Ends the threads, and with them whatever connection is left.
    pub(super) fn end(&self) {
        self.over.cancel();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // One that panicked is over as well.
            let _ = thread.join();
        }
    }

    /// Accepts from the one listener, on several workers, until nobody waits; tells `crowded` whose clients are too many.
    pub(super) fn accept(
        &self,
        listener: &Arc<TcpListener>,
        crowded: &mpsc::Sender<u16>,
    ) -> Vec<JoinHandle<()>> {
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let for_each = self.accepters().map(|worker| {
            let shared = Arc::clone(&self.shared);
            let batch = move |left_over| match left_over {
                0..PATIENT => MIN_BATCH,
                left_over => batch(most, shared.live.now(), left_over - PATIENT),
            };
            let (mut crowd, crowded) = (Crowd::default(), crowded.clone());
            self.accept_on(
                worker,
                Arc::clone(listener),
                batch,
                move |stream, _, before| {
                    let port = || stream.local_addr().ok().map(|addr| addr.port());
                    if let Some(port) = crowd.note(before, port) {
                        // A full channel knows of crowds enough.
                        let _ = crowded.try_send(port);
                    }
                    true
                },
            )
        });
        for_each.collect()
    }

    /// Accepts from the listener of ports that are set aside, a few at a time; counts them.
    pub(super) fn accept_aside(
        &self,
        listener: &Arc<TcpListener>,
        accepted: &Arc<AtomicU64>,
    ) -> Vec<AbortHandle> {
        let for_each = self.accepters().map(|worker| {
            let accepted = Arc::clone(accepted);
            let note = move |_: &TcpStream, _, _| {
                accepted.fetch_add(1, Relaxed);
                true
            };
            self.accept_on(worker, Arc::clone(listener), |_| ASIDE_BATCH, note)
                .abort_handle()
        });
        for_each.collect()
    }

    fn accepters(&self) -> Range<usize> {
        0..self.runtimes.len().min(MAX_ACCEPTERS)
    }

    /// Accepts from the listener of one port, on one worker, as many as `gate` lets through.
    pub(super) fn accept_one(
        &self,
        listener: Arc<TcpListener>,
        port: u16,
        gate: Arc<Gate>,
    ) -> AbortHandle {
        let worker = self.next();
        let shared = Arc::clone(&self.shared);
        let is_let_in = move |stream: &TcpStream, addr, _| {
            let is_let_in = gate.lets_through();
            if !is_let_in {
                flow::refuse(&shared, worker, stream, addr, port);
            }
            is_let_in
        };
        self.accept_on(worker, listener, |_| MIN_BATCH, is_let_in)
            .abort_handle()
    }

    /// Serves one connection that was accepted.
    pub(super) fn serve(&self, stream: TcpStream, addr: SocketAddr) {
        let worker = self.next();
        let serving = flow::serve(Arc::clone(&self.shared), worker, stream, addr);
        self.runtimes[worker].spawn(serving);
    }

    fn next(&self) -> usize {
        self.next.fetch_add(1, Relaxed) % self.runtimes.len()
    }

    /// `is_let_in` is asked with each connection and how many were accepted before it in the same go.
    fn accept_on(
        &self,
        worker: usize,
        listener: Arc<TcpListener>,
        batch: impl Fn(u32) -> usize + Send + 'static,
        mut is_let_in: impl FnMut(&TcpStream, SocketAddr, usize) -> bool + Send + 'static,
    ) -> JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        let runtimes = Arc::clone(&self.runtimes);
        self.runtimes[worker].spawn(async move {
            let accepting = listener::accept(listener, batch, |stream, addr, before| {
                if !is_let_in(&stream, addr, before) {
                    return;
                }
                let place = shared.live.place(worker, flow::random());
                let serving = flow::serve(Arc::clone(&shared), place, stream, addr);
                runtimes[place].spawn(serving);
            });
            if let Err(error) = accepting.await {
                error!(%error, "accept: this thread accepts no more");
            }
        })
    }
}

/// Also where whoever had them panicked.
impl Drop for Workers {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// How many connections may be accepted in one go while so many live: each wants a descriptor for its pod, too. Twice as
/// many each time that some were left over.
fn batch(most_descriptors: u64, live: u64, left_over: u32) -> usize {
    let used = 2 * live + OTHER_DESCRIPTORS;
    let left = most_descriptors.saturating_sub(used) / 4;
    let wanted = MAX_BATCH.min((2 * MIN_BATCH) << left_over.min(6));
    usize::try_from(left)
        .unwrap_or(usize::MAX)
        .clamp(MIN_BATCH, wanted)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::conf::fixture::Texts;
    use crate::route::Table;

    #[test]
    fn threads_end_with_whoever_had_them() {
        let conf = Texts {
            hosts: "10.0.0.1:32767\n",
            ..Texts::default()
        };
        let table = Table::build(conf.conf(), None, Instant::now());
        let workers = Workers::start(2, &Arc::new(Shared::new(table, 2))).unwrap();
        let threads = std::mem::take(&mut *workers.threads.lock().unwrap());
        drop(workers);
        assert_eq!(threads.len(), 2);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn fewer_are_accepted_at_once_as_descriptors_run_out() {
        for (most, live, expected) in [
            (20_000, 0, 256),
            (20_000, 9_000, 256),
            (20_000, 9_900, 25),
            (20_000, 9_990, 4),
            (20_000, 50_000, 4),
            (64, 0, 4),
            (u64::MAX, 50_000, 256),
        ] {
            assert_eq!(batch(most, live, 9), expected, "{live} of {most}");
        }
        let grows = [0, 1, 2, 3, 4, 5, u32::MAX].map(|left_over| batch(20_000, 0, left_over));
        assert_eq!(grows, [8, 16, 32, 64, 128, 256, 256]);
    }
}
