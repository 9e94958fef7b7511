//! What proxies say to each other on PORT: one line asks, one line answers, and payload follows.
//!
//! Spoken since the first Simplenetes proxies, byte for byte; [`Request::Count`], [`Request::Drain`],
//! [`Reply::Pods`] and [`Reply::Drains`] are ours, in lines that the others answer with a close.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZero;
use std::str::{self, FromStr};

use bytes::{BufMut, BytesMut};

use super::reader::{self, Reader, Stop};
use super::{Decoded, Invalid};
use crate::addr::{ClusterPort, canonical};

#[cfg(test)]
mod tests;

/// Longest request line that we read, CRLF included: as long as any line of the PROXY protocol.
pub const MAX_LINE: usize = 107;

/// Longest request line that we send: others give up on more.
pub const MAX_SENT: usize = "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n".len();

/// Longest answer.
pub const MAX_REPLY: usize = "SENDPROXY=false\r\n".len();

/// The address that says nothing, as the first proxies sent it for both ends.
const NOBODY: &[u8] = b"1.2.3.4";
/// The source port that goes with it.
const NOBODY_PORT: u16 = 123;
/// The second address of a [`Request::Drain`].
const DRAINING: &[u8] = b"0.0.0.0";

pub(super) const REQUEST: &str = "peer request";
pub(super) const FIELD: &str = "peer request field";
pub(super) const PORT: &str = "peer request port";
pub(super) const LINE_END: &str = "peer request line end";
pub(super) const REPLY: &str = "peer reply";

/// What a proxy asks of another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request {
    /// Carry this connection to a pod of the cluster port.
    Connect {
        cluster_port: ClusterPort,
        /// The client and what it opened, where the caller said so.
        ends: Option<(SocketAddrV4, SocketAddrV4)>,
    },
    /// How many pods serve this port?
    Count { cluster_port: ClusterPort },
    /// The host that sends this, whose proxy port this is, drains.
    Drain { proxy_port: ProxyPort },
}

/// Where a proxy is reached; never 0.
pub type ProxyPort = NonZero<u16>;

/// What the other one answers; a close without a byte is a no.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// A pod is connected; what follows is payload, and a PROXY header comes first where the pod wants one.
    Accept { send_proxy: bool },
    /// Every pod has `maxConn` connections.
    Busy,
    /// So many pods take connections to the port.
    Pods(u32),
    /// This host drains; or that another one does is noted.
    Drains,
}

impl Request {
    /// Asks for a pod of `cluster_port` on behalf of `client`, which opened `asked`.
    ///
    /// Shape: the line holds IPv4 only, mapped addresses made plain; other clients go unnamed.
    pub fn connect(cluster_port: ClusterPort, client: SocketAddr, asked: SocketAddr) -> Self {
        let ends = match (canonical(client), canonical(asked)) {
            (SocketAddr::V4(client), SocketAddr::V4(asked)) => {
                Some((client, SocketAddrV4::new(*asked.ip(), cluster_port.get())))
            }
            _ => None,
        };
        Self::Connect { cluster_port, ends }
    }

    /// Appends the line, at most [`MAX_SENT`] bytes, to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(MAX_SENT);
        let nobody = Ipv4Addr::new(1, 2, 3, 4);
        let (client, asked, port, cluster_port) = match *self {
            Self::Connect { cluster_port, ends } => {
                let (client, asked, port) = match ends {
                    Some((client, asked)) => (*client.ip(), *asked.ip(), client.port()),
                    None => (nobody, nobody, NOBODY_PORT),
                };
                (client, asked, port, cluster_port.get())
            }
            Self::Count { cluster_port } => (nobody, nobody, cluster_port.get(), 0),
            Self::Drain { proxy_port } => (nobody, Ipv4Addr::UNSPECIFIED, proxy_port.get(), 0),
        };
        let written = write!(out, "PROXY TCP4 {client} {asked} {port} {cluster_port}\r\n");
        debug_assert!(written.is_ok(), "BytesMut grows");
    }
}

impl Reply {
    /// Appends the line, at most [`MAX_REPLY`] bytes, to `out`; more than 65,535 pods are said to be as many.
    pub fn encode(&self, out: &mut BytesMut) {
        match *self {
            Self::Accept { send_proxy: true } => out.put_slice(b"SENDPROXY=true\r\n"),
            Self::Accept { send_proxy: false } => out.put_slice(b"SENDPROXY=false\r\n"),
            Self::Busy => out.put_slice(b"BUSY\r\n"),
            Self::Pods(pods) => {
                let written = write!(out, "PODS={}\r\n", pods.min(u32::from(u16::MAX)));
                debug_assert!(written.is_ok(), "BytesMut grows");
            }
            Self::Drains => out.put_slice(b"DRAINS\r\n"),
        }
    }
}

/// Reads a request from the start of what a peer sent.
///
/// Shape: `PROXY TCP4 <client> <asked> <client port> <cluster port>\r\n`, one space between fields, at most
/// [`MAX_LINE`] bytes. Any bytes but space, CR and LF fill the middle three; only two IPv4 addresses and a
/// port name a client, and the constants `1.2.3.4 1.2.3.4 123` name none. The cluster port has no sign and
/// no leading zero. `PROXY TCP4 1.2.3.4 1.2.3.4 <cluster port> 0\r\n` is a [`Request::Count`], and
/// `PROXY TCP4 1.2.3.4 0.0.0.0 <proxy port> 0\r\n` a [`Request::Drain`].
/// Errors: [`Invalid`] names the first part that breaks the shape, without waiting for the line's end;
/// close the connection without a byte.
pub fn decode_request(bytes: &[u8]) -> Result<Decoded<Request>, Invalid> {
    let line = bytes.get(..MAX_LINE).unwrap_or(bytes);
    match reader::decode(line, read_request)? {
        Decoded::Partial if line.len() + shortest_end(line) > MAX_LINE => Err(Invalid(LINE_END)),
        decoded => Ok(decoded),
    }
}

/// Reads an answer from the start of what a peer sent.
///
/// Shape: `SENDPROXY=true\r\n`, `SENDPROXY=false\r\n`, `BUSY\r\n`, `PODS=<0-65535>\r\n`, or `DRAINS\r\n`.
/// Errors: [`Invalid`] on the first byte that no answer has in its place.
pub fn decode_reply(bytes: &[u8]) -> Result<Decoded<Reply>, Invalid> {
    reader::decode(bytes, |reader| match reader.byte()? {
        b'S' => {
            reader.literal(b"ENDPROXY=", REPLY)?;
            let send_proxy = match reader.byte()? {
                b't' => true,
                b'f' => false,
                _ => return Err(Invalid(REPLY).into()),
            };
            reader.literal(if send_proxy { b"rue\r\n" } else { b"alse\r\n" }, REPLY)?;
            Ok(Reply::Accept { send_proxy })
        }
        b'B' => {
            reader.literal(b"USY\r\n", REPLY)?;
            Ok(Reply::Busy)
        }
        b'P' => {
            reader.literal(b"ODS=", REPLY)?;
            let pods = reader.decimal(b'\r', REPLY)?;
            reader.literal(b"\n", REPLY)?;
            Ok(Reply::Pods(pods.into()))
        }
        b'D' => {
            reader.literal(b"RAINS\r\n", REPLY)?;
            Ok(Reply::Drains)
        }
        _ => Err(Invalid(REPLY).into()),
    })
}

fn read_request(reader: &mut Reader<'_>) -> Result<Request, Stop> {
    reader.literal(b"PROXY TCP4 ", REQUEST)?;
    let client = field(reader)?;
    let asked = field(reader)?;
    let client_port = field(reader)?;
    if reader.rest().first() == Some(&b'0') {
        let port = parse(client_port).filter(|_| client == NOBODY);
        let request = match asked {
            NOBODY => port
                .and_then(ClusterPort::new)
                .map(|cluster_port| Request::Count { cluster_port }),
            DRAINING => port
                .and_then(ProxyPort::new)
                .map(|proxy_port| Request::Drain { proxy_port }),
            _ => None,
        };
        let request = request.ok_or(Invalid(PORT))?;
        reader.literal(b"0\r\n", PORT)?;
        return Ok(request);
    }
    let cluster_port = ClusterPort::new(reader.decimal(b'\r', PORT)?).ok_or(Invalid(PORT))?;
    reader.literal(b"\n", LINE_END)?;
    let ends = ends(client, asked, client_port, cluster_port);
    Ok(Request::Connect { cluster_port, ends })
}

/// A field of any bytes, and the space after it.
fn field<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Stop> {
    let rest = reader.rest();
    let len = rest
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\r' | b'\n'))
        .ok_or(Stop::Partial)?;
    let field = reader.slice(len)?;
    if field.is_empty() {
        return Err(Invalid(FIELD).into());
    }
    reader.literal(b" ", FIELD)?;
    Ok(field)
}

/// The client and what it opened, if the fields name them.
fn ends(
    client: &[u8],
    asked: &[u8],
    client_port: &[u8],
    cluster_port: ClusterPort,
) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let port = parse(client_port).filter(|port| *port != 0)?;
    if client == NOBODY && asked == NOBODY && port == NOBODY_PORT {
        return None;
    }
    Some((
        SocketAddrV4::new(parse(client)?, port),
        SocketAddrV4::new(parse(asked)?, cluster_port.get()),
    ))
}

/// `None` for what is not exactly as `T` is printed, such as `+1` or `01`.
fn parse<T: FromStr + ToString>(field: &[u8]) -> Option<T> {
    let text = str::from_utf8(field).ok()?;
    text.parse()
        .ok()
        .filter(|value: &T| value.to_string() == text)
}

/// Fewest bytes that make a request of `line`, which is a good beginning of one.
fn shortest_end(line: &[u8]) -> usize {
    if line.ends_with(b"\r") {
        return 1;
    }
    let fields = line.split(|byte| *byte == b' ').count();
    let begun = usize::from(line.ends_with(b" "));
    begun + 2 * 6usize.saturating_sub(fields) + 2
}
