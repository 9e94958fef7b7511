//! The caller adds or strips the PROXY header; what the pod says meanwhile is not held up.

use super::{FALSE, SOON, TRUE, caller, check};
use snproxy_tests::{Conn, Guest, Host, Net, Peer};
use std::{net::SocketAddr, thread::sleep, time::Duration};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\x4d\0\x01\x12\x67\x07\xd0";
const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.77.0.1 4711 2000\r\n";

/// A port whose pod wants a header, and one whose pod wants none.
const WANTS: u16 = 2000;
const PLAIN: u16 = 2001;

fn two_pods() -> Peer {
    Peer::scripted(|port, guest: &Guest| {
        let _ = guest.send(if port == WANTS { TRUE } else { FALSE });
        guest.read_all();
    })
}

/// The header that is made for a client.
fn header_for(conn: &Conn, opened: SocketAddr) -> Vec<u8> {
    let (from, family) = (conn.local(), if opened.is_ipv4() { "TCP4" } else { "TCP6" });
    let (ip, to, port) = (from.ip(), opened.ip(), from.port());
    format!("PROXY {family} {ip} {to} {port} {WANTS}\r\n").into_bytes()
}

/// What the pod there got from a client that sent these segments and FIN.
#[track_caller]
fn heard(a: &Host, peer: &Peer, port: u16, segments: &[&[u8]]) -> (Vec<u8>, Conn) {
    let index = peer.calls().len();
    let conn = a.open(port);
    for segment in segments {
        conn.send(segment);
    }
    conn.half_close();
    let call = peer.call(index);
    call.wait_for_end();
    (call.payload(), conn)
}

#[test]
fn a_header_is_made_forwarded_or_stripped_for_a_pod_of_another_host() {
    let net = Net::hosts(["a", "b"]);
    let peer = two_pods();
    let (a, _) = caller(&net, &peer);
    a.start();

    for payload in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"PRO", b"PROXY TCP5 x", b""] {
        let (got, conn) = heard(a, &peer, WANTS, &[payload]);
        check(&got, &[&header_for(&conn, a.port(WANTS)), payload].concat());
        check(&heard(a, &peer, PLAIN, &[payload]).0, payload);
    }
    for header in [V1, V2, b"PROXY UNKNOWN\r\n"] {
        let whole = [header, b"payload"].concat();
        let bytes: Vec<_> = whole.chunks(1).collect();
        for segments in [&[&whole[..]][..], &bytes] {
            check(&heard(a, &peer, WANTS, segments).0, &whole);
            check(&heard(a, &peer, PLAIN, segments).0, b"payload");
        }
    }
}

#[test]
fn a_client_of_ipv6_is_named_in_the_header_if_not_in_the_line() {
    let net = Net::hosts(["a", "b"]);
    let peer = two_pods();
    let (a, _) = caller(&net, &peer);
    a.conf("HOST", "::").start();

    let conn = net.client().open(a.port6(WANTS));
    conn.send("payload").half_close();
    let expected = [&header_for(&conn, a.port6(WANTS))[..], b"payload"].concat();
    check(&peer.call(0).wait_for_payload(expected.len()), &expected);
}

#[test]
fn a_beginning_of_a_header_and_silence_is_delivered_there_too() {
    let net = Net::hosts(["a", "b"]);
    let peer = two_pods();
    let (a, _) = caller(&net, &peer);
    a.conf("PROXYWAIT", "300ms").start();

    for (index, port) in [WANTS, PLAIN].into_iter().enumerate() {
        let conn = a.open(port);
        conn.send("PRO");
        let header = if port == WANTS {
            header_for(&conn, a.port(WANTS))
        } else {
            Vec::new()
        };
        let expected = [&header[..], b"PRO"].concat();
        check(
            &peer.call(index).wait_for_payload(expected.len()),
            &expected,
        );
        conn.send("XY and more").half_close();
        peer.call(index).wait_for_end();
        check(
            &peer.call(index).payload(),
            &[&expected[..], b"XY and more"].concat(),
        );
    }
}

#[test]
fn the_pod_speaks_while_the_header_waits_for_the_client() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::scripted(|_, guest: &Guest| {
        let _ = guest.send(&[TRUE, b"220 ready\r\n"].concat());
        sleep(Duration::from_millis(300));
        let _ = guest.send(b"still here\r\n");
        guest.read_all();
    });
    let (a, _) = caller(&net, &peer);
    a.start();

    let conn = a.open(WANTS);
    assert_eq!(conn.line(), "220 ready");
    assert_eq!(conn.line(), "still here");
    let call = peer.call(0);
    check(&call.payload(), b"");
    let header = header_for(&conn, a.port(WANTS));
    check(&call.wait_for_payload(header.len()), &header);
    // After the wait it is payload, whatever it looks like.
    conn.send(V1);
    check(
        &call.wait_for_payload(header.len() + V1.len()),
        &[&header, V1].concat(),
    );
}

#[test]
fn a_client_that_must_send_a_header_is_named_to_nobody_before() {
    let net = Net::hosts(["a", "b"]);
    let peer = two_pods();
    let (a, _) = caller(&net, &peer);
    a.conf("CLIENTPROXY", "require").start();

    let conn = a.open(WANTS);
    conn.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(conn.rest(SOON).0, b"");
    assert_eq!(peer.calls().len(), 0);
    check(
        &heard(a, &peer, WANTS, &[V1, b"payload"]).0,
        &[V1, b"payload"].concat(),
    );
    check(&heard(a, &peer, PLAIN, &[V1, b"payload"]).0, b"payload");
}
