//! Listening sockets: bind, and accept for as long as the process lives.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tracing::warn;

/// How long accepting rests after an error such as EMFILE, which returns at once and passes with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time between two lines about accept errors.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Binds `addr` and listens. `::` takes IPv4 as well.
///
/// Shape: `SO_REUSEADDR` is set: without it accepted connections on a steered port would make the
/// `bind()` of every other program fail. Close-on-exec, non-blocking, backlog `somaxconn`.
pub fn bind(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(addr.ip() != IpAddr::from([0u16; 8]))?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    // The kernel caps it at net.core.somaxconn.
    socket.listen(i32::MAX)?;
    Ok(socket.into())
}

/// Accepts until dropped, and gives each connection to `serve`.
///
/// No accept error ends it: accepting rests for a moment; said now and then, as long as it lasts.
pub async fn accept<F>(listener: &TcpListener, serve: impl Fn(TcpStream, SocketAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut said: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                tokio::spawn(serve(stream, client));
            }
            // One client gave up while it waited: nothing to do with the next one.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                    warn!(%error, "accept: resting until it works again");
                    said = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
