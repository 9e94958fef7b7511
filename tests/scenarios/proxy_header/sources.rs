//! CLIENTPROXY by source: what a client outside of private networks says of itself is payload.

use super::{ENDS, NONE, SOON, V1, V2, check, crc32c, headers, split_v2, three_pods, v2};
use snproxy_tests::{Conn, Ended, Host, Net, Pod};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// A client of a public network (RFC 5737), and a second address of the host there.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A net whose client has a public address too, which the hosts reach.
fn net_with_public(hosts: &[&str]) -> Net {
    let net = Net::new(hosts, 1);
    net.client().add_address(&format!("{PUBLIC}/24"));
    for host in net.all_hosts() {
        let route = "route add 198.51.100.0/24 dev eth0";
        host.namespace().ip(route);
    }
    net
}

#[track_caller]
fn open_public(net: &Net, to: SocketAddr) -> Conn {
    let attempt = net.client().attempt_from((PUBLIC, 0), to);
    attempt.connected().expect("a connection")
}

/// The v1 header that is made for a client of the host.
fn made(conn: &Conn, host: &Host, port: u16) -> Vec<u8> {
    let from = conn.local();
    let (ip, own) = (from.ip(), host.v4());
    format!("PROXY TCP4 {ip} {own} {} {port}\r\n", from.port()).into_bytes()
}

/// A TLV.
fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("short");
    [&[kind][..], &len.to_be_bytes(), value].concat()
}

/// TLV on the TLS of a client with the certificate of `admin`.
fn forged_ssl() -> Vec<u8> {
    let common_name = tlv(0x22, b"admin");
    tlv(0x20, &[&[0x07, 0, 0, 0, 0][..], &common_name].concat())
}

/// What the newest visit of `pod` got from a client that sent `bytes` and FIN.
#[track_caller]
fn heard(conn: &Conn, pod: &Pod, visit: usize, bytes: &[u8]) -> Vec<u8> {
    conn.send(bytes).half_close();
    assert_eq!(pod.visit(visit).wait_for_end(), Ended::Eof);
    pod.visit(visit).first_bytes()
}

#[test]
fn public_client_cannot_name_its_address() {
    for steering in ["ebpf", "listeners"] {
        let net = net_with_public(&["host"]);
        let host = net.host("host");
        let [told, plain, told_v2] = three_pods(host);
        host.conf("STEERING", steering).start();
        let mut forged = headers();
        forged.push(v2(0x21, 0x11, &[&ENDS[..], &forged_ssl()].concat()));
        forged.push(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1024\r\n".to_vec());
        for (visit, header) in forged.iter().enumerate() {
            let conn = open_public(&net, host.port(V1));
            let expected = [&made(&conn, host, V1)[..], header].concat();
            check(&heard(&conn, &told, visit, header), &expected);
            let conn = open_public(&net, host.port(NONE));
            check(&heard(&conn, &plain, visit, header), header);
            let conn = open_public(&net, host.port(V2));
            let got = heard(&conn, &told_v2, visit, header);
            let (own, payload) = split_v2(&got);
            check(payload, header);
            check(&own[16..20], &[198, 51, 100, 7]);
        }
    }
}

#[test]
fn app_takes_headers_of_the_sources_that_it_lists() {
    const FILE: &str = r#"{"Apps":[
      {"Name":"all","Ports":[1024],"Targets":[{"Addr":"127.0.0.1:30000","SendProxy":"v1"}]},
      {"Name":"some","Ports":[1025],"ClientProxy":"detect 198.51.100.0/24",
       "Targets":[{"Addr":"127.0.0.1:30001","SendProxy":"v1"}]}]}"#;
    let net = net_with_public(&["host"]);
    let host = net.host("host");
    let [private, public] = [30000, 30001].map(|port| host.pod(port, Pod::recording()));
    host.conf("APPSCONF", "config.json")
        .replace("config.json", FILE)
        .start();
    let header = &headers()[0];
    for (port, pod, is_public) in [(1024, &private, false), (1025, &public, true)] {
        let conns = [host.open(port), open_public(&net, host.port(port))];
        for (visit, conn) in conns.into_iter().enumerate() {
            let is_read = is_public == (visit == 1);
            let made = made(&conn, host, port);
            let got = heard(&conn, pod, visit, header);
            check(
                &got,
                &[if is_read { &[] } else { &made[..] }, header].concat(),
            );
        }
    }
}

#[test]
fn public_client_is_not_waited_for() {
    let net = net_with_public(&["host"]);
    let host = net.host("host");
    let [told, plain, _] = three_pods(host);
    host.conf("PROXYWAIT", "30s").start();
    let start = Instant::now();
    let silent = open_public(&net, host.port(V1));
    let header = made(&silent, host, V1);
    check(&told.visit(0).wait_for_bytes(header.len() as u64), &header);
    // A beginning of a header is a whole message of its own.
    for (at, bytes) in ["P", "\r\n", "PROXY TCP4 "].into_iter().enumerate() {
        let conn = open_public(&net, host.port(V1));
        conn.send(bytes);
        let expected = [&made(&conn, host, V1)[..], bytes.as_bytes()].concat();
        let visit = told.visit(1 + at);
        check(&visit.wait_for_bytes(expected.len() as u64), &expected);
        let conn = open_public(&net, host.port(NONE));
        conn.send(bytes);
        let visit = plain.visit(at);
        check(&visit.wait_for_bytes(bytes.len() as u64), bytes.as_bytes());
    }
    let after = start.elapsed();
    assert!(after < Duration::from_secs(20), "after {after:?}");
}

#[test]
fn own_address_of_the_host_counts_as_private() {
    let net = net_with_public(&["host"]);
    let host = net.host("host");
    let address = format!("address add {OWN}/32 dev eth0");
    host.namespace().ip(&address);
    let [told, ..] = three_pods(host);
    host.start();
    let header = &headers()[0];
    let from = (OWN, 0).into();
    let conn = host
        .namespace()
        .run(|| Conn::connect_from(from, host.port(V1), SOON));
    let conn = conn.expect("a connection");
    check(&heard(&conn, &told, 0, header), header);
    let conn = open_public(&net, host.port(V1));
    let expected = [&made(&conn, host, V1)[..], header].concat();
    check(&heard(&conn, &told, 1, header), &expected);
}

#[test]
fn only_a_listed_source_asserts_identity() {
    let net = Net::one();
    let host = net.host("host");
    let [told, plain, told_v2] = three_pods(host);
    host.start();
    let id = tlv(0x05, b"an id");
    let with = |tlvs: &[&[u8]]| {
        let block = [&ENDS[..], &tlvs.concat(), &tlv(0x03, &[0; 4])].concat();
        let mut header = v2(0x21, 0x11, &block);
        let crc = crc32c(&header).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&crc);
        header
    };
    let ssl = forged_ssl();
    let claims: [&[u8]; 6] = [
        &tlv(0x01, b"h2"),
        &tlv(0x02, b"admin.example"),
        &ssl,
        &tlv(0x30, b"tenant"),
        &tlv(0xE5, &[0, 22]),
        &tlv(0xEA, b"\x01vpce-1"),
    ];
    let sent = with(&[&id, &claims.concat()]);
    let expected = with(&[&id]);
    for (port, pod) in [(V1, &told), (V2, &told_v2)] {
        let got = heard(&host.open(port), pod, 0, &[&sent[..], b"payload"].concat());
        check(&got, &[&expected[..], b"payload"].concat());
    }
    let got = heard(
        &host.open(NONE),
        &plain,
        0,
        &[&sent[..], b"payload"].concat(),
    );
    check(&got, b"payload");
    host.reloaded_after(|host| host.conf("CLIENTPROXY", "detect private,10.77.0.0/24"));
    for (port, pod) in [(V1, &told), (V2, &told_v2)] {
        check(&heard(&host.open(port), pod, 1, &sent), &sent);
    }
}

#[test]
fn public_client_is_named_truly_to_another_host() {
    let net = net_with_public(&["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let [told, plain, told_v2] = three_pods(b);
    for host in [b, a] {
        host.conf("PROXYWAIT", "30s").start();
    }
    for (visit, header) in headers().iter().enumerate() {
        let conn = open_public(&net, a.port(V1));
        let expected = [&made(&conn, a, V1)[..], header].concat();
        check(&heard(&conn, &told, visit, header), &expected);
        let conn = open_public(&net, a.port(NONE));
        check(&heard(&conn, &plain, visit, header), header);
        let conn = open_public(&net, a.port(V2));
        let got = heard(&conn, &told_v2, visit, header);
        let (own, payload) = split_v2(&got);
        check(payload, header);
        check(&own[16..20], &[198, 51, 100, 7]);
    }
    // The identity that a private client asserts is taken out by the host that it opens.
    let sent = v2(0x21, 0x11, &[&ENDS[..], &forged_ssl()].concat());
    let bare = v2(0x21, 0x11, &ENDS);
    let visit = told.accepted();
    check(&heard(&a.open(V1), &told, visit, &sent), &bare);
    let visit = told_v2.accepted();
    check(&heard(&a.open(V2), &told_v2, visit, &sent), &bare);
}
