//! The reference mechanism: read and write in user space, through one buffer per worker thread.
//!
//! A direction owns memory only for bytes that its receiver would not take yet.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::{Buf, BytesMut};
use tokio::net::TcpStream;

use super::{Broken, broken};

/// Most bytes taken in one read, and so the most that one direction holds.
pub const BUFFER: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// What one read-and-write round came to.
enum Round {
    Moved(usize),
    NotReady,
    End,
    Broken(Broken),
}

/// Carries `first`, then all of `from` up to its FIN, to `to`. The FIN itself is the caller's to pass on.
///
/// `count` grows by the bytes read from `from`; `stamp` is called after each move.
/// Errors: which end broke. All that came before a broken `from` has been written, unless `to` would not take it.
pub(super) async fn one_way(
    from: &TcpStream,
    to: &TcpStream,
    first: BytesMut,
    count: &AtomicU64,
    stamp: &impl Fn(),
) -> Result<(), Broken> {
    let mut held = first;
    loop {
        flush(from, to, &mut held, stamp).await?;
        held = BytesMut::new();
        // One connection that is always ready must not keep its worker from the others.
        tokio::task::coop::consume_budget().await;
        if from.readable().await.is_err() {
            return Err(Broken::From);
        }
        match round(from, to, &mut held) {
            Round::Moved(bytes) => {
                count.fetch_add(bytes as u64, Relaxed);
                stamp();
            }
            Round::NotReady => {}
            Round::End => return Ok(()),
            Round::Broken(broken) => return Err(broken),
        }
    }
}

/// Writes all of `held`, waiting for room as often as it takes.
async fn flush(
    from: &TcpStream,
    to: &TcpStream,
    held: &mut BytesMut,
    stamp: &impl Fn(),
) -> Result<(), Broken> {
    while !held.is_empty() {
        match to.try_write(held) {
            Ok(bytes) => {
                held.advance(bytes);
                stamp();
            }
            Err(error) if retryable(error.kind()) => tokio::select! {
                ready = to.writable() => ready.map_err(|_| Broken::To)?,
                // A sender that reset while its bytes wait: they are void, and nobody else would notice.
                () = broken(from) => return Err(Broken::From),
            },
            Err(_) => return Err(Broken::To),
        }
    }
    Ok(())
}

/// One read, one write; what the receiver did not take is left in `held`.
fn round(from: &TcpStream, to: &TcpStream, held: &mut BytesMut) -> Round {
    SCRATCH.with_borrow_mut(|scratch| {
        let read = match from.try_read(scratch) {
            Ok(0) => return Round::End,
            Ok(read) => read,
            Err(error) if retryable(error.kind()) => return Round::NotReady,
            Err(_) => return Round::Broken(Broken::From),
        };
        let bytes = &scratch[..read];
        match to.try_write(bytes) {
            Ok(written) => held.extend_from_slice(&bytes[written..]),
            Err(error) if retryable(error.kind()) => held.extend_from_slice(bytes),
            Err(_) => return Round::Broken(Broken::To),
        }
        Round::Moved(read)
    })
}

fn retryable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
