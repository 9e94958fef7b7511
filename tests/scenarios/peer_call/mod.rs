//! What snproxy asks of other proxies, and what comes of each answer: here the others are scripted.

mod claims;
mod fallback;
mod header;
mod spares;
mod whole;

use snproxy_tests::{Call, Conn, Ended, Guest, Host, Net, Peer, check, eventually, request_for};
use std::{io::Write, net::SocketAddr, thread::sleep, time::Duration};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(500);
const TRUE: &[u8] = b"SENDPROXY=true\r\n";
const FALSE: &[u8] = b"SENDPROXY=false\r\n";
/// Others give up on a line that is longer.
const LONGEST_LINE: usize = 56;

/// Hosts `a`, whose snproxy calls, and `b`, where this peer answers.
fn caller<'n>(net: &'n Net, peer: &Peer) -> (&'n Host, &'n Host) {
    let (a, b) = (net.host("a"), net.host("b"));
    b.peer(peer.clone());
    (a, b)
}

/// The line that names the client of this connection.
fn line_for(conn: &Conn, opened: SocketAddr) -> Vec<u8> {
    let (from, port) = (conn.local(), opened.port());
    let line = format!(
        "PROXY TCP4 {} {} {} {port}\r\n",
        from.ip(),
        opened.ip(),
        from.port()
    );
    line.into_bytes()
}

#[test]
fn the_line_names_the_client_and_comes_at_once_from_our_own_address() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::answering([FALSE, b"pod\n"].concat());
    let (a, _) = caller(&net, &peer);
    a.start();

    for port in [1024, 2000, 65535] {
        let conn = a.open(port);
        assert_eq!(conn.greeting(), "pod");
        let call = peer.call_for(port);
        check(call.line(), &line_for(&conn, a.port(port)));
        assert!(call.line().len() <= LONGEST_LINE);
        assert_eq!(call.reads(), 1, "one write");
        assert_eq!(call.from().ip(), a.v4());
    }
    assert_eq!(peer.calls().len(), 3);
    assert!(a.steered() >= 3);
}

#[test]
fn clients_of_ipv6_go_unnamed_and_mapped_addresses_are_plain() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::answering([FALSE, b"pod\n"].concat());
    let (a, _) = caller(&net, &peer);
    a.conf("HOST", "::").start();

    let conn = a.open(2000);
    assert_eq!(conn.greeting(), "pod");
    check(peer.call(0).line(), &line_for(&conn, a.port(2000)));
    let conn = net.client().open(a.port6(2001));
    assert_eq!(conn.greeting(), "pod");
    check(peer.call(1).line(), request_for(2001).as_bytes());
    assert_eq!(peer.call(1).from().ip(), a.v4());
}

#[test]
fn hosts_call_each_other_over_ipv6() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::answering([FALSE, b"pod\n"].concat());
    let (a, _) = caller(&net, &peer);
    a.conf("HOST", "::")
        .hosts("[fd77::1]:32767\n[fd77::2]:32767\n")
        .start();

    let conn = a.open(2000);
    assert_eq!(conn.greeting(), "pod");
    check(peer.call(0).line(), &line_for(&conn, a.port(2000)));
    assert_eq!(peer.call(0).from().ip(), a.v6());
}

#[test]
fn calls_come_from_the_address_that_hosts_conf_gives_us() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::answering([FALSE, b"pod\n"].concat());
    let (a, _) = caller(&net, &peer);
    // The kernel would take its first address.
    a.namespace().ip("address add 10.77.0.9/24 dev eth0");
    a.conf("HOST", "0.0.0.0")
        .hosts("10.77.0.2:32767\n10.77.0.9:32767\n")
        .start();

    assert_eq!(a.open(2000).greeting(), "pod");
    assert_eq!(peer.call(0).from().ip().to_string(), "10.77.0.9");
}

#[test]
fn payload_follows_an_answer_however_it_comes() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::scripted(|port, guest: &Guest| {
        let whole = [FALSE, b"220 ready\r\n"].concat();
        match port {
            2000 => drop(guest.send(&whole)),
            2001 => guest.dribble(&whole),
            // Its CRLF is torn apart.
            2002 => {
                let (first, second) = whole.split_at(FALSE.len() - 1);
                let _ = guest.send(first);
                sleep(MOMENT / 10);
                let _ = guest.send(second);
            }
            // More than any buffer for a line holds.
            _ => drop(guest.send(&[FALSE, &vec![b'x'; 1 << 20]].concat())),
        }
        guest.read_all();
        let _ = guest.send(b"bye");
    });
    let (a, _) = caller(&net, &peer);
    a.start();

    for port in [2000, 2001, 2002] {
        let conn = a.open(port);
        // Before the client has said a word.
        check(&conn.read(11), b"220 ready\r\n");
        conn.send("hello");
        check(&peer.call_for(port).wait_for_payload(5), b"hello");
        check(&conn.half_close().read_to_end(), b"bye");
        assert_eq!(peer.call_for(port).wait_for_end(), Ended::Eof);
    }
    // What the client said early comes behind the line, once it is answered.
    let conn = a.open(2003);
    conn.send("early").half_close();
    assert_eq!(conn.read_to_end().len(), (1 << 20) + 3);
    check(&peer.call_for(2003).payload(), b"early");
    eventually(SOON, "four clean ends", || a.ends("clean") == 4);
}

/// Each port another way to say no, or nothing that makes sense; where it can be, what comes then is read.
fn says_no(port: u16, guest: &Guest) {
    let answer: &[u8] = match port % WAYS {
        CLOSE => return,
        HALF => return drop(guest.send(b"SENDPROXY=tr")),
        RESET => return guest.reset_on_close(),
        3 => b"BUSY\r\n",
        4 => b"HELLO\r\n",
        5 => b"SENDPROXY=maybe\r\nand more",
        6 => b"SENDPROXY=true\nhello",
        7 => b"PODS=1\r\nand more",
        8 => &[b'S'; 8 << 10],
        _ => b"BUSY\r\nSENDPROXY=false\r\nand more",
    };
    let _ = guest.send(answer);
    guest.read_all();
}
const CLOSE: u16 = 0;
const HALF: u16 = 1;
const RESET: u16 = 2;
const WAYS: u16 = 10;

/// Whoever said no hears an end, and nothing before it.
#[track_caller]
fn got_no_payload(call: &Call) {
    if ![CLOSE, HALF, RESET].contains(&(call.port() % WAYS)) {
        call.wait_for_end();
    }
    check(&call.payload(), b"");
}

#[test]
fn a_no_in_any_form_resets_the_client_and_takes_none_of_its_bytes() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::scripted(says_no);
    let (a, _) = caller(&net, &peer);
    a.start();
    let descriptors = a.snproxy().descriptors();

    for port in 2000..2000 + WAYS {
        // The reset may come before connect() has its thread again, or before the client has said anything.
        if let Some(conn) = a.attempt(port).connected() {
            let _ = conn.stream().write_all(b"payload of the client");
            let (got, ended) = conn.rest(SOON);
            check(&got, b"");
            assert_ne!(ended, Ended::Open);
        }
        assert!(a.is_reset(port), "{port}");
        peer.call_for(port);
        for call in peer.calls_for(port) {
            got_no_payload(&call);
        }
    }
    eventually(SOON, "busy is told from no", || a.ends("busy") == 4);
    eventually(SOON, "nobody is inside", || {
        a.count("/connections/live") == 0
    });
    eventually(SOON, "no socket is left", || {
        a.snproxy().descriptors() <= descriptors + 1
    });
}
