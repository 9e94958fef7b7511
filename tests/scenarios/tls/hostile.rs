//! Hostile TLS clients, at a port where TLS ends and at PORT: limits hold, and others are served meanwhile.

use super::{Ground, NAME, PORT, SOON};
use snproxy_tests::{
    Conn, Ended, Figure, Host, Issued, Net, PROXY_PORT, Pod, TlsConn, eventually, print_figure,
};
use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Handshakes at once that go on byte by byte.
const SLOW: usize = 2000;
/// What all of them together may take.
const MEMORY: u64 = 64 << 20;
/// Until the first answer to somebody who behaves, in a debug build beside two thousand who do not.
const ANSWER: Duration = Duration::from_secs(3);

/// Opens `SLOW` connections and sends a byte of `hello` over each, and another one, until all are ended or `stop` is set.
fn dribble(to: SocketAddr, hello: &[u8], stop: &AtomicBool) {
    let conns: Vec<Conn> = (0..SLOW)
        .filter_map(|_| Conn::connect(to, SOON).ok())
        .collect();
    for byte in hello.chunks(1) {
        for conn in &conns {
            use std::io::Write;
            // Those that were ended meanwhile take none.
            let _ = conn.stream().write(byte);
        }
        if stop.load(Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    while !stop.load(Relaxed) {
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends slow handshakes to `to` while `served` is measured, until `over`.
fn beside_slow_ones(
    net: &Net,
    host: &Host,
    to: SocketAddr,
    issued: &Issued,
    served: impl Fn() + Sync,
    over: impl Fn() -> bool,
) {
    let hello = issued.client_hello(NAME);
    let (stop, before) = (AtomicBool::new(false), host.rss());
    let mut times = Vec::new();
    thread::scope(|scope| {
        let slow = scope.spawn(|| net.client().run(|| dribble(to, &hello, &stop)));
        eventually(SOON, "they are there", || {
            host.count("/connections/live") + host.count("/connections/waiting") >= 200
        });
        let mut most = 0;
        let start = Instant::now();
        while times.len() < 40 && start.elapsed() < SOON {
            let start = Instant::now();
            served();
            times.push(start.elapsed());
            most = most.max(host.rss());
        }
        print_figure(
            &format!("memory for {SLOW} slow TLS handshakes at {to}"),
            Figure::Bytes(most.saturating_sub(before)),
            Figure::Bytes(MEMORY),
        );
        assert!(most.saturating_sub(before) < 2 * MEMORY);
        eventually(2 * SOON, "all of them are ended", &over);
        stop.store(true, Relaxed);
        slow.join().expect("the slow ones");
    });
    times.sort();
    for (what, time) in [
        ("median", times[times.len() / 2]),
        ("worst", times[times.len() - 1]),
    ] {
        print_figure(
            &format!("first answer beside {SLOW} slow TLS handshakes at {to}, {what}"),
            Figure::Time(time),
            Figure::Time(ANSWER),
        );
    }
}

#[test]
fn two_thousand_slow_handshakes_of_clients_hold_up_nobody() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.conf("TLSTIMEOUT", "4s").start();
    let served = || {
        let conn = ground.tls();
        conn.send("hello\n");
        assert_eq!(conn.read(6), b"hello\n");
    };
    served();
    let descriptors = host.snproxy().descriptors();
    let over = || host.ends("tls_timeout") + host.ends("tls_client") >= SLOW as u64;
    let to = host.port(PORT);
    beside_slow_ones(&ground.net, host, to, &ground.issued, served, over);
    eventually(SOON, "nothing is left of them", || {
        host.snproxy().descriptors() <= descriptors + 1
    });
    assert!(
        host.ends("tls_timeout") >= SLOW as u64 / 2,
        "{:#}",
        host.status()
    );
}

#[test]
fn two_thousand_slow_handshakes_of_peers_hold_up_nobody() {
    let ground = Ground::on(Net::hosts(["a", "b"]));
    let (a, b) = (ground.net.host("a"), ground.net.host("b"));
    ground.issued.write_folder(&b.folder().join("tls"));
    b.pod(30000, Pod::answering("b"));
    b.mappings("1024:30000:10000:false\n").conf("PEERS", "any");
    a.mappings("");
    for host in [a, b] {
        host.conf("PEERTLS", "tls").start();
    }
    eventually(SOON, "b is found", || a.count("/hosts/up") == 1);
    let served = || assert_eq!(a.open(PORT).greeting(), "b");
    served();
    let over = || {
        let ended = ["tls_timeout", "tls_client", "unused", "request"];
        ended.map(|end| b.ends(end)).iter().sum::<u64>() >= SLOW as u64
    };
    let to = b.port(PROXY_PORT);
    beside_slow_ones(&ground.net, b, to, &ground.issued, served, over);
    served();
}

/// What no client of good will sends, and whether more of it would be answered.
fn nasty(hello: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let record = |kind: u8, body: &[u8]| {
        let len = u16::try_from(body.len()).expect("a length");
        [&[kind, 3, 1][..], &len.to_be_bytes(), body].concat()
    };
    let body = &hello[5..];
    let long = [&[1, 0xff, 0xff, 0xff][..], &body[4..]].concat();
    let mut many = record(22, &long);
    for _ in 0..20 {
        many.extend(record(22, &[0; 16_000]));
    }
    // One byte more than a reader of handshakes keeps, and all of it.
    let mut whole = vec![1, 0, 0xff, 0xff];
    whole.resize(4 * 16_384, 0);
    let full: Vec<u8> = whole
        .chunks(16_384)
        .flat_map(|part| record(22, part))
        .collect();
    let noise: Vec<u8> = (0..40_000_u32)
        .map(|i| (i * 31 + i / 7).to_le_bytes()[0])
        .collect();
    vec![
        ("garbage", noise),
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        (
            "a record larger than any may be",
            [&[22, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat(),
        ),
        ("a greeting of 16 MiB", many),
        ("a greeting of 64 KiB", full),
        ("an empty record, and again", record(22, &[]).repeat(1000)),
        ("payload before the handshake", record(23, &[7; 100])),
        ("an alert first", record(21, &[2, 40])),
        ("the greeting twice", hello.repeat(2)),
        (
            "SSL 2",
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".to_vec(),
        ),
        ("half a greeting", hello[..hello.len() / 2].to_vec()),
        ("a greeting, and no more", hello.to_vec()),
    ]
}

#[test]
fn what_is_no_handshake_ends_and_leaves_nothing() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.conf("TLSTIMEOUT", "2s")
        .conf("PEERS", "any")
        .conf("PEERTLS", "tls")
        .start();
    let (hello, before) = (ground.issued.client_hello(NAME), host.rss());
    for port in [PORT, PROXY_PORT] {
        for (what, bytes) in nasty(&hello) {
            for is_closed in [true, false] {
                let conn = host.open(port);
                conn.offer(&bytes, Duration::from_millis(500));
                if is_closed {
                    conn.half_close();
                }
                let ended = conn.rest(SOON).1;
                assert_ne!(ended, Ended::Open, "{what} at {port}, closed: {is_closed}");
            }
        }
        assert_eq!(
            ground.tls().half_close().ended(),
            snproxy_tests::TlsEnded::Closed
        );
    }
    // In pieces of one byte each, which are records of their own, it is a greeting all the same.
    let pieces = hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]);
    let conn = host.open(PORT);
    conn.send(pieces.collect::<Vec<u8>>());
    assert_eq!(conn.read(1), [22], "it is answered");
    drop(conn);
    eventually(SOON, "nothing is left", || {
        host.count("/connections/live") + host.count("/connections/waiting") == 0
    });
    print_figure(
        "memory for what is no handshake",
        Figure::Bytes(host.rss().saturating_sub(before)),
        Figure::Bytes(MEMORY),
    );
}

#[test]
fn a_chain_of_a_thousand_certificates_is_not_looked_at() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.start();
    let before = host.rss();
    for _ in 0..20 {
        let config = ground.issued.client_with_chain(1000);
        // In TLS 1.3 the client hears of it only later.
        if let Ok(conn) = TlsConn::connect(host.open(PORT), config, NAME) {
            assert_ne!(conn.ended(), snproxy_tests::TlsEnded::Open);
        }
    }
    eventually(SOON, "they are counted", || {
        host.ends("tls_client") + host.ends("client") >= 20
    });
    print_figure(
        "memory for twenty chains of 1,000 certificates",
        Figure::Bytes(host.rss().saturating_sub(before)),
        Figure::Bytes(MEMORY),
    );
    assert_eq!(
        ground.tls().half_close().ended(),
        snproxy_tests::TlsEnded::Closed
    );
}

#[test]
fn renegotiation_is_refused() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.start();
    let script = format!(
        "(sleep 1; echo R; sleep 2; echo still here; sleep 1) | timeout 10 openssl s_client -connect {} -servername {NAME} \
         -CAfile tls/ca.pem -cert tls/cert.pem -key tls/key.pem -tls1_2 2>&1",
        host.port(PORT)
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(host.folder());
    let told = ground.net.client().namespace().output(&mut command);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(text.contains("RENEGOTIATING"), "{text}");
    assert!(text.contains("no renegotiation"), "{text}");
    eventually(SOON, "it is gone", || host.count("/connections/live") == 0);
    assert_eq!(
        ground.tls().half_close().ended(),
        snproxy_tests::TlsEnded::Closed
    );
}
