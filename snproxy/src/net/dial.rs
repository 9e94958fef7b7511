//! Connecting to upstreams.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::sys;
use crate::sys::stream::Stream;

/// Why a dial did not give a connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing answered within the limit.
    #[error("connect {addr}: no answer in {limit:?}")]
    Timeout { addr: SocketAddr, limit: Duration },
    /// The kernel picked the dialled port as source port: we would talk to ourselves.
    #[error("connect {addr}: nobody listens, and the connection met itself")]
    Itself { addr: SocketAddr },
    /// The upstream accepted, and reset at once: it lives, and wants no connection now.
    #[error("connect {addr}: reset at once")]
    Reset { addr: SocketAddr },
    /// This process or host ran out of something (descriptors, ports, memory): says nothing of the upstream.
    #[error("connect {addr}: {source}")]
    Exhausted { addr: SocketAddr, source: io::Error },
    /// The upstream, or the way to it, said no.
    #[error("connect {addr}: {source}")]
    Failed { addr: SocketAddr, source: io::Error },
}

impl DialError {
    /// What this says of the upstream: that it lives, that it does not, or nothing.
    pub fn upstream_lives(&self) -> Option<bool> {
        match self {
            Self::Reset { .. } => Some(true),
            Self::Exhausted { .. } => None,
            Self::Timeout { .. } | Self::Itself { .. } | Self::Failed { .. } => Some(false),
        }
    }
}

/// Connects to `addr` within `limit`.
///
/// Cancel safety: dropping it resets the half-made connection.
pub async fn dial(addr: SocketAddr, limit: Duration) -> Result<Stream, DialError> {
    dial_from(None, addr, limit).await
}

/// Connects to `addr` within `limit`, from the address `from` where that is one of this host's and of the same family.
///
/// Cancel safety: dropping it resets the half-made connection.
pub async fn dial_from(
    from: Option<IpAddr>,
    addr: SocketAddr,
    limit: Duration,
) -> Result<Stream, DialError> {
    let stream = match tokio::time::timeout(limit, connect(from, addr)).await {
        Err(_) => return Err(DialError::Timeout { addr, limit }),
        Ok(Err(source)) if source.kind() == io::ErrorKind::ConnectionReset => {
            return Err(DialError::Reset { addr });
        }
        Ok(Err(source)) if exhausted(&source) => return Err(DialError::Exhausted { addr, source }),
        Ok(Err(source)) => return Err(DialError::Failed { addr, source }),
        Ok(Ok(stream)) => stream,
    };
    // A dial to an own address where nobody listens meets itself when its port is picked as source.
    if stream.local_addr().is_ok_and(|local| local == addr) {
        return Err(DialError::Itself { addr });
    }
    Ok(stream)
}

async fn connect(from: Option<IpAddr>, addr: SocketAddr) -> io::Result<Stream> {
    let stream = Stream::new(begin(from, addr)?)?;
    if is_connected(&stream) {
        return Ok(stream);
    }
    let half_made = HalfMade(&stream);
    // What became of it comes with the event, once.
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    mem::forget(half_made);
    Ok(stream)
}

/// A connection under way. Dropped, its close is a reset: the upstream may have it already, and a FIN without a byte
/// would pass for a client that was done.
struct HalfMade<'a>(&'a Stream);

impl Drop for HalfMade<'_> {
    fn drop(&mut self) {
        let _ = SockRef::from(self.0).set_linger(Some(Duration::ZERO));
    }
}

/// A socket that connects by itself.
pub fn begin(from: Option<IpAddr>, addr: SocketAddr) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if let Some(from) = from.filter(|from| from.is_ipv4() == addr.is_ipv4()) {
        // The port is picked at connect, by the whole pair of ends: 28,000 per destination rather than in all.
        sys::socket::bind_address_no_port(&socket)?;
        // An address that left the host meanwhile: the kernel picks another one.
        let _ = socket.bind(&SocketAddr::new(from, 0).into());
    }
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// On the same host the handshake is over when `connect()` returns, though it says that it is under way.
fn is_connected(stream: &Stream) -> bool {
    rustix::net::getpeername(stream).is_ok()
}

/// Options of every proxied socket: no Nagle; keepalive after `keepalive` of silence.
///
/// A socket that is accepted has them from its listener.
pub fn tune(socket: &impl AsFd, keepalive: Option<Duration>) {
    // None of them can fail on a live TCP socket; on a dead one the pump finds out.
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    // Urgent data would vanish from the stream otherwise: it stays in its place as an ordinary byte.
    let _ = socket.set_out_of_band_inline(true);
    if let Some(time) = keepalive {
        let probes = TcpKeepalive::new()
            .with_time(time)
            .with_interval((time / 4).max(Duration::from_secs(1)));
        let _ = socket.set_tcp_keepalive(&probes.with_retries(4));
    } else {
        let _ = socket.set_keepalive(false);
    }
}

fn exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRNOTAVAIL
                | libc::EAGAIN
        )
    )
}
