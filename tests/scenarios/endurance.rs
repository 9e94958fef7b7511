//! Many reloads and many hostile connections: the proxy loses nothing, and its memory stays flat.
//!
//! `SNPROXY_RELOADS` and `SNPROXY_HOSTILE` set how many; `cargo xtask endurance` sets both.

use snproxy_tests::{
    Attempt, Ca, Ended, Ending, Figure, Host, Net, Pod, eventually, print_figure, request_for,
};
use socket2::SockRef;
use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);
/// Memory that may grow from the first third of a run to its end.
const GROWTH: u64 = 2 << 20;
/// Ports that hostile clients open: echo pods without and with a PROXY header, TLS, a required
/// header, PORT, and metrics.
const PLAIN: u16 = 1024;
const SEND_PROXY: u16 = 1025;
const TLS: u16 = 1026;
const REQUIRED: u16 = 1027;
const METRICS: u16 = 32_000;
const NAME: &str = "pod.example";

fn count(variable: &str, default: u64) -> u64 {
    let Ok(value) = env::var(variable) else {
        return default;
    };
    let count = value.parse();
    count.unwrap_or_else(|error| panic!("{variable}={value}: {error}"))
}

/// Prints how much memory the proxy took more than after the first third of the run.
fn print_growth(what: &str, host: &Host, third: u64) {
    print_figure(
        &format!("memory growth over the last two thirds of {what}"),
        Figure::Bytes(host.rss().saturating_sub(third)),
        Figure::Bytes(GROWTH),
    );
}

#[test]
fn reloads_lose_no_connection_and_keep_memory_flat() {
    let reloads = count("SNPROXY_RELOADS", 150);
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering_once("a"));
    host.mappings("1024:30000:900:false\n").start();
    let is_served = |port| {
        matches!(host.attempt(port), Attempt::Connected(conn)
            if conn.rest(SOON) == (b"a\n".to_vec(), Ended::Eof))
    };

    let over = AtomicBool::new(false);
    let served = AtomicU64::new(0);
    let load = || {
        while !over.load(Relaxed) {
            let number = served.fetch_add(1, Relaxed);
            assert!(is_served(1024), "connection {number}");
            sleep(Duration::from_millis(20));
        }
    };
    let mut third = 0;
    thread::scope(|scope| {
        let ending = Ending(&over);
        scope.spawn(load);
        for reload in 0..reloads {
            if reload == reloads / 3 {
                third = host.rss();
            }
            let added = 2000 + u16::try_from(reload % 1000).expect("below 1000");
            host.mappings(&format!("1024:30000:900:false\n{added}:30000:9:false\n"));
            let what = format!("reload {reload}: {added} is served");
            eventually(SOON, &what, || is_served(added));
        }
        drop(ending);
    });

    assert!(host.count("/generation") > reloads);
    assert!(!host.log().contains("panicked"), "{}", host.log());
    let served = served.load(Relaxed);
    print_growth(
        &format!("{reloads} reloads, {served} connections served"),
        host,
        third,
    );
}

/// First bytes that clients of each kind send, before they are mutated.
fn vectors(hello: Vec<u8>) -> Vec<Vec<u8>> {
    let v2_signature = b"\r\n\r\n\0\r\nQUIT\n";
    // PROXY over TCP4 with a TLV that claims a verified client certificate.
    let v2 = [
        v2_signature.as_slice(),
        b"\x21\x11\x00\x1c\x01\x02\x03\x04\x05\x06\x07\x08\x10\x00\x20\x00",
        b"\x20\x00\x0d\x07\0\0\0\0\x22\0\x05admin",
    ];
    let local = [v2_signature.as_slice(), b"\x20\x00\x00\x00"];
    vec![
        hello,
        v2.concat(),
        local.concat(),
        b"PROXY TCP4 192.0.2.7 10.77.0.1 4711 1024\r\nhello".to_vec(),
        b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 1024\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        request_for(PLAIN).into_bytes(),
        request_for(0).into_bytes(),
        b"GET /metrics HTTP/1.1\r\nhost: 10.77.0.1\r\naccept: text/plain\r\n\r\n".to_vec(),
        b"\x16\x03\x01\xff\xff\x01\0\xff\xfb".to_vec(),
        Vec::new(),
    ]
}

/// Changes a few bytes, cuts the end off, repeats a part, or does none of these.
fn mutate(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(..4) {
        let at = random.usize(..=bytes.len());
        match random.u8(..5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            2 => {
                let part = bytes[..at].to_vec();
                bytes.extend(part);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.u8(..);
                }
            }
        }
    }
}

/// Opens one connection, sends what a hostile client sends, and leaves in one of three ways.
fn attack(to: SocketAddr, bytes: &[u8], random: &mut fastrand::Rng) {
    let Ok(mut stream) = TcpStream::connect_timeout(&to, SOON) else {
        return;
    };
    let linger = stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .and_then(|()| SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
    linger.expect("socket options");
    let cut = random.usize(..=bytes.len());
    // The proxy may reset at any byte.
    let _ = stream.write_all(&bytes[..cut]);
    if random.u8(..4) == 0 {
        thread::yield_now();
    }
    let _ = stream.write_all(&bytes[cut..]);
    match random.u8(..8) {
        0 => {
            let _ = stream.read(&mut [0; 256]);
        }
        1 => {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 256]);
        }
        _ => {}
    }
}

#[test]
fn hostile_connections_leave_nothing_behind() {
    const THREADS: u64 = 2;
    let hostile = count("SNPROXY_HOSTILE", 12_000);
    let net = Net::one();
    let host = net.host("host");
    let issued = Ca::new("the authority").issue(&[NAME]);
    issued.write_folder(&host.folder().join("tls"));
    host.pod(30000, Pod::echo());
    let admin = format!(
        "unix:{} {}",
        host.folder().join("admin.sock").display(),
        host.port(METRICS)
    );
    host.conf("ADMIN", &admin)
        .conf("PEERS", "any")
        .conf("CLIENTTLS", &format!("{TLS} tls"))
        .conf("CLIENTPROXY", &format!("{REQUIRED} require"))
        .mappings(&format!(
            "{PLAIN}:30000:9000:false\n{SEND_PROXY}:30000:9000:true\n\
             {TLS}:30000:9000:false\n{REQUIRED}:30000:9000:false\n"
        ))
        .start();
    let echoes = || {
        let conn = host.open(PLAIN);
        let line = conn.send("hello there\n").line();
        assert_eq!(line, "hello there");
        conn.half_close().ended() == Ended::Eof
    };
    assert!(echoes());
    eventually(SOON, "the first client has left", || {
        host.count("/connections/live") == 0
    });
    let descriptors = host.snproxy().descriptors();

    let vectors = vectors(issued.client_hello(NAME));
    let targets = [PLAIN, SEND_PROXY, TLS, REQUIRED, 32767, METRICS].map(|port| host.port(port));
    let seed = fastrand::u64(..1 << 32);
    let done = AtomicU64::new(0);
    let (mut third, mut served, start) = (0, 0_u64, Instant::now());
    thread::scope(|scope| {
        let attackers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (vectors, done) = (&vectors, &done);
                let client = net.client();
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed + thread);
                    client.run(|| {
                        for _ in 0..hostile / THREADS {
                            let to = targets[random.usize(..targets.len())];
                            let mut bytes = vectors[random.usize(..vectors.len())].clone();
                            mutate(&mut bytes, &mut random);
                            attack(to, &bytes, &mut random);
                            done.fetch_add(1, Relaxed);
                        }
                    });
                })
            })
            .collect();
        while attackers.iter().any(|attacker| !attacker.is_finished()) {
            assert!(echoes(), "seed {seed}");
            served += 1;
            if third == 0 && done.load(Relaxed) >= hostile / 3 {
                third = host.rss();
            }
            sleep(Duration::from_millis(50));
        }
    });

    let took = start.elapsed();
    eventually(2 * SOON, "all hostile clients have left", || {
        host.count("/connections/live") == 0
    });
    eventually(3 * SOON, "descriptors as before", || {
        host.snproxy().descriptors() <= descriptors
    });
    assert!(
        !host.log().contains("panicked"),
        "seed {seed}: {}",
        host.log()
    );
    let done = done.load(Relaxed);
    print_figure(
        &format!("{done} hostile connections, {served} clients served meanwhile"),
        Figure::Time(took),
        Figure::Time(Duration::from_millis(4 * hostile)),
    );
    print_growth(&format!("{hostile} hostile connections"), host, third);
}
