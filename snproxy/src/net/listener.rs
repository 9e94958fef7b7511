//! Listening sockets: bind, and accept for as long as the process lives.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::warn;

use super::dial::tune;
use crate::conf::Family;
use crate::sys::stream::watch;

/// How long accepting rests after an error such as EMFILE, which returns at once and passes with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time between two lines about accept errors.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Binds `addr` and listens. `::` takes IPv4 as well, if that is of the family.
///
/// Shape: `SO_REUSEADDR` is set: without it accepted connections on a steered port would make the
/// `bind()` of every other program fail. Close-on-exec, non-blocking, backlog `somaxconn`. What is accepted inherits
/// the options of [`tune`].
pub fn bind(
    addr: SocketAddr,
    family: Family,
    keepalive: Option<Duration>,
) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if addr.is_ipv6() {
        let ip = addr.ip();
        // A mapped address is none of IPv6's own.
        let is_wild = ip == IpAddr::from([0u16; 8]) && family != Family::V6;
        let both = is_wild || ip.to_canonical().is_ipv4();
        socket.set_only_v6(!both)?;
    }
    socket.set_reuse_address(true)?;
    tune(&socket, keepalive);
    socket.bind(&addr.into())?;
    // The kernel caps it at net.core.somaxconn.
    socket.listen(i32::MAX)?;
    Ok(socket.into())
}

/// Accepts until dropped, and gives each connection to `serve`, which also hears how many came before it in one go.
/// Several threads may accept from one listener.
///
/// At most as many as `batch` says at that moment are accepted before the connections that there are have their turn. It
/// hears how often in a row that was not enough for all who waited.
/// No accept error ends it: accepting rests for a moment; said now and then, as long as it lasts.
/// Errors: the runtime of this thread cannot watch the listener.
pub async fn accept(
    listener: Arc<TcpListener>,
    batch: impl Fn(u32) -> usize,
    mut serve: impl FnMut(TcpStream, SocketAddr, usize),
) -> io::Result<()> {
    let listener = watch(listener)?;
    let mut said: Option<Instant> = None;
    let mut left_over: u32 = 0;
    loop {
        let mut ready = listener.readable().await?;
        let most = batch(left_over);
        left_over = left_over.saturating_add(1);
        for before in 0..most {
            match next(listener.get_ref()) {
                Ok(Some((stream, client))) => serve(stream, client, before),
                // One client gave up while it waited: nothing to do with the next one.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Ok(None) => {
                    ready.clear_ready();
                    left_over = 0;
                    break;
                }
                Err(error) => {
                    if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        warn!(%error, "accept: resting until it works again");
                        said = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    break;
                }
            }
        }
        yield_now().await;
    }
}

/// The next connection that waits; `None` where none does.
pub fn next(listener: &TcpListener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match acceptfrom_with(listener, flags) {
        Ok((stream, Some(client))) => Ok(Some((stream.into(), client.try_into()?))),
        // A connection of no address: it is gone.
        Ok((_, None)) | Err(Errno::CONNABORTED) => Err(ErrorKind::ConnectionAborted.into()),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
