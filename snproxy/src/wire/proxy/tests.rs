mod cases;
mod hostile;
mod oracles;
mod seeded;

use seeded::Seeded;

use super::*;

fn end(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn the_first_byte_decides_the_version() {
    assert_eq!(decode(b""), Ok(Decoded::Partial));
    for byte in 0..=u8::MAX {
        let expected = match byte {
            b'P' | b'\r' => Ok(Decoded::Partial),
            _ => Err(Invalid(HEADER)),
        };
        assert_eq!(decode(&[byte]), expected, "{}", byte.escape_ascii());
    }
}

#[test]
fn other_protocols_are_refused_by_their_first_bytes() {
    for (start, first_impossible) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"\x16\x03\x01\x02\x00\x01\x00", 1), // TLS hello
        (b"SSH-2.0-OpenSSH_9.9\r\n", 1),
        (b"POST / HTTP/1.1\r\n", 2),
        (b"PUT / HTTP/1.1\r\n", 2),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3),
        (b"PROPFIND / HTTP/1.1\r\n", 4),
        (b"PROXYxTCP4 1.2.3.4 1.2.3.4 1 1\r\n", 6),
        (b"\r\nGET / HTTP/1.1\r\n", 3), // HTTP clients may start with an empty line
        (b"\r\n\r\n\r\n", 5),
    ] {
        for end in 0..=start.len() {
            let expected_invalid = end >= first_impossible;
            let decoded = decode(&start[..end]);
            let text = start[..end].escape_ascii();
            assert_eq!(decoded.is_err(), expected_invalid, "{text}");
        }
    }
}

#[test]
fn a_header_has_one_family() {
    for (source, destination, family) in [
        ("192.0.2.1:1", "192.0.2.2:2", ("192.0.2.1:1", "192.0.2.2:2")),
        (
            "192.0.2.1:1",
            "[2001:db8::1]:2",
            ("[::ffff:192.0.2.1]:1", "[2001:db8::1]:2"),
        ),
        (
            "[2001:db8::1]:2",
            "192.0.2.1:1",
            ("[2001:db8::1]:2", "[::ffff:192.0.2.1]:1"),
        ),
        (
            "[::ffff:192.0.2.1]:1",
            "192.0.2.2:2",
            ("192.0.2.1:1", "192.0.2.2:2"),
        ),
        (
            "[::ffff:192.0.2.1]:1",
            "[::ffff:192.0.2.2]:2",
            ("192.0.2.1:1", "192.0.2.2:2"),
        ),
        ("[fe80::1%3]:1", "[::1]:2", ("[fe80::1]:1", "[::1]:2")),
    ] {
        let header = ProxyHeader::new(end(source), end(destination));
        let expected = ProxyHeader {
            source: end(family.0),
            destination: end(family.1),
        };
        assert_eq!(header, expected, "{source} to {destination}");
    }
}

#[test]
fn what_was_encoded_is_decoded() {
    let mut seeded = Seeded::new(1);
    for _ in 0..50_000 {
        let (version, ends, id) = (seeded.version(), seeded.ends(), seeded.unique_id());
        // With ends of two families too: these come back as `new` makes them.
        let header = ProxyHeader {
            source: ends.0,
            destination: ends.1,
        };
        let tlvs = seeded.tlvs(&id);
        let mut out = BytesMut::new();
        encode(version, &header, &tlvs, &mut out);
        let decoded = Decoded::Done {
            value: Some(ProxyHeader::new(ends.0, ends.1)),
            used: out.len(),
        };
        assert_eq!(decode(&out), Ok(decoded), "{version:?} {header:?}");
    }
}

#[test]
fn header_of_an_own_connection_has_its_ends_or_is_local() {
    for (local, remote, line) in [
        (
            "192.0.2.1:1",
            "192.0.2.2:2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        ),
        ("[::1]:1", "[::1]:2", "PROXY TCP6 ::1 ::1 1 2\r\n"),
    ] {
        let mut out = BytesMut::new();
        encode_local(Version::V1, end(local), end(remote), &mut out);
        assert_eq!(out, line.as_bytes());
        let mut out = BytesMut::new();
        encode_local(Version::V2, end(local), end(remote), &mut out);
        let used = out.len();
        assert_eq!(used, proxy_v2::FIXED);
        assert_eq!(decode(&out), Ok(Decoded::Done { value: None, used }));
    }
}
