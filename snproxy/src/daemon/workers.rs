//! The threads that serve connections: each with a runtime of its own, so that a connection stays where it began.
//!
//! Nothing is handed from thread to thread while bytes move. All workers of a small machine, and the first few of a big
//! one, accept from the same listener: each connection wakes every one of them that sleeps.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::available_parallelism;
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::error;

use crate::conf::{self, Conf};
use crate::flow::live::Live;
use crate::flow::{self, Shared};
use crate::net::{gate::Gate, listener};

/// Most workers that accept from the one listener.
const MAX_ACCEPTERS: usize = 4;

/// Tasks that a worker runs until it looks for events, however many tasks wait.
const EVENT_INTERVAL: u32 = 32;

/// The running workers. They end with the process.
pub(super) struct Workers {
    shared: Arc<Shared>,
    runtimes: Arc<[Handle]>,
    next: AtomicUsize,
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
        for worker in 0..count {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .event_interval(EVENT_INTERVAL)
                .build()?;
            runtimes.push(runtime.handle().clone());
            thread::Builder::new()
                .name(format!("worker-{worker}"))
                .spawn(move || {
                    Live::work_as(worker);
                    runtime.block_on(std::future::pending::<()>());
                })?;
        }
        Ok(Self {
            shared: Arc::clone(shared),
            runtimes: runtimes.into(),
            next: AtomicUsize::new(0),
        })
    }

    /// Accepts from the one listener, on several workers.
    pub(super) fn accept(&self, listener: &Arc<TcpListener>) -> Vec<JoinHandle<()>> {
        let accepters = 0..self.runtimes.len().min(MAX_ACCEPTERS);
        accepters
            .map(|worker| self.accept_on(worker, Arc::clone(listener), None))
            .collect()
    }

    /// Accepts from the listener of one port, on one worker, as many as `gate` lets through.
    pub(super) fn accept_one(
        &self,
        listener: Arc<TcpListener>,
        port: u16,
        gate: Arc<Gate>,
    ) -> AbortHandle {
        self.accept_on(self.next(), listener, Some((port, gate)))
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

    fn accept_on(
        &self,
        worker: usize,
        listener: Arc<TcpListener>,
        gate: Option<(u16, Arc<Gate>)>,
    ) -> JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        let runtimes = Arc::clone(&self.runtimes);
        self.runtimes[worker].spawn(async move {
            let accepting = listener::accept(listener, |stream, addr| {
                if let Some((port, gate)) = &gate
                    && !gate.lets_through()
                {
                    return flow::refuse(&shared, worker, stream, addr, *port);
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
