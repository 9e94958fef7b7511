//! The runtime of the daemon, and the threads on which it reads files and resolves names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;
use std::{io, iter};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// One each for files, their watch, certificates and names of targets: any of them may hang for a while.
const BLOCKING_THREADS: usize = 4;

/// Idle time after which tokio ends a blocking thread. tokio panics if it then cannot start the next one, because the
/// user or the cgroup has its maximum of threads.
const KEEP_ALIVE: Duration = Duration::from_hours(10 * 365 * 24);

/// Longest wait for the threads of a new runtime.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Builds the runtime for [`serve`](super::serve): one thread that serves no connection, and threads that may block
/// and that exist from here on.
///
/// # Errors
///
/// The system has too few threads or descriptors.
pub fn runtime() -> io::Result<Runtime> {
    // tokio panics if it cannot start the first one: an error is found before.
    start_all(|job| thread::Builder::new().spawn(job).map(drop))?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(KEEP_ALIVE)
        .build()?;
    let started = start_all(|job| {
        // Another process may have taken the last thread in between.
        let spawned = catch_unwind(AssertUnwindSafe(|| runtime.spawn_blocking(job)));
        spawned
            .map(drop)
            .map_err(|_| io::ErrorKind::WouldBlock.into())
    });
    match started {
        Ok(()) => Ok(runtime),
        Err(error) => {
            runtime.shutdown_background();
            Err(error)
        }
    }
}

/// The thread that talks to etcd, with a runtime of its own: TLS and JSON of what others send hold up no command.
pub(super) struct EtcdThread {
    runtime: Handle,
    over: CancellationToken,
}

impl EtcdThread {
    /// # Errors
    ///
    /// The system has too few threads or descriptors.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = Self {
            runtime: runtime.handle().clone(),
            over: CancellationToken::new(),
        };
        let over = thread.over.clone();
        thread::Builder::new()
            .name("etcd".to_owned())
            .spawn(move || runtime.block_on(over.cancelled_owned()))?;
        Ok(thread)
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

impl Drop for EtcdThread {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Starts as many threads as [`runtime`] needs by `start`; returns when all of them ran at the same time.
fn start_all(start: impl Fn(Job) -> io::Result<()>) -> io::Result<()> {
    let (started, starts) = mpsc::channel();
    let (hold, release) = mpsc::channel::<()>();
    let release = Arc::new(Mutex::new(release));
    let job = || -> Job {
        let (started, release) = (started.clone(), Arc::clone(&release));
        Box::new(move || {
            // Fails only where the start was given up.
            let _ = started.send(());
            // Ends when the other side is dropped.
            let _ = release
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
        })
    };
    let all = iter::repeat_with(job).take(BLOCKING_THREADS);
    let result = { all }.try_for_each(&start).and_then(|()| {
        (0..BLOCKING_THREADS).try_for_each(|_| {
            let started = starts.recv_timeout(START_LIMIT);
            started.map_err(|_| io::ErrorKind::WouldBlock.into())
        })
    });
    drop(hold);
    result.map_err(|error: io::Error| {
        let more = "raise `ulimit -u`, or pids.max of the cgroup";
        let text = format!("start {BLOCKING_THREADS} threads: {error}; {more}");
        io::Error::new(error.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_threads_are_an_error() {
        let none = start_all(|_| Err(io::ErrorKind::WouldBlock.into()));
        let none = none.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        assert!(none.to_string().contains("pids.max"), "{none}");
    }

    #[test]
    fn jobs_run_at_the_same_time() {
        let runtime = runtime().unwrap();
        let started = start_all(|job| {
            runtime.spawn_blocking(job);
            Ok(())
        });
        assert!(started.is_ok());
    }
}
