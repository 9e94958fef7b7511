//! Connecting to upstreams.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

use crate::sys;

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
pub async fn dial(addr: SocketAddr, limit: Duration) -> Result<TcpStream, DialError> {
    dial_from(None, addr, limit).await
}

/// Connects to `addr` within `limit`, from the address `from` where that is one of this host's and of the same family.
///
/// Cancel safety: dropping it resets the half-made connection.
pub async fn dial_from(
    from: Option<IpAddr>,
    addr: SocketAddr,
    limit: Duration,
) -> Result<TcpStream, DialError> {
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

async fn connect(from: Option<IpAddr>, addr: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    if let Some(from) = from.filter(|from| from.is_ipv4() == addr.is_ipv4()) {
        // The port is picked at connect, by the whole pair of ends: 28,000 per destination rather than in all.
        sys::socket::bind_address_no_port(&socket)?;
        // An address that left the host meanwhile: the kernel picks another one.
        let _ = socket.bind(&SocketAddr::new(from, 0).into());
    }
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let mut half = HalfMade(Some(TcpStream::from_std(socket.into())?));
    half.made().await?;
    half.0
        .take()
        .ok_or_else(|| io::ErrorKind::NotConnected.into())
}

/// A connection under way. Dropped, its close is a reset: the upstream may have it already, and a FIN without a byte
/// would pass for a client that was done.
struct HalfMade(Option<TcpStream>);

impl HalfMade {
    async fn made(&self) -> io::Result<()> {
        let Some(stream) = &self.0 else {
            return Ok(());
        };
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(()), Err)
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Options of every proxied socket: no Nagle; keepalive after `keepalive` of silence.
pub fn tune(stream: &TcpStream, keepalive: Option<Duration>) {
    // Neither option can fail on a live TCP socket; on a dead one the pump finds out.
    let _ = stream.set_nodelay(true);
    // Urgent data would vanish from the stream otherwise: it stays in its place as an ordinary byte.
    let _ = SockRef::from(stream).set_out_of_band_inline(true);
    if let Some(time) = keepalive {
        let probes = TcpKeepalive::new()
            .with_time(time)
            .with_interval((time / 4).max(Duration::from_secs(1)));
        let _ = SockRef::from(stream).set_tcp_keepalive(&probes.with_retries(4));
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
