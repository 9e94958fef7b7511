//! Peers that are too many, too silent, too slow, too greedy: others are served all the same.

use super::{FALSE, LINE, MOMENT, SOON, answer, check, no, one_pod, question, two_hosts};
use snproxy_tests::{
    Conn, Ended, Figure, Host, Net, PROXY_PORT, Pod, eventually, print_figure, request_for,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

/// Connections of one source, and of all, that may say nothing.
const SILENT_OF_ONE: usize = 16;
const SILENT_OF_ALL: usize = 4096;
/// Until then what they say may be under way.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// What a connection with work takes beside those that make trouble.
const SERVED: Figure = Figure::Time(Duration::from_millis(50));

/// A peer with work is served, and a client.
#[track_caller]
fn others_are_served(a: &Host, b: &Host, trouble: &str) {
    let start = Instant::now();
    let (got, ended) = answer(&b.call(a), request_for(1024));
    let took = start.elapsed();
    assert!(got.starts_with(FALSE), "{}", got.escape_ascii());
    assert_eq!(ended, Ended::Eof);
    assert!(a.open(1024).half_close().ended() == Ended::Eof);
    let name = format!("peer served beside {trouble}");
    print_figure(&name, Figure::Time(took), SERVED);
}

#[test]
fn sixteen_of_a_source_may_be_silent_and_the_oldest_makes_room() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    a.conf("PEERS", "any").start();

    let other = net.client().open(a.port(PROXY_PORT));
    let in_turn = || {
        // Those who come within a millisecond have come at once.
        thread::sleep(MOMENT / 100);
        b.call(a)
    };
    let mut silent: Vec<_> = (0..SILENT_OF_ONE).map(|_| in_turn()).collect();
    thread::sleep(UNDER_WAY + MOMENT / 2);
    // One that works is none of them.
    others_are_served(a, b, "sixteen silent");
    assert!(silent.iter().all(|conn| conn.stays_quiet(MOMENT / 50)));

    silent.extend([(); 3].map(|()| b.call(a)));
    for conn in silent.drain(..3) {
        assert_eq!(conn.rest(SOON), no());
    }
    assert!(silent.iter().all(|conn| conn.stays_quiet(MOMENT / 50)));
    assert!(
        other.stays_quiet(MOMENT),
        "another source has room of its own"
    );
    eventually(SOON, "three who asked for nothing", || {
        a.ends("unused") == 3
    });
    // Each of them may still ask.
    for conn in silent.iter().chain([&other]) {
        assert!(answer(conn, request_for(1024)).0.starts_with(FALSE));
    }
}

#[test]
fn lines_that_are_under_way_are_not_taken_for_silence() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    a.mappings("1024:30000:900:false\n").start();

    // As many clients at once make their host connect, and only then write.
    let to = a.port(PROXY_PORT);
    let calls: Vec<Conn> = b.namespace().run(|| {
        (0..500)
            .map(|_| Conn::connect(to, SOON).expect("connect"))
            .collect()
    });
    for conn in &calls {
        conn.send(request_for(1024));
    }
    for conn in &calls {
        assert_eq!(conn.line(), "SENDPROXY=false");
    }
}

/// Lets the net's client be a whole network, and gives the first addresses of it.
fn many_sources(net: &Net, a: &Host) -> impl Iterator<Item = SocketAddr> + Clone {
    net.client()
        .namespace()
        .ip("route add local 10.78.0.0/16 dev lo");
    a.namespace().ip("route add 10.78.0.0/16 via 10.77.0.101");
    (1..=250)
        .flat_map(|third| (1..=250).map(move |last| Ipv4Addr::new(10, 78, third, last)))
        .map(|source| (source, 0).into())
}

#[test]
fn thousands_of_silent_ones_from_many_sources_cost_little() {
    const FIRST: usize = 2000;
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    let sources = many_sources(&net, a);
    a.conf("PEERS", "hosts 10.78.0.0/16").start();
    others_are_served(a, b, "nobody");
    let quiet = || a.count("/connections/live") + a.count("/connections/waiting") == 0;
    eventually(SOON, "they are gone", quiet);
    let (memory, descriptors) = (a.rss(), a.snproxy().descriptors());

    let to = a.port(PROXY_PORT);
    let open = |from: usize, count: usize| -> Vec<Conn> {
        let each = sources
            .clone()
            .flat_map(|source| [source; SILENT_OF_ONE])
            .skip(from)
            .take(count);
        let conns = || each.map(|source| Conn::connect_from(source, to, SOON).expect("connect"));
        net.client().run(|| conns().collect())
    };
    let mut silent = open(0, FIRST);
    let live = |count: usize| {
        let what = format!("{count} are silent");
        eventually(SOON, &what, || {
            a.count("/connections/waiting") == count as u64
        });
    };
    live(FIRST);
    others_are_served(a, b, "2,000 silent");
    print_figure(
        "memory of 2,000 silent peers",
        Figure::Bytes(a.rss().saturating_sub(memory)),
        Figure::Bytes(16 << 20),
    );
    assert_eq!(a.ends("unused"), 0, "all of them may wait");

    // As many as there may be, and a few more: the first ones have waited longest.
    silent.extend(open(FIRST, SILENT_OF_ALL + 20 - FIRST));
    live(SILENT_OF_ALL);
    // Those who came at once may be seated in another order, but not behind those who came later.
    let ended = |conn: &&Conn| {
        conn.stream().set_nonblocking(true).expect("nonblocking");
        matches!(conn.stream().peek(&mut [0]), Ok(0))
    };
    eventually(SOON, "the oldest are closed", || {
        silent[..FIRST].iter().filter(ended).count() == 20
    });
    assert_eq!(a.ends("unused"), 20);
    others_are_served(a, b, "4,096 silent");

    drop(silent);
    eventually(SOON, "all are gone", quiet);
    eventually(SOON, "descriptors as before", || {
        a.snproxy().descriptors() <= descriptors
    });
    assert_eq!(a.ends("unused"), SILENT_OF_ALL as u64 + 20);
}

#[test]
fn slow_lines_end_and_hold_up_nobody() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    let sources = many_sources(&net, a);
    a.conf("PEERS", "hosts 10.78.0.0/16").start();

    let to = a.port(PROXY_PORT);
    let slow: Vec<Conn> = net.client().run(|| {
        let each = sources.flat_map(|source| [source; SILENT_OF_ONE]).take(300);
        each.map(|source| Conn::connect_from(source, to, SOON).expect("connect"))
            .collect()
    });
    for conn in &slow {
        conn.send("P");
    }
    others_are_served(a, b, "300 slow lines");
    let start = Instant::now();
    for piece in ["ROXY", " TCP4", " 1.2.3.4"] {
        thread::sleep(LINE / 6);
        for conn in &slow {
            conn.send(piece);
        }
    }
    others_are_served(a, b, "300 longer lines");
    for conn in &slow {
        assert_eq!(conn.rest(2 * LINE), no());
    }
    print_figure(
        "300 slow lines ended, all after",
        Figure::Time(start.elapsed()),
        Figure::Time(LINE + MOMENT),
    );
    eventually(SOON, "an end for each", || a.ends("request") == 300);
    eventually(SOON, "all are gone", || a.count("/connections/live") == 0);
}

#[test]
fn half_lines_of_one_source_are_as_few_as_its_silent_ones() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    a.start();
    let begun: Vec<Conn> = (0..SILENT_OF_ONE + 24).map(|_| b.call(a)).collect();
    for conn in &begun {
        conn.send("PROXY ");
    }
    for conn in &begun {
        assert_eq!(conn.rest(2 * LINE), no());
    }
    eventually(SOON, "an end for each", || {
        (a.ends("unused"), a.ends("request")) == (24, SILENT_OF_ONE as u64)
    });
    others_are_served(a, b, "what is left of forty half lines");
}

#[test]
fn paired_peers_that_never_read_stop_their_pods_and_nobody_else() {
    const PEERS: usize = 8;
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    let pouring = a.pod(
        30001,
        Pod::serving(|guest| {
            let chunk = vec![0x5a; 64 << 10];
            // 256 MiB, were they read.
            for _ in 0..4096 {
                if guest.send(&chunk).is_err() {
                    break;
                }
            }
        }),
    );
    a.mappings("1024:30000:9:false\n1025:30001:9:true\n")
        .start();
    let memory = a.rss();

    let greedy: Vec<_> = (0..PEERS).map(|_| b.call(a)).collect();
    for conn in &greedy {
        conn.send(request_for(1025));
    }
    eventually(SOON, "all are paired", || pouring.accepted() == PEERS);
    thread::sleep(2 * MOMENT);
    others_are_served(a, b, "eight that never read");
    print_figure(
        "memory for eight that never read",
        Figure::Bytes(a.rss().saturating_sub(memory)),
        Figure::Bytes(4 << 20),
    );
    assert_eq!(pouring.inside(), PEERS);
    // What was poured for them is theirs when they read.
    check(&greedy[0].read(16), b"SENDPROXY=true\r\n");
    assert_eq!(greedy[0].read(1 << 20), vec![0x5a; 1 << 20]);
    for conn in greedy {
        conn.reset();
    }
    eventually(SOON, "all are gone", || a.count("/connections/live") == 0);
    eventually(SOON, "the pods hear of it", || pouring.inside() == 0);
}

#[test]
fn a_peer_that_asks_without_end_and_never_listens_is_stopped() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    a.start();
    others_are_served(a, b, "nobody at all");
    let memory = a.rss();

    let conn = b.call(a);
    let questions = question(1024).repeat(1_000_000);
    let taken = conn.offer(questions.as_bytes(), 2 * MOMENT);
    print_figure(
        "questions taken of one who does not listen",
        Figure::Bytes(taken as u64),
        Figure::Bytes(24 << 20),
    );
    print_figure(
        "memory for questions without end",
        Figure::Bytes(a.rss().saturating_sub(memory)),
        Figure::Bytes(1 << 20),
    );
    others_are_served(a, b, "questions without end");
    conn.reset();
    eventually(SOON, "it is gone", || a.count("/connections/live") == 0);
}

#[test]
fn silent_peers_leave_descriptors_for_those_with_work() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    a.limit_nofile(64).start();

    let silent: Vec<_> = (0..120).map(|_| b.call(a)).collect();
    a.snproxy().wait_for_line(SOON, "accept: resting");
    let took = eventually(2 * SOON, "sixteen are left", || {
        a.count("/connections/total") >= 120
            && a.count("/connections/waiting") == SILENT_OF_ONE as u64
    });
    print_figure(
        "120 silent come down to sixteen by 64 descriptors",
        Figure::Time(took),
        Figure::Time(6 * UNDER_WAY),
    );
    others_are_served(a, b, "120 silent and 64 descriptors");
    assert_eq!(a.ends("unused"), 120 - SILENT_OF_ONE as u64);
    drop(silent);
}

#[test]
fn peers_that_come_and_go_at_once_leave_nothing() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    a.start();
    others_are_served(a, b, "nothing yet");
    eventually(SOON, "they are gone", || a.count("/connections/live") == 0);
    let descriptors = a.snproxy().descriptors();

    let to = a.port(PROXY_PORT);
    let begun = [
        &b""[..],
        b"PROXY TCP4 ",
        request_for(1024).as_bytes(),
        request_for(2000).as_bytes(),
    ]
    .map(<[u8]>::to_vec);
    b.namespace().run(|| {
        for round in 0..400 {
            let conn = Conn::connect(to, SOON).expect("connect");
            conn.send(&begun[round % begun.len()]);
            if round % 8 < 4 {
                conn.reset();
            }
        }
    });
    others_are_served(a, b, "those that come and go");
    eventually(SOON, "all are gone", || a.count("/connections/live") == 0);
    eventually(SOON, "descriptors as before", || {
        a.snproxy().descriptors() <= descriptors
    });
}

#[test]
fn a_drain_waits_for_no_peer_that_has_asked_for_nothing() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::echo());
    a.start();

    let silent: Vec<_> = (0..3).map(|_| b.call(a)).collect();
    let asked = b.call(a);
    asked.send(question(1024));
    assert_eq!(asked.line(), "PODS=1");
    eventually(SOON, "all are in", || a.count("/connections/waiting") == 4);
    assert_eq!(a.count("/connections/live"), 0, "nobody is served");
    let start = Instant::now();
    a.stop();
    print_figure(
        "drain beside silent peers",
        Figure::Time(start.elapsed()),
        Figure::Time(2 * UNDER_WAY),
    );
    for conn in silent.iter().chain([&asked]) {
        assert_eq!(conn.rest(SOON).0, b"");
    }
}
