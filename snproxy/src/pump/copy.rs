//! The reference mechanism: read and write in user space, through one buffer per worker thread.
//!
//! A direction owns memory only for bytes that its receiver would not take yet.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};

use super::Broken;
use super::one_way::Round;
use crate::sys::stream::Stream;

/// Most bytes taken in one read, and so the most that one direction holds.
///
/// A buffer that is filled twice in a row means bulk. 64 KiB stay in a core's second cache, and the messages of most
/// protocols fit.
pub(super) const BUFFER: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// One read, one write; what the receiver did not take is left in `held`.
pub(super) fn round(from: &Stream, to: &Stream, held: &mut BytesMut) -> Round {
    SCRATCH.with_borrow_mut(|scratch| {
        let read = match from.try_read(scratch) {
            Ok(0) => return Round::End,
            Ok(read) => read,
            Err(error) if is_retryable(error.kind()) => return Round::NotReady,
            Err(_) => return Round::Broken(Broken::From),
        };
        let bytes = &scratch[..read];
        match to.try_write(bytes) {
            Ok(written) => held.extend_from_slice(&bytes[written..]),
            Err(error) if is_retryable(error.kind()) => held.extend_from_slice(bytes),
            Err(_) => return Round::Broken(Broken::To),
        }
        Round::Moved(read)
    })
}

/// Writes what is held, as far as `to` takes it: whether all of it went.
pub(super) fn poll_flush(
    to: &Stream,
    held: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Broken>> {
    while !held.is_empty() || to.unsent() > 0 {
        let sent = if held.is_empty() {
            to.try_flush()
        } else {
            to.try_write(held).map(|written| held.advance(written))
        };
        match sent {
            Ok(()) => {}
            Err(error) if is_retryable(error.kind()) => {
                ready!(to.poll_writable(cx)).map_err(|_| Broken::To)?;
            }
            Err(_) => return Poll::Ready(Err(Broken::To)),
        }
    }
    *held = BytesMut::new();
    Poll::Ready(Ok(()))
}

pub(super) fn is_retryable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
