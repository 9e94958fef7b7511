//! Connecting to upstreams.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::sys;
use crate::sys::stream::Stream;

use super::own::has_source;
use super::source_ports::may_be_picked;
use super::tls::HandshakeError;

/// What a socket is given before it is a connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Its source address, where that is one of this host's and of the same family.
    pub from: Option<IpAddr>,
    /// Silence before the first probe; `None`: off.
    pub keepalive: Option<Duration>,
}

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
    /// It took the connection, and TLS came to nothing.
    #[error("connect {addr}: {source}")]
    Tls {
        addr: SocketAddr,
        source: HandshakeError,
    },
    /// All source ports towards the upstream are taken: says nothing of it.
    #[error("connect {addr}: no source port is left towards it")]
    SourcePorts { addr: SocketAddr },
    /// This process or host ran out of something (descriptors, memory): says nothing of the upstream.
    #[error("connect {addr}: {source}")]
    Exhausted { addr: SocketAddr, source: io::Error },
    /// The upstream, or the way to it, said no.
    #[error("connect {addr}: {source}")]
    Failed { addr: SocketAddr, source: io::Error },
}

impl DialError {
    /// Why a connect to `addr` failed that did not take too long.
    pub fn of(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionReset => Self::Reset { addr },
            io::ErrorKind::AddrNotAvailable if has_source(addr.ip()) => Self::SourcePorts { addr },
            _ if exhausted(&source) => Self::Exhausted { addr, source },
            _ => Self::Failed { addr, source },
        }
    }

    /// Whether the kernel of the upstream's address says that no socket listens there.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Itself { .. } => true,
            Self::Failed { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        }
    }

    /// What this says of the upstream: that it lives, that it does not, or nothing.
    pub fn upstream_lives(&self) -> Option<bool> {
        match self {
            Self::Reset { .. } => Some(true),
            Self::SourcePorts { .. }
            | Self::Exhausted { .. }
            | Self::Tls {
                source: HandshakeError::Unconfigured,
                ..
            } => None,
            Self::Timeout { .. } | Self::Itself { .. } | Self::Failed { .. } | Self::Tls { .. } => {
                Some(false)
            }
        }
    }
}

/// Connects to `addr` within `limit`.
///
/// Cancel safety: dropping it resets the half-made connection.
pub async fn dial(
    addr: SocketAddr,
    options: Options,
    limit: Duration,
) -> Result<Stream, DialError> {
    let connecting = async {
        let (socket, from) = open(options.from, addr)?;
        begin(&socket, addr, options)?;
        let stream = connected(Stream::new(socket.into())?).await?;
        Ok((stream, from))
    };
    let (stream, from) = match tokio::time::timeout(limit, connecting).await {
        Err(_) => return Err(DialError::Timeout { addr, limit }),
        Ok(Err(source)) => return Err(DialError::of(addr, source)),
        Ok(Ok(made)) => made,
    };
    // A dial to an own address where nobody listens meets itself when its port is picked as source.
    let may_be_own = from.is_none_or(|from| from == addr.ip());
    let may_meet_itself = may_be_own && may_be_picked(addr.port());
    if may_meet_itself && stream.local_addr().is_ok_and(|local| local == addr) {
        return Err(DialError::Itself { addr });
    }
    Ok(stream)
}

/// A non-blocking socket that is to connect to `addr`, and the source address that it has already.
pub fn open(from: Option<IpAddr>, addr: SocketAddr) -> io::Result<(Socket, Option<IpAddr>)> {
    let socket = Socket::new(
        Domain::for_address(addr),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    let Some(from) = from.filter(|from| from.is_ipv4() == addr.is_ipv4()) else {
        return Ok((socket, None));
    };
    // The port is picked at connect, by the whole pair of ends: 28,000 per destination rather than in all.
    sys::socket::bind_address_no_port(&socket)?;
    // An address that left the host meanwhile: the kernel picks another one.
    let bound = socket.bind(&SocketAddr::new(from, 0).into());
    Ok((socket, bound.is_ok().then_some(from)))
}

/// Begins to connect, and waits for nothing: the handshake goes on by itself.
pub fn begin(socket: &Socket, addr: SocketAddr, options: Options) -> io::Result<()> {
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // Only now: while the handshake is under way, nobody waits for it.
    tune(socket, options.keepalive);
    Ok(())
}

/// Waits until a connection that was begun is made.
///
/// Cancel safety: dropping it resets the half-made connection.
pub async fn connected(stream: Stream) -> io::Result<Stream> {
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

/// On the same host the handshake is over when `connect()` returns, though it says that it is under way.
fn is_connected(stream: &Stream) -> bool {
    rustix::net::getpeername(stream).is_ok()
}

/// Options of every proxied socket that is new: no Nagle; keepalive after `keepalive` of silence.
///
/// A socket that is accepted has them from its listener.
pub fn tune(socket: &impl AsFd, keepalive: Option<Duration>) {
    // None of them can fail on a live TCP socket; on a dead one the pump finds out.
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    // Urgent data would vanish from the stream otherwise: it stays in its place as an ordinary byte.
    let _ = socket.set_out_of_band_inline(true);
    if let Some(time) = keepalive {
        keep_alive(&socket, time);
    }
}

/// Another keepalive, or none, for a socket that is tuned.
pub fn tune_anew(socket: &impl AsFd, keepalive: Option<Duration>) {
    let socket = SockRef::from(socket);
    if let Some(time) = keepalive {
        keep_alive(&socket, time);
    } else {
        let _ = socket.set_keepalive(false);
    }
}

fn keep_alive(socket: &Socket, time: Duration) {
    let probes = TcpKeepalive::new()
        .with_time(time)
        .with_interval((time / 4).max(Duration::from_secs(1)));
    let _ = socket.set_tcp_keepalive(&probes.with_retries(4));
}

fn exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN)
    )
}
