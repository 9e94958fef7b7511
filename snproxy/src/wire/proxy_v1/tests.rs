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
        " ", "+", "-", "x", "00", "01", "65536", "65540", "70000", "123456", "1\t", "1\r", "0x",
        "80  ", "80 +", "80 -", "80 00", "80 04", "80 65536", "80 443 ", "80 443x", "80 443\n",
        "80 443\t", "80 \r", "80 \n",
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
    check(b"PROXY UNKNOWN\r\n", None);
}
