//! Bulk: splice(2) through a kernel pipe, so that the bytes never come into the process.
//!
//! A direction has a pipe only while there are bytes in it; pipes that are empty wait in their worker's pool.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};
use tokio::io::Interest;

use super::Broken;
use super::copy::is_retryable;
use super::one_way::Round;
use crate::sys::stream::Stream;

/// Asked of each pipe, and of each splice into one; a pipe takes less where its pages are not full.
const PIPE: usize = 256 * 1024;
/// A pipe that holds less is worse than a copy. Without `CAP_SYS_RESOURCE` the pages of all pipes of a user are
/// limited (pipe(7), /proc/sys/fs/pipe-user-pages-soft).
const MIN_PIPE: usize = 64 * 1024;
/// Most empty pipes that one worker keeps.
const MAX_POOLED: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    filled: usize,
}

impl Pipe {
    /// `None` where the process or the user has no descriptor or page left for one.
    fn take() -> Option<Self> {
        POOL.with_borrow_mut(Vec::pop).or_else(|| {
            let (out, into) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
            let size = fcntl_setpipe_size(&into, PIPE).or_else(|_| fcntl_getpipe_size(&into));
            size.is_ok_and(|size| size >= MIN_PIPE).then_some(Self {
                out,
                into,
                filled: 0,
            })
        })
    }

    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Puts an empty pipe back; one that is not empty is closed with what is in it.
    fn put_back(self) {
        if self.filled == 0 {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < MAX_POOLED {
                    pool.push(self);
                }
            });
        }
    }
}

/// One splice into a pipe, and out of it as far as `to` takes it; `None` where no pipe can be had, or urgent data is
/// on the way, which splice(2) does not pass.
///
/// What `to` did not take is left in `held`.
pub(super) fn round(from: &Stream, to: &Stream, held: &mut Option<Pipe>) -> Option<Round> {
    if from.is_urgent() {
        return None;
    }
    let mut pipe = Pipe::take()?;
    // The pipe is empty, so that EAGAIN can only mean that the socket is.
    let spliced = from.attempt(Interest::READABLE, |socket| {
        let spliced = move_bytes(socket, &pipe.into, PIPE).map_err(Into::into);
        (spliced, false)
    });
    let round = match spliced {
        // Also what a socket says that stands before urgent data when its FIN came: the read of a copy tells.
        Ok(0) => {
            pipe.put_back();
            return None;
        }
        Ok(spliced) => {
            pipe.filled = spliced;
            Round::Moved(spliced)
        }
        Err(error) if is_retryable(error.kind()) => Round::NotReady,
        Err(_) => Round::Broken(Broken::From),
    };
    match drain(&mut pipe, to) {
        Ok(true) => pipe.put_back(),
        Ok(false) => *held = Some(pipe),
        Err(broken) => return Some(Round::Broken(broken)),
    }
    Some(round)
}

/// Moves what the held pipe has, as far as `to` takes it: ready when it is empty, and back in the pool.
pub(super) fn poll_flush(
    to: &Stream,
    held: &mut Option<Pipe>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Broken>> {
    while let Some(mut pipe) = held.take() {
        match drain(&mut pipe, to) {
            Ok(true) => pipe.put_back(),
            Ok(false) => {
                *held = Some(pipe);
                ready!(to.poll_writable(cx)).map_err(|_| Broken::To)?;
            }
            Err(broken) => return Poll::Ready(Err(broken)),
        }
    }
    Poll::Ready(Ok(()))
}

/// Whether the pipe came to be empty.
fn drain(pipe: &mut Pipe, to: &Stream) -> Result<bool, Broken> {
    while pipe.filled > 0 {
        let written = to.attempt(Interest::WRITABLE, |socket| {
            let written = move_bytes(&pipe.out, socket, pipe.filled).map_err(Into::into);
            (written, false)
        });
        match written {
            Ok(written @ 1..) => pipe.filled = pipe.filled.saturating_sub(written),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return Err(Broken::To),
        }
    }
    Ok(true)
}

/// Never with `SPLICE_F_MORE`: the last bytes before a pause would wait for the next ones.
fn move_bytes(from: &impl AsFd, to: &impl AsFd, most: usize) -> Result<usize, Errno> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    splice(from, None, to, None, most, flags)
}
