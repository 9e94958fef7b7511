//! PROXY protocol v1, a line of text.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{self, FromStr};

use bytes::{BufMut, BytesMut};

use super::proxy::{HEADER, ProxyHeader};
use super::reader::{self, Reader, Stop};
use super::{Decoded, Invalid};

/// Longest line, CRLF included. Source: PROXY protocol §2.1, "worst case".
pub const MAX_LINE: usize = 107;

const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

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

/// Appends the line that names no addresses to `out`.
pub fn encode_unknown(out: &mut BytesMut) {
    out.put_slice(UNKNOWN);
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
    let source_port = port(reader, b' ')?;
    let destination_port = port(reader, b'\r')?;
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

/// A port and the byte `end` after it.
fn port(reader: &mut Reader<'_>, end: u8) -> Result<u16, Stop> {
    let mut port: Option<u16> = None;
    loop {
        let byte = reader.byte()?;
        port = match (byte, port) {
            (byte, Some(port)) if byte == end => return Ok(port),
            // §2.1 bars leading zeroes so that no reader takes the number for octal.
            (b'0'..=b'9', Some(0)) => None,
            (b'0'..=b'9', before) => before
                .unwrap_or(0)
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(u16::from(byte - b'0'))),
            _ => None,
        };
        if port.is_none() {
            return Err(Invalid(PORT).into());
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";

    /// `line` is a whole header, and nothing less of it is.
    #[track_caller]
    fn check(line: &[u8], addresses: Option<(&str, &str)>) {
        let value = addresses.map(|(source, destination)| ProxyHeader {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        });
        let used = line.len();
        let text = line.escape_ascii();
        assert_eq!(decode(line), Ok(Decoded::Done { value, used }), "{text}");
        let longer = [line, b"\r\nGET /"].concat();
        assert_eq!(decode(&longer), decode(line), "{text} and payload");
        for end in 0..used {
            assert_eq!(
                decode(&line[..end]),
                Ok(Decoded::Partial),
                "{text} cut at {end}"
            );
        }
    }

    /// The last byte of `line`, and no byte before it, is impossible: an invalid `what`.
    #[track_caller]
    fn check_refused(line: &[u8], what: &'static str) {
        let text = line.escape_ascii();
        assert_eq!(decode(line), Err(Invalid(what)), "{text}");
        let before = &line[..line.len() - 1];
        assert_eq!(decode(before), Ok(Decoded::Partial), "{text} less a byte");
        let longer = [line, b" 1.2.3.4 5.6.7.8 1 2\r\n"].concat();
        assert_eq!(decode(&longer), Err(Invalid(what)), "{text} and more");
    }

    #[test]
    fn lines_of_the_specification_are_read() {
        check(LINE, Some(("192.168.0.1:56324", "192.168.0.11:443")));
        let line = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        assert_eq!(line.len(), 56);
        check(
            line,
            Some(("255.255.255.255:65535", "255.255.255.255:65535")),
        );
        let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let line = format!("PROXY TCP6 {all} {all} 65535 65535\r\n");
        assert_eq!(line.len(), 104);
        let end = format!("[{all}]:65535");
        check(line.as_bytes(), Some((&end, &end)));
        let line = format!("PROXY UNKNOWN {all} {all} 65535 65535\r\n");
        assert_eq!(line.len(), MAX_LINE);
        check(line.as_bytes(), None);
        check(b"PROXY UNKNOWN\r\n", None);
    }

    #[test]
    fn all_a_line_may_hold_is_read() {
        check(
            b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",
            Some(("0.0.0.0:0", "0.0.0.0:0")),
        );
        check(
            b"PROXY TCP6 :: ::1 0 65535\r\n",
            Some(("[::]:0", "[::1]:65535")),
        );
        check(
            b"PROXY TCP6 2001:DB8::a 2001:db8:0:0:0:0:0:0B 1 2\r\n",
            Some(("[2001:db8::a]:1", "[2001:db8::b]:2")),
        );
        check(
            b"PROXY TCP6 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1 2\r\n",
            Some(("[1:2:3:4:5:6:7:0]:1", "[0:2:3:4:5:6:7:8]:2")),
        );
        check(
            b"PROXY TCP6 ::ffff:192.0.2.1 64:ff9b::198.51.100.7 1 2\r\n",
            Some(("[::ffff:192.0.2.1]:1", "[64:ff9b::c633:6407]:2")),
        );
    }

    #[test]
    fn what_stands_after_unknown_is_ignored() {
        check(b"PROXY UNKNOWN \r\n", None);
        check(b"PROXY UNKNOWN  a b c d e f g h\r\n", None);
        check(b"PROXY UNKNOWN one\rtwo\nthree\n\r\r\n", None);
        check(b"PROXY UNKNOWN \xff\xfe\0\r\n", None);
    }

    #[test]
    fn another_protocol_is_refused_on_its_first_byte_of_difference() {
        check_refused(b"PO", HEADER);
        check_refused(b"PROXX", HEADER);
        check_refused(b"PROXYx", HEADER);
        check_refused(b"PROXY\t", HEADER);
        check_refused(b"PROXY\r", HEADER);
        check_refused(b"PROXY  ", PROTOCOL);
        check_refused(b"PROXY t", PROTOCOL);
        check_refused(b"PROXY TCP5", PROTOCOL);
        check_refused(b"PROXY TCP4\t", PROTOCOL);
        check_refused(b"PROXY TCP4\r", PROTOCOL);
        check_refused(b"PROXY UD", PROTOCOL);
        check_refused(b"PROXY UNKNOWNx", PROTOCOL);
        check_refused(b"PROXY UNKNOWN\n", PROTOCOL);
        check_refused(b"PROXY UNKNOWN\rx", LINE_END);
    }

    #[test]
    fn an_address_is_refused_where_it_stops_being_one() {
        for bad in [
            "x",
            " ",
            ".",
            "-",
            "+",
            "1..",
            "01",
            "00",
            "256",
            "1.2.3.x",
            "1.2.3.4.",
            "1.2.3.4\t",
            "1.2.3.4\r",
            "1.2.3 ",
            "1.2.3.04",
            "1.2.3.256",
            "1.2.3.4:",
            ":",
            "[",
            "999",
            "0x",
            "1.2.3.4 x",
            "1.2.3.4 5.6.7.8x",
            "1.2.3.4 5.6.7 ",
            "1.2.3.4  ",
            "1.2.3.4 5.6.7.8\r",
            "1.2.3.4 :",
        ] {
            check_refused(format!("PROXY TCP4 {bad}").as_bytes(), ADDRESS);
        }
        for bad in [
            "x",
            " ",
            ".",
            "[",
            "12345",
            "g",
            ":1",
            ":::",
            "1:::",
            "1::2::",
            "1:2:3:4:5:6:7:8:",
            "1:2:3:4:5:6:7::8",
            "1:2:3:4:5:6:7:8 1:2:3:4:5:6:7 ",
            "1:2.",
            "::ffff:256.",
            "::1.2.3.256",
            "::ffff:01.",
            "::1.2.3.4:",
            "::1.2.3.4.",
            "::1%",
            "1:2:3:4:5:6:7:1.",
            "1.",
            "::1/",
            "fe80::1 ::1\r",
            "::1 1.",
            "::2:3:4:5:6:7:8:",
            "::\t",
        ] {
            check_refused(format!("PROXY TCP6 {bad}").as_bytes(), ADDRESS);
        }
    }

    #[test]
    fn a_port_is_refused_where_it_stops_being_one() {
        for bad in [
            " ", "+", "-", "x", "00", "01", "65536", "65540", "70000", "123456", "1\t", "1\r",
            "0x", "80  ", "80 +", "80 -", "80 00", "80 04", "80 65536", "80 443 ", "80 443x",
            "80 443\n", "80 443\t", "80 \r", "80 \n",
        ] {
            check_refused(format!("PROXY TCP4 1.2.3.4 5.6.7.8 {bad}").as_bytes(), PORT);
        }
    }

    #[test]
    fn a_line_ends_in_crlf_and_nothing_else() {
        check_refused(b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\r", LINE_END);
        check_refused(b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\rG", LINE_END);
        check_refused(b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\0", LINE_END);
    }

    #[test]
    fn a_line_beyond_107_bytes_is_refused_at_the_last_byte_that_could_end_it() {
        let text = |len: usize| [b"PROXY UNKNOWN ", "x".repeat(len - 14).as_bytes()].concat();
        check_refused(&text(106), LINE_END);
        let line = [&text(105)[..], b"\r\n"].concat();
        check(&line, None);
        check_refused(&[&text(105)[..], b"\r\r"].concat(), LINE_END);
        // Two addresses of the longest form leave no room for ports.
        let ip = "0000:0000:0000:0000:0000:ffff:255.255.255.255";
        let line = format!("PROXY TCP6 {ip} {ip} 1 1\r\n");
        assert_eq!(line.len(), 108);
        assert_eq!(decode(line.as_bytes()), Err(Invalid(LINE_END)));
        let line = format!("PROXY TCP6 {ip} {} 1 1\r\n", &ip[1..]);
        let end = "[::ffff:255.255.255.255]:1";
        check(line.as_bytes(), Some((end, end)));
    }

    #[track_caller]
    fn check_encoded(source: &str, destination: &str, line: &str) {
        let header = ProxyHeader {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        let mut out = BytesMut::from("before ");
        encode(&header, &mut out);
        assert_eq!(str::from_utf8(&out), Ok(&*format!("before {line}\r\n")));
    }

    #[test]
    fn a_header_becomes_its_line() {
        check_encoded(
            "192.168.0.1:56324",
            "192.168.0.11:443",
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443",
        );
        check_encoded(
            "[2001:db8::1]:0",
            "[fe80::1%7]:65535",
            "PROXY TCP6 2001:db8::1 fe80::1 0 65535",
        );
    }

    #[test]
    fn ends_of_two_families_are_both_written_as_ipv6() {
        check_encoded(
            "192.0.2.1:5",
            "[2001:db8::1]:6",
            "PROXY TCP6 ::ffff:c000:201 2001:db8::1 5 6",
        );
        check_encoded(
            "[2001:db8::1]:6",
            "[::ffff:192.0.2.1]:5",
            "PROXY TCP6 2001:db8::1 ::ffff:c000:201 6 5",
        );
        check_encoded(
            "[::ffff:192.0.2.1]:5",
            "198.51.100.7:6",
            "PROXY TCP4 192.0.2.1 198.51.100.7 5 6",
        );
    }

    #[test]
    fn the_longest_line_fits() {
        let end = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let header = ProxyHeader::new(end.parse().unwrap(), end.parse().unwrap());
        let mut out = BytesMut::with_capacity(MAX_LINE);
        encode(&header, &mut out);
        assert_eq!(out.len(), 104);
    }

    #[test]
    fn an_unknown_line_is_read_back_as_none() {
        let mut out = BytesMut::new();
        encode_unknown(&mut out);
        check(&out, None);
    }
}
