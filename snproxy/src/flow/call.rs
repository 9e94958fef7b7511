//! One call of another host's proxy: connect, one line, its answer.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};

use crate::net::dial::{DialError, dial_from};
use crate::pump;
use crate::route::peers::Peer;
use crate::sys::stream::Stream;
use crate::wire::Decoded;
use crate::wire::peer::{self, Reply, Request};

/// Longest reply that is read, with what may come behind it in the same segment.
const REPLY_READ: usize = 2048;

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
}

/// Connects to a host's proxy. Until somebody lets it [`settle_down`], its close is a reset: a call that lost the race
/// ends at the other end at once, with whatever was begun there.
pub(super) async fn connect(
    peer: &Peer,
    from: Option<IpAddr>,
    limit: Duration,
) -> Result<Stream, DialError> {
    let stream = dial_from(from, peer.addr(), limit).await?;
    pump::reset_on_close(&stream);
    Ok(stream)
}

/// From now on its close is an ordinary one.
pub(super) fn settle_down(stream: &Stream) {
    let _ = socket2::SockRef::from(stream).set_linger(None);
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
        Err(error) => return Said::Lost(error),
    }
    reply(stream, BytesMut::new(), deadline).await
}

/// Reads one reply, of which `bytes` are there already.
pub(super) async fn reply(stream: &Stream, mut bytes: BytesMut, deadline: Instant) -> Said {
    loop {
        match peer::decode_reply(&bytes) {
            Ok(Decoded::Done { value, used }) => {
                return Said::Reply(value, bytes.split_off(used));
            }
            Ok(Decoded::Partial) => {}
            Err(_) => return Said::Garbage,
        }
        match timeout_at(deadline, stream.readable()).await {
            Err(_) => return Said::Silent,
            Ok(Err(error)) => return Said::Lost(error),
            Ok(Ok(())) => {}
        }
        bytes.reserve(REPLY_READ);
        match stream.try_read_buf(&mut bytes) {
            Ok(0) if bytes.is_empty() => return Said::Closed,
            Ok(0) => return Said::Garbage,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Said::Lost(error),
        }
    }
}
