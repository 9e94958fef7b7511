//! What goes in at one end comes out at the other: bytes, FIN and RST, and no more held than must be.

use rustix::process::Signal;
use snproxy_tests::{Conn, Ended, Figure, Guest, Host, Net, Pod, eventually, print_figure};
use std::{
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(500);

/// Bytes in which no stretch repeats within reach of a buffer (xorshift).
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = std::iter::repeat_with(next).take(count.div_ceil(8));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(count);
    bytes
}

/// A host that maps 1024 to this pod without, and 1025 with a PROXY header.
fn one_pod(net: &Net, pod: Pod) -> (&Host, Pod) {
    let host = net.host("host");
    let pod = host.pod(30000, pod);
    host.mappings("1024:30000:100:false\n1025:30000:100:true\n");
    (host, pod)
}

#[test]
fn forty_mebibytes_return_after_a_half_close() {
    let net = Net::one();
    let (host, pod) = one_pod(&net, Pod::returning());
    host.start();

    let sent = noise(40 << 20, 1);
    let conn = host.open(1024);
    let got = conn.send(&sent).half_close().read_to_end();
    assert!(got == sent, "{} bytes came back", got.len());
    assert_eq!(pod.visit(0).received(), 40 << 20);
    assert_eq!(pod.visit(0).wait_for_end(), Ended::Eof);
    eventually(SOON, "a clean end", || host.ends("clean") == 1);
    assert!(host.steered() >= 1);
}

#[test]
fn both_directions_flow_at_once() {
    let net = Net::one();
    let (host, _) = one_pod(&net, Pod::echo());
    host.start();

    thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || {
                let sent = noise(8 << 20, seed);
                let conn = host.open(1024);
                let got = thread::scope(|scope| {
                    scope.spawn(|| conn.send(&sent).half_close());
                    conn.read_to_end()
                });
                assert!(got == sent, "{} bytes came back", got.len());
            });
        }
    });
}

#[test]
fn a_pod_that_ends_first_is_still_written_to() {
    let net = Net::one();
    let (host, pod) = one_pod(&net, Pod::answering_once("bye"));
    host.start();

    let conn = host.open(1024);
    assert_eq!(conn.rest(SOON), (b"bye\n".to_vec(), Ended::Eof));
    let sent = noise(1 << 20, 1);
    conn.send(&sent).half_close();
    assert_eq!(pod.visit(0).wait_for_end(), Ended::Eof);
    assert_eq!(pod.visit(0).received(), 1 << 20);
    eventually(SOON, "a clean end", || host.ends("clean") == 1);
}

#[test]
fn a_reset_of_the_client_arrives_as_a_reset() {
    let net = Net::one();
    // One that is read, one that has sent FIN before, one that does not read.
    let (host, reading) = one_pod(&net, Pod::recording());
    let ended = host.pod(30001, Pod::answering_once("bye"));
    let stuck = host.pod(
        30002,
        Pod::serving(|guest| {
            guest.wait_for_end(None);
            guest.read_all();
        }),
    );
    host.mappings(
        "1024:30000:9:false\n1025:30001:9:false\n1026:30002:9:false\n1027:30000:9:true\n",
    )
    .start();

    let conn = host.open(1024);
    conn.send("abort");
    assert_eq!(reading.visit(0).wait_for_bytes(5), b"abort");
    conn.reset();
    assert_eq!(reading.visit(0).wait_for_end(), Ended::Reset);

    let conn = host.open(1025);
    assert_eq!(conn.rest(SOON), (b"bye\n".to_vec(), Ended::Eof));
    conn.reset();
    assert_eq!(ended.visit(0).wait_for_end(), Ended::Reset);

    // The proxy holds bytes for the pod, and waits for room.
    let conn = host.open(1026);
    conn.offer(&vec![0; 64 << 20], MOMENT);
    conn.reset();
    eventually(SOON, "the reset passes what waits", || {
        stuck.visit(0).ended() == Some(Ended::Reset)
    });

    // It has not said anything yet, and a header is waited for.
    let conn = host.open(1027);
    reading.visit(1);
    conn.reset();
    assert_eq!(reading.visit(1).wait_for_end(), Ended::Reset);
    eventually(SOON, "four ends", || host.ends("client") == 4);
}

#[test]
fn a_reset_of_the_pod_arrives_as_a_reset() {
    let net = Net::one();
    let (host, _) = one_pod(&net, Pod::resetting());
    host.pod(30001, Pod::serving(Guest::reset_on_close));
    host.pod(
        30002,
        Pod::serving(|guest| {
            let _ = guest.send(b"last words\n");
            guest.read_all();
            guest.reset_on_close();
        }),
    );
    host.mappings(
        "1024:30000:9:false\n1025:30001:9:false\n1026:30001:9:true\n1027:30002:9:false\n",
    )
    .start();

    assert_eq!(host.open(1024).send("x").ended(), Ended::Reset);
    // At once, while the client is silent, also where a header is waited for.
    assert!(host.is_reset(1025) && host.is_reset(1026));
    // After the client's FIN: what came before the reset is there.
    let conn = host.open(1027);
    assert_eq!(conn.line(), "last words");
    assert_eq!(conn.half_close().ended(), Ended::Reset);
    // A reset that comes before the dial is over is the dial's.
    let ends = || host.ends("upstream") + host.ends("no_upstream");
    eventually(SOON, "four ends", || ends() == 4);
    assert_eq!(host.count("/connections/live"), 0);
}

#[test]
fn a_pod_that_does_not_read_stops_its_client() {
    let net = Net::one();
    let (host, _) = one_pod(&net, Pod::silent());
    host.start();
    let before = host.rss();

    let offered = vec![0x5a; 256 << 20];
    let conn = host.open(1024);
    let taken = conn.offer(&offered, MOMENT) as u64;
    print_figure(
        "taken of 256 MiB for a pod that does not read",
        Figure::Bytes(taken),
        Figure::Bytes(20 << 20),
    );
    print_figure(
        "memory held for it",
        Figure::Bytes(host.rss().saturating_sub(before)),
        Figure::Bytes(2 << 20),
    );
    conn.reset();
    eventually(SOON, "the connection is gone", || {
        host.count("/connections/live") == 0
    });
}

#[test]
fn a_client_that_does_not_read_stops_its_pod() {
    const CHUNK: usize = 64 << 10;
    let net = Net::one();
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let (host, _) = one_pod(
        &net,
        Pod::serving(move |guest| {
            let chunk = vec![0x5a; CHUNK];
            for _ in 0..(256 << 20) / CHUNK {
                if guest.send(&chunk).is_err() {
                    break;
                }
                count.fetch_add(CHUNK as u64, Relaxed);
            }
        }),
    );
    host.start();
    let before = host.rss();

    let conn = host.open(1024);
    let (mut last, mut since) = (0, Instant::now());
    eventually(3 * SOON, "the pod is stopped", || {
        let now = sent.load(Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        now > 0 && since.elapsed() > MOMENT
    });
    print_figure(
        "sent of 256 MiB to a client that does not read",
        Figure::Bytes(last),
        Figure::Bytes(20 << 20),
    );
    print_figure(
        "memory held for such a client",
        Figure::Bytes(host.rss().saturating_sub(before)),
        Figure::Bytes(2 << 20),
    );
    // It reads on, and misses nothing.
    let (got, ended) = conn.rest(SOON);
    assert_eq!((got.len(), ended), (256 << 20, Ended::Eof));
}

#[test]
fn an_idle_connection_ends_by_reset_and_a_busy_one_does_not() {
    const IDLE: Duration = Duration::from_secs(1);
    let net = Net::one();
    let (host, pod) = one_pod(&net, Pod::echo());
    host.conf("IDLETIMEOUT", "1s").start();

    let busy = host.open(1024);
    let idle = host.open(1024);
    idle.send("x");
    assert_eq!(idle.read(1), b"x");
    let start = Instant::now();
    let ended = thread::scope(|scope| {
        let ended = scope.spawn(|| (idle.ended(), start.elapsed()));
        // A byte each way now and then, for longer than the limit.
        while start.elapsed() < 3 * IDLE {
            busy.send("x");
            assert_eq!(busy.read(1), b"x");
            thread::sleep(IDLE / 5);
        }
        ended.join().expect("join")
    });
    assert_eq!(ended.0, Ended::Reset);
    print_figure(
        "idle connection reset, later than IDLETIMEOUT",
        Figure::Time(ended.1.saturating_sub(IDLE)),
        Figure::Time(Duration::from_millis(100)),
    );
    assert!(
        ended.1 + Duration::from_millis(50) >= IDLE,
        "after {:?}",
        ended.1
    );
    // At once: from here on it is idle as well.
    assert_eq!(busy.half_close().ended(), Ended::Eof);
    assert_eq!(pod.visit(1).wait_for_end(), Ended::Reset);
    assert_eq!(host.ends("idle"), 1);
}

#[test]
fn clients_that_reset_while_they_wait_to_be_accepted_harm_nothing() {
    let net = Net::one();
    let (host, pod) = one_pod(&net, Pod::answering("a"));
    host.start();

    host.signal(Signal::STOP);
    // The kernel takes them all; nobody accepts.
    let waiting: Vec<Conn> = (0..40).map(|_| host.open(1024)).collect();
    let (leaving, staying) = waiting
        .into_iter()
        .enumerate()
        .partition::<Vec<_>, _>(|(at, _)| at % 2 == 0);
    for (_, conn) in leaving {
        conn.reset();
    }
    host.signal(Signal::CONT);

    for (_, conn) in &staying {
        assert_eq!(conn.greeting(), "a");
    }
    assert_eq!(host.open(1024).greeting(), "a");
    drop(staying);
    eventually(SOON, "all are gone", || {
        host.count("/connections/live") == 0
    });
    assert!(pod.accepted() >= 21);
    assert!(host.ends("clean") == 21, "{:#}", host.status());
    assert!(host.count("/connections/total") >= 21);
}

#[test]
fn a_pod_whose_fin_waits_behind_bytes_is_read_to_the_end() {
    let net = Net::one();
    let (host, _) = one_pod(
        &net,
        Pod::serving(|guest| {
            let _ = guest.send(&noise(4 << 20, 7));
            let _ = guest.stream().shutdown(Shutdown::Write);
            guest.read_all();
        }),
    );
    host.start();

    // The client has ended its side before it reads: both FINs and the bytes pass each other.
    let conn = host.open(1025);
    let got = conn.half_close().read_to_end();
    assert!(got == noise(4 << 20, 7), "{} bytes", got.len());
    eventually(SOON, "a clean end", || host.ends("clean") == 1);
}
