//! The thread that writes the log to standard error.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stderr;
use tracing::warn;

use crate::diag::printable;
use crate::sys::privileges;

/// Most lines that wait for a slow reader; their places exist from the start (32 bytes each).
const MAX_LINES: usize = 16_384;
/// Most bytes of these lines.
const MAX_BYTES: usize = 8 << 20;
/// Longest wait for the reader at the end of the process.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// Time between two reports of lines that were not written.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// What a pipe takes without blocking if it can be written to at all. Source: pipe(7), `PIPE_BUF`.
const PIPE_BUF: usize = 4096;

enum Message {
    Line(Box<[u8]>),
    Flush(mpsc::Sender<()>),
}

/// Where lines of the log go; never blocks.
#[derive(Clone)]
pub(super) struct LogSender {
    lines: SyncSender<Message>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Bytes of the lines that wait.
    waiting: AtomicUsize,
    /// Lines for which there was no place.
    dropped: AtomicU64,
    /// Lines above the limit of libraries.
    suppressed: AtomicU64,
}

/// The thread; dropping it waits up to [`FLUSH_LIMIT`] until all lines are written.
pub(in crate::cli) struct LogThread(LogSender);

/// Starts the thread. It gives up its privileges by itself: capabilities belong to threads.
///
/// # Errors
///
/// The system has no thread left.
pub(super) fn start() -> io::Result<(LogSender, LogThread)> {
    let (lines, received) = sync_channel(MAX_LINES);
    let counts = Arc::new(Counts::default());
    let sender = LogSender {
        lines,
        counts: Arc::clone(&counts),
    };
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            // What it may do without is no reason to write nothing.
            let _ = privileges::drop_all(&[]);
            run(&received, &counts);
        })
        .map_err(|error| {
            let more = "raise `ulimit -u`, or pids.max of the cgroup";
            io::Error::new(
                error.kind(),
                format!("start the log thread: {error}; {more}"),
            )
        })?;
    Ok((sender.clone(), LogThread(sender)))
}

impl LogSender {
    pub(super) fn send(&self, line: Box<[u8]>) {
        let size = line.len();
        let before = self.counts.waiting.fetch_add(size, Relaxed);
        let is_full = before + size > MAX_BYTES;
        if is_full || self.lines.try_send(Message::Line(line)).is_err() {
            self.counts.waiting.fetch_sub(size, Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Counts a line that is not sent.
    pub(super) fn suppress(&self) {
        self.counts.suppressed.fetch_add(1, Relaxed);
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        let (done, is_done) = mpsc::channel();
        let deadline = Instant::now() + FLUSH_LIMIT;
        let mut flush = Message::Flush(done);
        // A full queue of a reader that stalls leaves no place for the flush either.
        while let Err(mpsc::TrySendError::Full(back)) = self.0.lines.try_send(flush) {
            flush = back;
            if Instant::now() > deadline {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = is_done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn run(lines: &Receiver<Message>, counts: &Counts) {
    let mut reported = Instant::now();
    loop {
        match lines.recv_timeout(REPORT_INTERVAL) {
            Ok(Message::Line(line)) => {
                // Past the lock of `io::stderr`: with a reader that stalls it would hold up who else wants to write.
                let _ = write_all(&line);
                counts.waiting.fetch_sub(line.len(), Relaxed);
            }
            Ok(Message::Flush(done)) => drop(done.send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            report(counts);
        }
    }
}

fn report(counts: &Counts) {
    let dropped = counts.dropped.swap(0, Relaxed);
    if dropped > 0 {
        warn!(
            count = dropped,
            "dropped log lines, the reader of the log is too slow"
        );
    }
    let suppressed = counts.suppressed.swap(0, Relaxed);
    if suppressed > 0 {
        warn!(count = suppressed, "suppressed log lines of libraries");
    }
}

fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stderr(), bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_until_writable(None)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes a text to standard error, or as much of it as its reader takes in [`FLUSH_LIMIT`].
pub(in crate::cli) fn print_in_time(text: &str) {
    let deadline = Instant::now() + FLUSH_LIMIT;
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    for part in lines.join("\n").as_bytes().chunks(PIPE_BUF) {
        let left = deadline.saturating_duration_since(Instant::now());
        if wait_until_writable(Some(left)).is_err() || write_all(part).is_err() {
            return;
        }
    }
}

/// # Errors
///
/// It is not, within `limit`.
fn wait_until_writable(limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let fd = stderr();
    let mut polled = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)];
    match poll(&mut polled, limit.as_ref())? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
