//! What a pod hears before its client: every row of the decision table, at the socket.

mod client_proxy;
mod delays;
mod sources;

use snproxy_tests::{Conn, Ended, Figure, Host, Net, Pod, check, print_figure};
use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Cluster ports of pods that get v1, nothing, and v2.
const V1: u16 = 1024;
const NONE: u16 = 1025;
const V2: u16 = 1026;

/// The three pods of [`V1`], [`NONE`] and [`V2`]; they record.
fn three_pods(host: &Host) -> [Pod; 3] {
    let pods = [30000, 30001, 30002].map(|port| host.pod(port, Pod::recording()));
    host.mappings("1024:30000:100:true 1025:30001:100:false 1026:30002:100:v2\n");
    pods
}

/// The header that is made for a client.
fn v1_for(conn: &Conn) -> Vec<u8> {
    let from = conn.local();
    format!(
        "PROXY TCP4 {} 10.77.0.1 {} 1024\r\n",
        from.ip(),
        from.port()
    )
    .into_bytes()
}

/// A v2 header with this command, family and block.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).expect("a short block");
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend(len.to_be_bytes());
    header.extend(block);
    header
}

/// 192.0.2.7:4711 to 10.77.0.1:1024
const ENDS: [u8; 12] = [192, 0, 2, 7, 10, 77, 0, 1, 0x12, 0x67, 4, 0];

/// Headers that a client may send.
fn headers() -> Vec<Vec<u8>> {
    let with_tlv = [&ENDS[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    vec![
        b"PROXY TCP4 192.0.2.7 10.77.0.1 4711 1024\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 fd77::1 4711 1024\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN what ever else\r\n".to_vec(),
        v2(0x21, 0x11, &ENDS),
        v2(0x21, 0x11, &with_tlv),
        v2(0x20, 0x00, &[]),
        v2(0x21, 0x00, &[]),
    ]
}

/// First bytes that look like a header, as far as they go.
fn no_headers() -> Vec<Vec<u8>> {
    let spoilt = [&ENDS[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
    vec![
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        b"PROXY TCP5 192.0.2.7 10.77.0.1 4711 1024\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.77.0.1 04711 1024\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.77.0.1 4711 65536\r\n".to_vec(),
        b"PROXY  TCP4 192.0.2.7 10.77.0.1 4711 1024\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.77.0.1 4711 1024\n".to_vec(),
        [
            b"PROXY UNKNOWN ".to_vec(),
            vec![b'x'; 200],
            b"\r\n".to_vec(),
        ]
        .concat(),
        b"PRO".to_vec(),
        b"\r\n\r\n\0\r\nQUIX\n".to_vec(),
        b"\r\n\r\n".to_vec(),
        v2(0x31, 0x11, &ENDS),
        v2(0x21, 0x11, &ENDS[..11]),
        v2(0x21, 0x11, &spoilt),
        vec![0; 64],
    ]
}

/// What a pod got from a client that sent these segments and FIN, less what a header made for this client says.
#[track_caller]
fn heard(host: &Host, port: u16, pod: &Pod, segments: &[&[u8]]) -> (Vec<u8>, Conn) {
    let visit = pod.accepted();
    let conn = host.open(port);
    for segment in segments {
        conn.send(segment);
    }
    conn.half_close();
    assert_eq!(pod.visit(visit).wait_for_end(), Ended::Eof);
    (pod.visit(visit).first_bytes(), conn)
}

#[test]
fn a_header_is_forwarded_or_stripped_however_it_comes() {
    let net = Net::one();
    let host = net.host("host");
    let [told, plain, told_v2] = three_pods(host);
    host.start();

    for header in headers() {
        let whole = [&header[..], b"payload"].concat();
        // Header and payload in one segment, and each byte in its own.
        let bytes: Vec<_> = whole.chunks(1).collect();
        for segments in [&[&whole[..]][..], &bytes] {
            check(&heard(host, V1, &told, segments).0, &whole);
            check_v2(&heard(host, V2, &told_v2, segments).0, &header);
            check(&heard(host, NONE, &plain, segments).0, b"payload");
        }
        // A header and nothing behind it.
        check(&heard(host, V1, &told, &[&header]).0, &header);
        check(&heard(host, NONE, &plain, &[&header]).0, b"");
    }
    assert!(host.steered() >= 64);
}

#[test]
fn a_header_is_made_where_none_came_and_payload_stays_payload() {
    let net = Net::one();
    let host = net.host("host");
    let [told, plain, _] = three_pods(host);
    host.start();

    let mut payloads = no_headers();
    payloads.push(Vec::new());
    for payload in payloads {
        let (got, conn) = heard(host, V1, &told, &[&payload]);
        check(&got, &[v1_for(&conn), payload.clone()].concat());
        check(&heard(host, NONE, &plain, &[&payload]).0, &payload);
        let bytes: Vec<_> = payload.chunks(1).collect();
        let (got, conn) = heard(host, V1, &told, &bytes);
        check(&got, &[v1_for(&conn), payload.clone()].concat());
        check(&heard(host, NONE, &plain, &bytes).0, &payload);
    }
}

#[test]
fn a_v2_header_says_who_comes_to_which_port_under_a_checksum() {
    let net = Net::one();
    let host = net.host("host");
    let [_, _, told] = three_pods(host);
    host.start();

    let mut ids = Vec::new();
    for _ in 0..3 {
        let (got, conn) = heard(host, V2, &told, &[b"payload"]);
        let (header, payload) = split_v2(&got);
        assert_eq!(payload, b"payload");
        assert_eq!(header[..12], *SIGNATURE);
        assert_eq!(header[12..14], [0x21, 0x11], "PROXY, TCP over IPv4");

        let mut ends = [101, 1].map(|last| [10, 77, 0, last]).concat();
        ends.extend(conn.local().port().to_be_bytes());
        ends.extend(V2.to_be_bytes());
        assert_eq!(header[16..28], ends);

        let tlvs = tlvs(&header[28..]);
        let value = |kind: u8| {
            let found = tlvs.iter().find(|(known, _)| *known == kind);
            found
                .unwrap_or_else(|| panic!("no TLV {kind:#x} in {tlvs:?}"))
                .1
                .clone()
        };
        assert_eq!(value(0xE5), V2.to_be_bytes(), "the cluster port");
        assert_eq!(value(0x05).len(), 16, "the unique id");
        ids.push(value(0x05));

        let crc = value(0x03);
        let at = header
            .windows(7)
            .position(|window| window[..3] == [3, 0, 4] && window[3..] == crc);
        let mut zeroed = header.to_vec();
        zeroed[at.expect("the checksum") + 3..][..4].fill(0);
        assert_eq!(crc, crc32c(&zeroed).to_be_bytes());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each connection has an id of its own");
}

/// A pod that wants v2 got `header` as it came if it is v2, else what it says in v2, then the payload.
#[track_caller]
fn check_v2(got: &[u8], header: &[u8]) {
    if !header.starts_with(b"P") {
        return check(got, &[header, b"payload"].concat());
    }
    let (v2, payload) = split_v2(got);
    assert_eq!(payload, b"payload");
    let line = String::from_utf8_lossy(header);
    let fields: Vec<_> = line.split_whitespace().collect();
    let ends: Vec<u8> = match fields[1] {
        "UNKNOWN" => return check(v2, &[&SIGNATURE[..], &[0x20, 0, 0, 0]].concat()),
        "TCP4" => [2, 3].map(|at| ip_bytes(fields[at])).concat(),
        "TCP6" => [2, 3].map(|at| ip_bytes(fields[at])).concat(),
        other => panic!("{other}"),
    };
    let ports = [4, 5].map(|at| fields[at].parse::<u16>().expect("a port").to_be_bytes());
    let family = if fields[1] == "TCP4" { 0x11 } else { 0x21 };
    assert_eq!(v2[12..14], [0x21, family]);
    let ends = [ends, ports.concat()].concat();
    check(&v2[16..16 + ends.len()], &ends);
    // As in a header that is made here.
    let kinds: Vec<_> = tlvs(&v2[16 + ends.len()..])
        .iter()
        .map(|tlv| tlv.0)
        .collect();
    assert_eq!(kinds, [0xE5, 0x05, 0x03]);
}

fn ip_bytes(text: &str) -> Vec<u8> {
    match text.parse::<IpAddr>().expect("an address") {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Header and what follows.
fn split_v2(bytes: &[u8]) -> (&[u8], &[u8]) {
    let len = u16::from_be_bytes([bytes[14], bytes[15]]);
    bytes.split_at(16 + usize::from(len))
}

fn tlvs(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut tlvs = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, rest) = rest.split_at(u16::from_be_bytes([*high, *low]).into());
        tlvs.push((*kind, value.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "TLVs fill the header");
    tlvs
}

/// Bit by bit, after RFC 4960, appendix B: nothing in common with the table of the proxy.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| {
        if sum & 1 == 1 {
            sum >> 1 ^ 0x82F6_3B78
        } else {
            sum >> 1
        }
    };
    let add = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum));
    !bytes.iter().fold(u32::MAX, add)
}

#[test]
fn a_silent_client_gets_its_header_after_the_wait_while_the_pod_speaks() {
    const WAIT: Duration = Duration::from_secs(1);
    let net = Net::one();
    let host = net.host("host");
    let told = host.pod(30000, Pod::banner("220 ready\r\n"));
    host.mappings("1024:30000:100:true\n").start();

    let start = Instant::now();
    let conn = host.open(V1);
    assert_eq!(conn.line(), "220 ready");
    assert_eq!(
        told.visit(0).received(),
        0,
        "the header still waits for the client"
    );
    let header = v1_for(&conn);
    let got = told.visit(0).wait_for_bytes(header.len() as u64);
    let after = start.elapsed();
    check(&got, &header);
    assert!(after >= WAIT, "after {after:?}");
    print_figure(
        "header made for a silent client, later than PROXYWAIT",
        Figure::Time(after.saturating_sub(WAIT)),
        Figure::Time(Duration::from_millis(100)),
    );
    // What it says later is payload, also when it looks like a header.
    let late = b"PROXY TCP4 192.0.2.7 10.77.0.1 4711 1024\r\n";
    conn.send(late);
    let got = told
        .visit(0)
        .wait_for_bytes((header.len() + late.len()) as u64);
    check(&got, &[&header[..], late].concat());
}

#[test]
fn a_beginning_of_a_header_and_silence_is_delivered() {
    let net = Net::one();
    let host = net.host("host");
    let [told, plain, _] = three_pods(host);
    host.conf("PROXYWAIT", "300ms").start();

    for (index, start) in ["PRO", "PROXY TCP4 192.0.2.7 ", "\r\n\r\n\0\r\nQUIT\n\x21"]
        .into_iter()
        .enumerate()
    {
        let (to_told, to_plain) = (host.open(V1), host.open(NONE));
        to_told.send(start);
        to_plain.send(start);
        let expected = [v1_for(&to_told), start.into()].concat();
        check(
            &told.visit(index).wait_for_bytes(expected.len() as u64),
            &expected,
        );
        check(
            &plain.visit(index).wait_for_bytes(start.len() as u64),
            start.as_bytes(),
        );
        to_told.send("more").half_close();
        to_plain.send("more").half_close();
        assert_eq!(told.visit(index).wait_for_end(), Ended::Eof);
        assert_eq!(plain.visit(index).wait_for_end(), Ended::Eof);
        check(
            &told.visit(index).first_bytes(),
            &[&expected[..], b"more"].concat(),
        );
        check(
            &plain.visit(index).first_bytes(),
            format!("{start}more").as_bytes(),
        );
    }
}

#[test]
fn many_clients_at_once_keep_their_own_headers() {
    let net = Net::one();
    let host = net.host("host");
    let [told, _, _] = three_pods(host);
    host.start();

    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let conn = host.open(V1);
                    conn.send(format!("I am {}", conn.local().port()))
                        .half_close();
                    assert_eq!(conn.ended(), Ended::Eof);
                }
            });
        }
    });
    assert_eq!(told.accepted(), 80);
    for visit in told.visits() {
        let got = String::from_utf8(visit.first_bytes()).expect("text");
        let (header, payload) = got.split_once("\r\n").expect("a line");
        let port = header.split(' ').nth(4).expect("the client's port");
        assert_eq!(payload, format!("I am {port}"));
    }
}
