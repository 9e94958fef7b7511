//! Moves bytes both ways between two sockets until both directions are done.
//!
//! Promises: no byte is lost, added or reordered; a FIN from one end is a FIN to the other, and the
//! opposite direction goes on; a reset arrives as a reset; what is held is bounded by one buffer per
//! direction. Knows neither ports nor headers. A mechanism is a file beside `copy.rs`: an async function
//! that carries one direction with [`copy::one_way`]'s contract.

pub mod copy;

use std::future::Future;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// One of the two ends of a proxied connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Client,
    Upstream,
}

/// What goes to the upstream before the pump reads from the client itself.
#[derive(Debug)]
pub enum First {
    /// These bytes; `read` of them (or of bytes dropped before them) came from the client.
    Bytes { bytes: BytesMut, read: usize },
    /// The client reset before it was decided.
    Reset,
    /// The client may not go on: reset both ends.
    Refused,
}

/// Why the pump stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// Both ends sent FIN and all bytes were handed to the kernel.
    Clean,
    /// This end reset, or could no longer be written to.
    Reset(Side),
    /// No byte moved for the idle limit.
    Idle,
    /// The caller's `cut` resolved.
    Cut,
    /// [`First::Refused`].
    Refused,
}

/// Bytes moved so far, readable while the pump runs.
///
/// Units: bytes taken from the client (`up`) and from the upstream (`down`).
#[derive(Debug, Default)]
pub struct Meter {
    pub up: AtomicU64,
    pub down: AtomicU64,
    /// Milliseconds from the pump's start to the last byte; kept only under an idle limit.
    moved_at: AtomicU64,
}

/// Pumps between `client` and `upstream` until both directions are done.
///
/// `first` decides what the upstream gets first; bytes from the upstream flow meanwhile. Unless the
/// result is [`Stop::Clean`], both sockets are set to reset on close.
///
/// Cancel safety: dropping it loses bytes in flight; use `cut`.
pub async fn run(
    client: &TcpStream,
    upstream: &TcpStream,
    first: impl Future<Output = First>,
    idle: Option<Duration>,
    cut: impl Future<Output = ()>,
    meter: &Meter,
) -> Stop {
    let start = Instant::now();
    let stamp = || {
        if idle.is_some() {
            meter.moved_at.store(millis(start.elapsed()), Relaxed);
        }
    };
    let stop = tokio::select! {
        stop = both_ways(client, upstream, first, meter, &stamp) => stop,
        () = idle_for(idle, start, meter) => Stop::Idle,
        () = cut => Stop::Cut,
    };
    if stop != Stop::Clean {
        reset_on_close(client);
        reset_on_close(upstream);
    }
    stop
}

/// Makes the close of `stream` a reset (RST in place of FIN).
pub fn reset_on_close(stream: &TcpStream) {
    // Fails only on a socket that is gone already, which needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Which end of a direction failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Broken {
    From,
    To,
}

async fn both_ways(
    client: &TcpStream,
    upstream: &TcpStream,
    first: impl Future<Output = First>,
    meter: &Meter,
    stamp: &impl Fn(),
) -> Stop {
    let mut up = pin!(async {
        match first.await {
            First::Bytes { bytes, read } => {
                meter.up.fetch_add(read as u64, Relaxed);
                copy::one_way(client, upstream, bytes, &meter.up, stamp)
                    .await
                    .map_err(|broken| match broken {
                        Broken::From => Stop::Reset(Side::Client),
                        Broken::To => Stop::Reset(Side::Upstream),
                    })
            }
            First::Reset => Err(Stop::Reset(Side::Client)),
            First::Refused => Err(Stop::Refused),
        }
    });
    let mut down = pin!(async {
        copy::one_way(upstream, client, BytesMut::new(), &meter.down, stamp)
            .await
            .map_err(|broken| match broken {
                Broken::From => Stop::Reset(Side::Upstream),
                Broken::To => Stop::Reset(Side::Client),
            })
    });
    tokio::select! {
        ended = &mut up => match ended {
            Ok(()) => tokio::select! {
                ended = down => ended.err().unwrap_or(Stop::Clean),
                // Nobody reads the client any more, so its reset must be looked for.
                () = broken(client) => Stop::Reset(Side::Client),
            },
            // The upstream takes no more, but what it sent before may still be on its way to the client.
            Err(stop @ Stop::Reset(Side::Upstream)) => {
                let _ = down.await;
                stop
            }
            Err(stop) => stop,
        },
        ended = &mut down => match ended {
            Ok(()) => tokio::select! {
                ended = up => ended.err().unwrap_or(Stop::Clean),
                () = broken(upstream) => Stop::Reset(Side::Upstream),
            },
            Err(stop @ Stop::Reset(Side::Client)) => {
                let _ = up.await;
                stop
            }
            Err(stop) => stop,
        },
    }
}

/// Waits until the kernel reports an error (a reset) on `stream`.
async fn broken(stream: &TcpStream) {
    // An error of the wait itself says that the runtime goes down: as good as a reset.
    let _ = stream.ready(Interest::ERROR).await;
}

/// Sends FIN to `stream`.
fn finish(stream: &TcpStream) {
    // ENOTCONN: the other end has reset, which the opposite direction finds out.
    let _ = SockRef::from(stream).shutdown(Shutdown::Write);
}

/// Waits until no byte has moved for `idle`; for ever without a limit.
async fn idle_for(idle: Option<Duration>, start: Instant, meter: &Meter) {
    let Some(idle) = idle else {
        return std::future::pending().await;
    };
    loop {
        let moved = start + Duration::from_millis(meter.moved_at.load(Relaxed));
        if moved.elapsed() >= idle {
            return;
        }
        tokio::time::sleep_until(moved + idle).await;
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
