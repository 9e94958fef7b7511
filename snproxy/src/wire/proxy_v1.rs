//! PROXY protocol v1, a line of text.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use bytes::BytesMut;

use super::proxy::{HEADER, ProxyHeader};
use super::reader::{self, Reader, Stop};
use super::{Decoded, Invalid};

#[cfg(test)]
mod tests;

/// Longest line, CRLF included. Source: PROXY protocol §2.1, "worst case".
pub const MAX_LINE: usize = 107;

/// Longest text that `std` reads as an address: six groups and a dotted quad.
const MAX_IP: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();

// The start of an address is good when one of these makes it whole. That asks the one parser that
// decides in the end, where a second grammar of our own could disagree with it.
const IPV4_ENDINGS: &[&str] = &["", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"];
const IPV6_ENDINGS: &[&str] = &["", "::", ":", "0", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0"];
const MAX_ENDING: usize = "0.0.0.0".len();

pub(super) const PROTOCOL: &str = "PROXY v1 protocol";
pub(super) const ADDRESS: &str = "PROXY v1 address";
pub(super) const PORT: &str = "PROXY v1 port";
pub(super) const LINE_END: &str = "PROXY v1 line end";

/// Reads a PROXY protocol v1 line from the start of a stream.
///
/// Shape: `PROXY <TCP4|TCP6> <source ip> <destination ip> <source port> <destination port>\r\n`, one space
/// between fields, at most [`MAX_LINE`] bytes; ports without sign or leading zero. `PROXY UNKNOWN`,
/// alone or with a space and any bytes up to the CRLF, gives `None`. IPv6 may end in a dotted quad,
/// which §2.1 does not have but `inet_ntop` writes for mapped addresses.
/// Errors: [`Invalid`] names the first part that breaks the shape, without waiting for the line's end.
/// Source: PROXY protocol (2020/03/05) §2.1.
pub fn decode(bytes: &[u8]) -> Result<Decoded<Option<ProxyHeader>>, Invalid> {
    let line = bytes.get(..MAX_LINE).unwrap_or(bytes);
    match reader::decode(line, read_line)? {
        Decoded::Partial if has_no_room_to_end(line) => Err(Invalid(LINE_END)),
        decoded => Ok(decoded),
    }
}

/// Appends the line of `header` to `out`.
///
/// Shape: IPv6 in groups of hexadecimal digits only, as §2.1 has it; families as [`ProxyHeader::new`].
pub fn encode(header: &ProxyHeader, out: &mut BytesMut) {
    let ProxyHeader {
        source,
        destination,
    } = ProxyHeader::new(header.source, header.destination);
    let protocol = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    out.reserve(MAX_LINE);
    let written = write!(
        out,
        "PROXY {protocol} {} {} {} {}\r\n",
        Groups(source.ip()),
        Groups(destination.ip()),
        source.port(),
        destination.port(),
    );
    debug_assert!(written.is_ok(), "BytesMut grows");
}

fn read_line(reader: &mut Reader<'_>) -> Result<Option<ProxyHeader>, Stop> {
    reader.literal(b"PROXY ", HEADER)?;
    match reader.byte()? {
        b'T' => {
            reader.literal(b"CP", PROTOCOL)?;
            match reader.byte()? {
                b'4' => tcp::<Ipv4Addr>(reader, IPV4_ENDINGS).map(Some),
                b'6' => tcp::<Ipv6Addr>(reader, IPV6_ENDINGS).map(Some),
                _ => Err(Invalid(PROTOCOL).into()),
            }
        }
        b'U' => {
            reader.literal(b"NKNOWN", PROTOCOL)?;
            match reader.byte()? {
                b'\r' => reader.literal(b"\n", LINE_END)?,
                b' ' => skip_line(reader)?,
                _ => return Err(Invalid(PROTOCOL).into()),
            }
            Ok(None)
        }
        _ => Err(Invalid(PROTOCOL).into()),
    }
}

fn tcp<Ip: FromStr + Into<IpAddr>>(
    reader: &mut Reader<'_>,
    endings: &[&str],
) -> Result<ProxyHeader, Stop> {
    reader.literal(b" ", PROTOCOL)?;
    let source = ip::<Ip>(reader, endings)?;
    let destination = ip::<Ip>(reader, endings)?;
    // §2.1 bars leading zeroes, as `decimal` does.
    let source_port = reader.decimal(b' ', PORT)?;
    let destination_port = reader.decimal(b'\r', PORT)?;
    reader.literal(b"\n", LINE_END)?;
    Ok(ProxyHeader {
        source: SocketAddr::new(source.into(), source_port),
        destination: SocketAddr::new(destination.into(), destination_port),
    })
}

/// An address and the space after it.
fn ip<Ip: FromStr>(reader: &mut Reader<'_>, endings: &[&str]) -> Result<Ip, Stop> {
    let rest = reader.rest();
    let Some(len) = rest.iter().position(|byte| *byte == b' ') else {
        return Err(if can_become::<Ip>(rest, endings) {
            Stop::Partial
        } else {
            Invalid(ADDRESS).into()
        });
    };
    let text = str::from_utf8(reader.slice(len)?).map_err(|_| Invalid(ADDRESS))?;
    let ip = text.parse().map_err(|_| Invalid(ADDRESS))?;
    reader.literal(b" ", ADDRESS)?;
    Ok(ip)
}

fn can_become<Ip: FromStr>(beginning: &[u8], endings: &[&str]) -> bool {
    let mut buffer = [0; MAX_IP + MAX_ENDING];
    endings.iter().any(|ending| {
        let Some(text) = buffer.get_mut(..beginning.len() + ending.len()) else {
            return false;
        };
        for (to, from) in text
            .iter_mut()
            .zip(beginning.iter().chain(ending.as_bytes()))
        {
            *to = *from;
        }
        str::from_utf8(text).is_ok_and(|text| text.parse::<Ip>().is_ok())
    })
}

/// Everything up to the CRLF, unread: §2.1 "must ignore anything presented before the CRLF".
fn skip_line(reader: &mut Reader<'_>) -> Result<(), Stop> {
    let end = reader.rest().windows(2).position(|pair| pair == b"\r\n");
    reader.slice(end.ok_or(Stop::Partial)? + 2)?;
    Ok(())
}

/// Whether the CRLF that `line` lacks no longer fits into [`MAX_LINE`].
fn has_no_room_to_end(line: &[u8]) -> bool {
    let room = MAX_LINE - line.len().min(MAX_LINE);
    room == 0 || (room == 1 && !line.ends_with(b"\r"))
}

/// Prints as `Display` does, but `::ffff:c000:201` where that has `::ffff:192.0.2.1`.
struct Groups(IpAddr);

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                let [.., high, low] = ip.segments();
                write!(f, "::ffff:{high:x}:{low:x}")
            }
            ip => ip.fmt(f),
        }
    }
}
