use super::*;

fn port(port: u16) -> ClusterPort {
    ClusterPort::new(port).unwrap()
}

fn connect(cluster_port: u16, ends: Option<(&str, &str)>) -> Request {
    Request::Connect {
        cluster_port: port(cluster_port),
        ends: ends.map(|(client, asked)| (client.parse().unwrap(), asked.parse().unwrap())),
    }
}

/// `line` is a whole request, and nothing less of it is.
#[track_caller]
fn check(line: &[u8], value: Request) {
    let used = line.len();
    let text = line.escape_ascii();
    assert_eq!(
        decode_request(line),
        Ok(Decoded::Done { value, used }),
        "{text}"
    );
    let longer = [line, b"\r\nGET /".repeat(20).as_slice()].concat();
    assert_eq!(decode_request(&longer), decode_request(line), "{text}");
    for end in 0..used {
        let cut = decode_request(&line[..end]);
        assert_eq!(cut, Ok(Decoded::Partial), "{text} cut at {end}");
    }
}

/// The last byte of `line`, and no byte before it, is impossible: an invalid `what`.
#[track_caller]
fn check_refused(line: &[u8], what: &'static str) {
    let text = line.escape_ascii();
    assert_eq!(decode_request(line), Err(Invalid(what)), "{text}");
    let before = decode_request(&line[..line.len() - 1]);
    assert_eq!(before, Ok(Decoded::Partial), "{text} less a byte");
    let longer = [line, b" 1.2.3.4 5.6.7.8 1 2\r\n"].concat();
    assert!(decode_request(&longer).is_err(), "{text} and more");
}

fn encoded(request: Request) -> Vec<u8> {
    let mut out = BytesMut::new();
    request.encode(&mut out);
    out.to_vec()
}

#[test]
fn the_line_of_the_first_proxies_names_no_client() {
    let line = b"PROXY TCP4 1.2.3.4 1.2.3.4 123 1024\r\n";
    check(line, connect(1024, None));
    assert_eq!(encoded(connect(1024, None)), line);
}

#[test]
fn two_addresses_and_a_port_name_the_client() {
    check(
        b"PROXY TCP4 10.0.0.9 10.0.0.1 40000 65535\r\n",
        connect(65535, Some(("10.0.0.9:40000", "10.0.0.1:65535"))),
    );
    // One of the constants alone says nothing.
    check(
        b"PROXY TCP4 1.2.3.4 1.2.3.4 124 1\r\n",
        connect(1, Some(("1.2.3.4:124", "1.2.3.4:1"))),
    );
}

#[test]
fn any_text_fills_the_middle_fields_and_names_nobody() {
    for fields in [
        &b"a b c"[..],
        b"\0 \xff\xfe \t",
        b"10.0.0.9 10.0.0.1 0",
        b"10.0.0.9 10.0.0.1 65536",
        b"10.0.0.9 10.0.0.1 01",
        b"10.0.0.9 10.0.0.1 +1",
        b"10.0.0.9 ::1 1",
        b"10.0.0.256 10.0.0.1 1",
        b"10.0.0.09 10.0.0.1 1",
    ] {
        let line = [b"PROXY TCP4 ", fields, b" 30000\r\n"].concat();
        check(&line, connect(30000, None));
    }
}

#[test]
fn notice_of_a_drain_names_the_proxy_port() {
    let proxy_port = ProxyPort::new(32767).unwrap();
    let line = b"PROXY TCP4 1.2.3.4 0.0.0.0 32767 0\r\n";
    check(line, Request::Drain { proxy_port });
    for line in [
        &b"PROXY TCP4 1.2.3.4 0.0.0.0 0 0"[..],
        b"PROXY TCP4 1.2.3.4 0.0.0.0 x 0",
        b"PROXY TCP4 1.2.3.5 0.0.0.0 32767 0",
    ] {
        check_refused(line, PORT);
    }
}

#[test]
fn a_count_is_the_one_form_that_asks_for_port_0() {
    let count = |of| Request::Count {
        cluster_port: port(of),
    };
    check(b"PROXY TCP4 1.2.3.4 1.2.3.4 1024 0\r\n", count(1024));
    check(b"PROXY TCP4 1.2.3.4 1.2.3.4 123 0\r\n", count(123));
    for line in [
        &b"PROXY TCP4 1.2.3.4 1.2.3.5 1024 0"[..],
        b"PROXY TCP4 1.2.3.5 1.2.3.4 1024 0",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 0 0",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01024 0",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 0",
        b"PROXY TCP4 a b c 0",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1024 00",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1024 01",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1024 0 ",
    ] {
        check_refused(line, PORT);
    }
}

#[test]
fn the_first_impossible_byte_ends_it() {
    check_refused(b"G", REQUEST);
    check_refused(b"\r", REQUEST);
    check_refused(b"PROXY TCP6", REQUEST);
    check_refused(b"PROXY U", REQUEST);
    check_refused(b"p", REQUEST);
    check_refused(b"PROXY TCP4  ", FIELD);
    check_refused(b"PROXY TCP4 a\r", FIELD);
    check_refused(b"PROXY TCP4 a b\n", FIELD);
    check_refused(b"PROXY TCP4 a b \r", FIELD);
    check_refused(b"PROXY TCP4 a b c \r", PORT);
    check_refused(b"PROXY TCP4 a b c -", PORT);
    check_refused(b"PROXY TCP4 a b c 65536", PORT);
    check_refused(b"PROXY TCP4 a b c 102400", PORT);
    check_refused(b"PROXY TCP4 a b c 1024 ", PORT);
    check_refused(b"PROXY TCP4 a b c 1024\n", PORT);
    check_refused(b"PROXY TCP4 a b c 1024\rx", LINE_END);
}

#[test]
fn a_line_of_107_bytes_is_read_and_a_longer_one_never_ends() {
    let long = |text: usize| [b"PROXY TCP4 a b ", "c".repeat(text).as_bytes()].concat();
    let end = b" 1024\r\n";
    let fits = MAX_LINE - long(0).len() - end.len();
    let line = [&long(fits)[..], end].concat();
    assert_eq!(line.len(), MAX_LINE);
    check(&line, connect(1024, None));
    // With a port of one digit three more fit; the byte after them leaves no room for the rest.
    check_refused(&long(fits + 4), LINE_END);
    check_refused(&[&long(fits)[..], b" 10240"].concat(), LINE_END);
}

#[test]
fn what_we_send_is_read_back_and_fits_the_shortest_limit() {
    let sent = |client: &str, asked: &str| {
        Request::connect(port(1024), client.parse().unwrap(), asked.parse().unwrap())
    };
    let named = connect(1024, Some(("10.0.0.9:40000", "10.0.0.1:1024")));
    assert_eq!(sent("10.0.0.9:40000", "10.0.0.1:1024"), named);
    let mapped = sent("[::ffff:10.0.0.9]:40000", "[::ffff:10.0.0.1]:1024");
    assert_eq!(mapped, named);
    for (client, asked) in [
        ("[2001:db8::1]:1", "[2001:db8::2]:1024"),
        ("10.0.0.9:1", "[2001:db8::2]:1024"),
        ("[2001:db8::1]:1", "10.0.0.1:1024"),
    ] {
        assert_eq!(sent(client, asked), connect(1024, None));
    }
    let longest = connect(
        65535,
        Some(("255.255.255.254:65535", "255.255.255.255:65535")),
    );
    for request in [
        named,
        longest,
        connect(1, None),
        Request::Count {
            cluster_port: port(65535),
        },
        Request::Drain {
            proxy_port: ProxyPort::new(65535).unwrap(),
        },
    ] {
        let line = encoded(request);
        assert!(line.len() <= MAX_SENT, "{}", line.escape_ascii());
        check(&line, request);
    }
    assert_eq!(encoded(longest).len(), 56);
}

#[test]
fn answers_are_read_as_they_are_written_and_payload_is_left_alone() {
    for (reply, line) in [
        (Reply::Accept { send_proxy: true }, "SENDPROXY=true\r\n"),
        (Reply::Accept { send_proxy: false }, "SENDPROXY=false\r\n"),
        (Reply::Busy, "BUSY\r\n"),
        (Reply::Pods(0), "PODS=0\r\n"),
        (Reply::Pods(12), "PODS=12\r\n"),
        (Reply::Pods(65535), "PODS=65535\r\n"),
        (Reply::Drains, "DRAINS\r\n"),
    ] {
        let mut out = BytesMut::new();
        reply.encode(&mut out);
        assert_eq!(out, line);
        let used = line.len();
        assert!(used <= MAX_REPLY);
        let done = Ok(Decoded::Done { value: reply, used });
        out.extend_from_slice(b"BUSY\r\npayload");
        assert_eq!(decode_reply(&out), done);
        for end in 0..used {
            assert_eq!(decode_reply(&out[..end]), Ok(Decoded::Partial), "{line}");
        }
    }
    let mut out = BytesMut::new();
    Reply::Pods(u32::MAX).encode(&mut out);
    assert_eq!(out, "PODS=65535\r\n");
}

#[test]
fn other_answers_end_at_their_first_impossible_byte() {
    for line in [
        "\r",
        "busy",
        "BUSY\n",
        "SENDPROXY=T",
        "SENDPROXY=false\n",
        "SENDPROXY=true ",
        "PODS=\r",
        "PODS=01",
        "PODS=65536",
        "PODS=-",
        "PROXY",
        "HTTP",
    ] {
        let bad = (1..=line.len()).find(|end| decode_reply(&line.as_bytes()[..*end]).is_err());
        assert!(bad.is_some(), "{line:?}");
        assert_eq!(decode_reply(line.as_bytes()), Err(Invalid(REPLY)));
    }
}

/// A small generator of our own: the same bytes at every run.
struct Bytes(u64);

impl Bytes {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[test]
fn whatever_comes_is_undecided_only_while_it_can_become_a_request() {
    // From these, a beginning of a request is completed where it can be.
    const ENDS: [&[u8]; 10] = [
        b"\n",
        b"\r\n",
        b"1\r\n",
        b" 1\r\n",
        b"1 1\r\n",
        b" 1 1\r\n",
        b"1 1 1\r\n",
        b" 1 1 1\r\n",
        b"1 1 1 1\r\n",
        b"PROXY TCP4 1 1 1 1\r\n",
    ];
    let mut random = Bytes(0x5EED);
    let mut undecided = 0;
    for _ in 0..20_000 {
        let mut line = b"PROXY TCP4 1.2.3.4 1.2.3.4 123 1024\r\n".to_vec();
        line.splice(20..20, std::iter::repeat_n(b'x', random.below(90)));
        for _ in 0..random.below(4) {
            let at = random.below(line.len());
            line[at] = *[b' ', b'\r', b'\n', b'0', b'9', b'P', 0xff]
                .get(random.below(7))
                .unwrap();
        }
        line.truncate(random.below(line.len() + 1));
        let decoded = decode_request(&line);
        let _ = decode_reply(&line);
        if decoded == Ok(Decoded::Partial) {
            undecided += 1;
            let head = b"PROXY TCP4 ".get(line.len()..).unwrap_or_default();
            let becomes = ENDS.iter().any(|end| {
                let tries = [[&line[..], end].concat(), [&line[..], head, end].concat()];
                tries
                    .iter()
                    .any(|line| matches!(decode_request(line), Ok(Decoded::Done { .. })))
            });
            assert!(becomes, "{}", line.escape_ascii());
        }
    }
    assert!(undecided > 1000, "{undecided} cut lines");
}

#[test]
fn random_bytes_are_refused_or_undecided() {
    let mut random = Bytes(0x00C0_FFEE);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..random.below(200))
            .map(|_| u8::try_from(random.below(256)).unwrap())
            .collect();
        assert!(!matches!(decode_request(&bytes), Ok(Decoded::Done { .. })));
        assert!(!matches!(decode_reply(&bytes), Ok(Decoded::Done { .. })));
    }
}
