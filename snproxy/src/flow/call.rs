//! One call of another host's proxy: connect, one line, its answer.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};

use crate::conf::Conf;
use crate::net::dial::{DialError, Options, connected, dial};
use crate::pump;
use crate::route::peers::Peer;
use crate::sys;
use crate::sys::stream::Stream;
use crate::wire::Decoded;
use crate::wire::peer::{self, Reply, Request};

use super::peer_tls::{NotGreeted, Speech, greet, is_distrust};
use super::spares::Spares;

/// Longest reply that is read, with what may come behind it in the same segment.
const REPLY_READ: usize = 2048;

/// A connection to a host's proxy. Dropped before it is [settled](Self::settle), its close is a reset: a call that lost
/// the race ends at the other end at once, with whatever was begun there.
#[derive(Debug)]
pub(super) struct Unsettled(Option<Stream>);

/// What a host said to a request.
#[derive(Debug)]
pub(super) enum Said {
    /// The reply, and the bytes behind it.
    Reply(Reply, BytesMut),
    /// A close without a byte: not here.
    Closed,
    /// No reply of the protocol.
    Garbage,
    /// Nothing, or half a reply, until the deadline.
    Silent,
    /// Its proxy went away.
    Lost(io::Error),
    /// It could not be spoken to in TLS.
    NotGreeted(NotGreeted),
}

/// What became of a line that was to go over a spare connection.
pub(super) enum OverSpare {
    Sent(Unsettled),
    /// It waits for the line: the handshake comes first.
    Connected(Unsettled),
    /// It has not connected yet: the line is still to be sent.
    Connecting(Stream),
    /// There is none.
    None,
}

impl Unsettled {
    /// From now on its close is an ordinary one.
    pub(super) fn settle(mut self) -> Stream {
        self.0.take().expect("only this takes it")
    }

    pub(super) fn stream(&self) -> &Stream {
        self.0.as_ref().expect("only the last use takes it")
    }

    pub(super) fn stream_mut(&mut self) -> &mut Stream {
        self.0.as_mut().expect("only the last use takes it")
    }

    /// Whether the host's kernel has all that was sent; true also where that cannot be told.
    pub(super) fn is_acknowledged(&self) -> bool {
        !matches!(sys::socket::unsent(self.stream()), Ok(1..))
    }
}

impl From<Stream> for Unsettled {
    fn from(stream: Stream) -> Self {
        Self(Some(stream))
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            pump::reset_on_close(stream);
        }
    }
}

/// How other hosts are dialled for clients.
pub(super) fn options(conf: &Conf) -> Options {
    Options {
        from: conf.dial_from,
        keepalive: conf.keepalive,
    }
}

/// Connects to a host's proxy.
pub(super) async fn connect(
    peer: &Peer,
    options: Options,
    limit: Duration,
) -> Result<Unsettled, DialError> {
    let (addr, dial_from) = (peer.addr(), &peer.upstream.dial_from);
    if dial_from.is_over() {
        return Err(DialError::SourcePorts { addr });
    }
    let dialed = dial(addr, options, limit).await;
    if matches!(dialed, Err(DialError::SourcePorts { .. })) {
        dial_from.note_over();
    }
    let stream = dialed?;
    dial_from.note_made();
    Ok(stream.into())
}

/// Waits for a connection that was begun ahead of its call.
pub(super) async fn connect_further(
    begun: Stream,
    addr: SocketAddr,
    limit: Duration,
) -> Result<Unsettled, DialError> {
    match tokio::time::timeout(limit, connected(begun)).await {
        Err(_) => Err(DialError::Timeout { addr, limit }),
        Ok(Err(source)) => Err(DialError::of(addr, source)),
        Ok(Ok(stream)) => Ok(stream.into()),
    }
}

/// Sends `request` over a spare connection to `addr`, at once; nothing yet where a handshake comes first.
///
/// One that is still connecting `patience` after it began is given up: it waits to send its SYN again, and a new one is
/// sooner there.
pub(super) fn send_over_spare(
    spares: &Spares,
    addr: SocketAddr,
    request: Request,
    speech: &Speech,
    patience: Duration,
) -> OverSpare {
    let mut line = BytesMut::new();
    request.encode(&mut line);
    let now = std::time::Instant::now();
    while let Some(spare) = spares.take(addr, now) {
        let is_young = spare.age(now) < patience;
        let sent = if speech.is_plain() {
            spare.send(&line)
        } else {
            spare.connected()
        };
        let is_connecting =
            matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        if is_connecting {
            spares.missed(addr);
        }
        if sent.is_err() && !(is_connecting && is_young) {
            continue;
        }
        match spare.into_stream() {
            Ok(stream) if is_connecting => return OverSpare::Connecting(stream),
            Ok(stream) if speech.is_plain() => return OverSpare::Sent(stream.into()),
            Ok(stream) => return OverSpare::Connected(stream.into()),
            Err(_) => {}
        }
    }
    OverSpare::None
}

/// Shakes hands if that is how the host is spoken to, then [asks](ask).
pub(super) async fn greet_and_ask(
    connection: &mut Unsettled,
    speech: &Speech,
    request: Request,
    deadline: Instant,
) -> Said {
    let limit = deadline.saturating_duration_since(Instant::now());
    match greet(connection.stream_mut(), speech, limit).await {
        Ok(()) => ask(connection.stream(), [request], deadline).await,
        Err(not_greeted) => Said::NotGreeted(not_greeted),
    }
}

/// Sends `requests` in one write, and reads what is said to the first of them until `deadline`.
pub(super) async fn ask(
    stream: &Stream,
    requests: impl IntoIterator<Item = Request>,
    deadline: Instant,
) -> Said {
    let mut lines = BytesMut::new();
    for request in requests {
        request.encode(&mut lines);
    }
    // The other end has read all that came before: there is room.
    match stream.try_write(&lines) {
        Ok(written) if written == lines.len() => {}
        Ok(_) => return Said::Lost(io::ErrorKind::WriteZero.into()),
        Err(error) => return lost(error),
    }
    reply(stream, &mut BytesMut::new(), deadline).await
}

/// Reads one reply, of which `bytes` are there already, and takes them.
///
/// After [`Said::Silent`] it may be called again with the same bytes.
pub(super) async fn reply(stream: &Stream, bytes: &mut BytesMut, deadline: Instant) -> Said {
    loop {
        match peer::decode_reply(bytes) {
            Ok(Decoded::Done { value, used }) => {
                let mut rest = std::mem::take(bytes);
                // An allocation of its own would be made for a rest of nothing.
                let rest = if used < rest.len() {
                    rest.split_off(used)
                } else {
                    BytesMut::new()
                };
                return Said::Reply(value, rest);
            }
            Ok(Decoded::Partial) => {}
            Err(_) => return Said::Garbage,
        }
        match timeout_at(deadline, stream.readable()).await {
            Err(_) => return Said::Silent,
            Ok(Err(error)) => return lost(error),
            Ok(Ok(())) => {}
        }
        match stream.try_read_buf(bytes, REPLY_READ) {
            Ok(0) if bytes.is_empty() => return Said::Closed,
            Ok(0) => return Said::Garbage,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return lost(error),
        }
    }
}

fn lost(error: io::Error) -> Said {
    // The other end says so only after the handshake, as far as this one is concerned.
    if is_distrust(&error) {
        Said::NotGreeted(NotGreeted::Untrusted(error))
    } else {
        Said::Lost(error)
    }
}
