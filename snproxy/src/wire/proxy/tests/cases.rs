//! What is easy to get wrong, and who does.

use super::oracles::*;
use super::*;

enum Expected {
    Partial,
    Refused,
    /// A whole header that says to use the real addresses.
    Real,
    /// A whole header with addresses.
    Ends,
}
use Expected::{Ends, Partial, Real, Refused};

const FINE: &str = "";

/// Bytes, our answer, and how the answers of `ppp`, `proxy-header` and `proxy-protocol-rs` differ from it.
type Case = (&'static [u8], Expected, [&'static str; 3]);

const V1: &[Case] = &[
    (b"", Partial, [FINE; 3]),
    (b"P", Partial, [FINE; 3]),
    (b"PROXY", Partial, [FINE; 3]),
    (b"G", Refused, [FINE; 3]),
    (b"PROXX", Refused, [FINE, LATER, LATER]),
    (b"GET / HTTP/1.1\r\n\r\n", Refused, [FINE; 3]),
    (
        b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03",
        Refused,
        [FINE; 3],
    ),
    (
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        Ends,
        [FINE; 3],
    ),
    (
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET /",
        Ends,
        [FINE; 3],
    ),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        Ends,
        [FINE; 3],
    ),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Ends, [FINE; 3]),
    (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n", Ends, [FINE; 3]),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", Ends, [FINE; 3]),
    (b"PROXY UNKNOWN\r\n", Real, [FINE; 3]),
    (b"PROXY UNKNOWN ::1 ::1 1 2\r\n", Real, [FINE; 3]),
    (
        b"PROXY UNKNOWN one two three four five\r\n",
        Real,
        [INTO_TEXT, FINE, FINE],
    ),
    (b"PROXY UNKNOWN \xFF\r\n", Real, [INTO_TEXT, FINE, NOT_UTF8]),
    (b"PROXY UNKNOWN a\rb\r\n", Real, [INTO_TEXT, BARE_CR, FINE]),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 ",
        Partial,
        [BEFORE_LAST_PORT, FINE, FINE],
    ),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r", Partial, [FINE; 3]),
    (
        b"PROXYxTCP4 1.2.3.4 5.6.7.8 80 443\r\n",
        Refused,
        [FINE, AFTER_PROXY, FINE],
    ),
    (b"PROXY UNKNOWNx\r\n", Refused, [FINE, AFTER_UNKNOWN, FINE]),
    (b"PROXY TCP5 1.2.3.4 5.6.7.8 80 443\r\n", Refused, [FINE; 3]),
    (b"PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n", Refused, [FINE; 3]),
    (b"proxy TCP4 1.2.3.4 5.6.7.8 80 443\r\n", Refused, [FINE; 3]),
    (
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
        Refused,
        [FINE; 3],
    ),
    (
        b"PROXY TCP4  1.2.3.4 5.6.7.8 80 443\r\n",
        Refused,
        [FINE; 3],
    ),
    (
        b"PROXY\tTCP4\t1.2.3.4\t5.6.7.8\t80\t443\r\n",
        Refused,
        [FINE; 3],
    ),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443 \r\n",
        Refused,
        [FINE; 3],
    ),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443 1\r\n",
        Refused,
        [FINE; 3],
    ),
    (b"PROXY TCP4 1.2.3.4\r\n", Refused, [AFTER_CR, LATER, FINE]),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +80 443\r\n",
        Refused,
        [PLUS; 3],
    ),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 0443\r\n",
        Refused,
        [FINE, ZERO, ZERO],
    ),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 443\r\n", Refused, [FINE; 3]),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n",
        Refused,
        [FINE; 3],
    ),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\n",
        Refused,
        [FINE, LATER, LATER],
    ),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443 \n",
        Refused,
        [SPACE_LF, LATER, LATER],
    ),
    (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\rX",
        Refused,
        [FINE, FINE, LATER],
    ),
    (
        b"PROXY TCP4 01.2.3.4 5.6.7.8 80 443\r\n",
        Refused,
        [FINE; 3],
    ),
    (b"PROXY TCP4 1.2.3 5.6.7.8 80 443\r\n", Refused, [FINE; 3]),
    (
        b"PROXY TCP4 1.2.3.256 5.6.7.8 80 443\r\n",
        Refused,
        [FINE; 3],
    ),
    (b"PROXY TCP4 ::1 ::1 80 443\r\n", Refused, [FINE; 3]),
    (b"PROXY TCP6 1.2.3.4 5.6.7.8 80 443\r\n", Refused, [FINE; 3]),
    (b"PROXY TCP6 [::1] ::1 80 443\r\n", Refused, [FINE; 3]),
    (
        b"PROXY TCP6 fe80::1%eth0 ::1 80 443\r\n",
        Refused,
        [FINE; 3],
    ),
    (
        b"PROXY TCP4 host.example 5.6.7.8 80 443\r\n",
        Refused,
        [FINE; 3],
    ),
    (b"PROXY TCP4 1.2.3.x", Refused, [AFTER_CR, LATER, LATER]),
];

const V2: &[Case] = &[
    (b"\r\n\r\n\0\r\nQUIT\n", Partial, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Ends, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBBpayload", Ends, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01", Partial, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0D\xB8\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50\x01\xBB", Ends, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB\x04\0\x01x", Ends, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Real, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xD8uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu", Real, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", Real, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x04noop", Real, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Real, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\0", Real, [INTO_LOCAL, INTO_LOCAL, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\xFF\0\0", Real, [INTO_LOCAL, INTO_LOCAL, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x07\x03\0\x04sum!", Real, [FINE, FINE, LOCAL_CHECKSUM]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0", Real, [FINE, FINE, UNSPECIFIED]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x10\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Refused, [HALF_FAMILY, FINE, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x01\0\0", Refused, [HALF_FAMILY, FINE, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x13\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Refused, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x41\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Refused, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Refused, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Refused, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0C\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB", Refused, [FINE; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0B\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01", Refused, [FINE, BEYOND_BLOCK, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0E\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB\x04\0", Refused, [TLVS, TLVS, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB\x04\0\x02x", Refused, [TLVS, TLVS, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB\x03\0\x04sum!", Refused, [TLVS, TLVS, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB\x03\0\x03sum", Refused, [TLVS, TLVS, FINE]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xBB\x20\0\x01x", Ends, [FINE, FINE, INTO_TLS]),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x09\0", Refused, [ANY_LENGTH; 3]),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\0\x09\0", Refused, [ANY_LENGTH; 3]),
];

/// Every answer to `case` that is not the one it names.
fn surprises((bytes, expected, theirs): &Case) -> Vec<String> {
    let text = bytes.escape_ascii();
    let ours = decode(bytes);
    let is_expected = match expected {
        Partial => ours == Ok(Decoded::Partial),
        Refused => ours.is_err(),
        Real => matches!(ours, Ok(Decoded::Done { value: None, .. })),
        Ends => matches!(ours, Ok(Decoded::Done { value: Some(_), .. })),
    };
    let mut surprises = Vec::new();
    if !is_expected {
        surprises.push(format!("{text}: {ours:?}"));
    }
    for (oracle, expected) in ORACLES.into_iter().zip(theirs) {
        let difference = difference(oracle, bytes).unwrap_or(FINE);
        if difference != *expected {
            surprises.push(format!("{text}: {oracle:?} {difference:?}"));
        }
    }
    surprises
}

#[test]
fn each_case_is_answered_as_it_says() {
    let surprises: Vec<_> = V1.iter().chain(V2).flat_map(surprises).collect();
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[test]
fn a_line_of_108_bytes_is_refused() {
    let line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(line.len(), 108);
    assert!(decode(line.as_bytes()).is_err());
    let theirs = ORACLES.map(|oracle| difference(oracle, line.as_bytes()));
    assert_eq!(theirs, [None, Some(LONG_LINE), None]);
}

#[test]
fn a_line_that_does_not_end_is_refused() {
    for start in ["PROXY UNKNOWN ", "PROXY TCP4 "] {
        let line = format!("{start}{}", "1".repeat(200));
        assert!(decode(line.as_bytes()).is_err(), "{line}");
    }
}

/// A reason without a case may excuse what nobody has seen.
#[test]
fn each_known_error_has_a_case() {
    let theirs = V1.iter().chain(V2).flat_map(|case| case.2);
    let theirs: Vec<_> = theirs.chain([LONG_LINE]).collect();
    for reason in REASONS {
        assert!(theirs.contains(&reason), "{reason}");
    }
}
