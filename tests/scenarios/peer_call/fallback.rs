//! Where one host says no, or says nothing, the next one is asked.

use super::{
    FALSE, LONGEST_LINE, MOMENT, SOON, TRUE, WAYS, check, got_no_payload, line_for, says_no,
};
use snproxy_tests::{Ended, Figure, Guest, Host, Net, Peer, Pod, eventually, print_figure};
use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};

/// A host that has not answered for this long is not waited for alone.
const STAGGER: Duration = Duration::from_millis(750);

/// Hosts `a`, whose snproxy calls, `b` and `c`, where these peers answer.
fn two_peers<'n>(net: &'n Net, first: &Peer, second: &Peer) -> &'n Host {
    net.host("b").peer(first.clone());
    net.host("c").peer(second.clone());
    net.host("a").start()
}

/// Lets `a` forget what the hosts answered: the order of the others changes from one turn to the next.
#[track_caller]
fn forget(a: &Host, turn: u16) {
    let (first, second) = if turn.is_multiple_of(2) {
        (3, 2)
    } else {
        (2, 3)
    };
    a.reloaded_after(|a| {
        a.hosts(&format!(
            "10.77.0.1:32767\n10.77.0.{first}:32767\n10.77.0.{second}:32767\n"
        ))
    });
}

#[test]
fn after_a_no_in_any_form_the_next_host_serves() {
    let net = Net::hosts(["a", "b", "c"]);
    let (bad, good) = (
        Peer::scripted(says_no),
        Peer::answering([FALSE, b"pod\n"].concat()),
    );
    let a = two_peers(&net, &bad, &good);

    for way in 0..WAYS {
        forget(a, way);
        // Ten ports apart, so that they all end in the same digit.
        let before = bad.calls().len();
        let ports = (2000 + way..).step_by(usize::from(WAYS));
        for port in ports.take(30).take_while(|_| bad.calls().len() == before) {
            let conn = a.open(port);
            conn.send("payload");
            assert_eq!(conn.greeting(), "pod", "way {way}");
            check(&good.call_for(port).wait_for_payload(7), b"payload");
            // The same client is named to everybody.
            check(good.call_for(port).line(), &line_for(&conn, a.port(port)));
        }
        assert!(bad.calls().len() > before, "way {way} was never met");
    }
    for call in bad.calls() {
        got_no_payload(&call);
        assert!(call.line().len() <= LONGEST_LINE);
    }
}

#[test]
fn busy_everywhere_is_told_from_nowhere() {
    let net = Net::hosts(["a", "b", "c"]);
    let busy = |all: bool| {
        Peer::scripted(move |port, guest: &Guest| {
            if all || port == 2000 {
                let _ = guest.send(b"BUSY\r\n");
            }
        })
    };
    let (sometimes, always) = (busy(false), busy(true));
    let a = two_peers(&net, &sometimes, &always);

    // Both hosts, and one of them.
    for (port, ends) in [(2000, 1), (2001, 2)] {
        assert!(a.is_reset(port));
        eventually(SOON, "busy", || a.ends("busy") == ends);
        assert_eq!(always.calls_for(port).len(), 1);
        assert_eq!(sometimes.calls_for(port).len(), 1, "{port}");
    }
    always.stop();
    assert!(a.is_reset(2002));
    eventually(SOON, "not busy", || {
        a.ends("not_mapped") + a.ends("no_upstream") == 1
    });
    assert_eq!(a.ends("busy"), 2);
}

#[test]
fn a_host_without_a_proxy_is_passed_over() {
    let net = Net::hosts(["a", "b", "c"]);
    let good = net
        .host("c")
        .peer(Peer::answering([FALSE, b"pod\n"].concat()));
    let a = net.host("a").start();
    for port in 2000..2020 {
        assert_eq!(a.open(port).greeting(), "pod");
    }
    assert_eq!(good.calls().len(), 20);
}

#[test]
fn a_silent_host_costs_a_moment_and_gets_no_payload() {
    let net = Net::hosts(["a", "b", "c"]);
    let (silent, good) = (Peer::silent(), Peer::answering([TRUE, b"pod\n"].concat()));
    let a = two_peers(&net, &silent, &good);

    // Until it is asked first; what is known of it is known of one port.
    let mut opened = (2000..2030).map(|port| {
        let conn = a.open(port);
        conn.send("payload");
        let start = Instant::now();
        assert_eq!(conn.greeting(), "pod");
        (port, start.elapsed())
    });
    let met = opened.find(|(port, _)| !silent.calls_for(*port).is_empty());
    let (port, took) = met.expect("30 connections, and not one of them was tried there");
    print_figure(
        "served beside a silent host",
        Figure::Time(took),
        Figure::Time(STAGGER + MOMENT),
    );
    assert!(took + MOMENT / 2 >= STAGGER, "after {took:?}");
    let call = silent.call(0);
    call.wait_for_end();
    check(&call.payload(), b"");
    let start = Instant::now();
    assert_eq!(a.open(port).greeting(), "pod");
    let took = start.elapsed();
    print_figure(
        "served once it is known",
        Figure::Time(took),
        Figure::Time(MOMENT / 10),
    );
}

#[test]
fn of_two_slow_hosts_the_first_that_answers_wins() {
    let net = Net::hosts(["a", "b", "c"]);
    // Whoever is asked first answers first, but not before the other was asked as well.
    let slow = |name: &'static str, wait: Duration| {
        Peer::scripted(move |_, guest: &Guest| {
            sleep(wait);
            let _ = guest.send(&[FALSE, name.as_bytes(), b"\n"].concat());
            guest.read_all();
        })
    };
    let (early, late) = (slow("early", 2 * STAGGER), slow("late", 4 * STAGGER));
    let a = two_peers(&net, &early, &late);

    let conn = a.open(2000);
    conn.send("payload");
    assert_eq!(conn.greeting(), "early");
    check(&early.call_for(2000).wait_for_payload(7), b"payload");
    let lost = late.call_for(2000);
    lost.wait_for_end();
    check(&lost.payload(), b"");
    assert!(conn.stays_quiet(MOMENT), "nothing of the other one");
}

#[test]
fn half_an_answer_and_silence_is_no_answer() {
    let net = Net::hosts(["a", "b"]);
    let peer = net.host("b").peer(Peer::scripted(|_, guest: &Guest| {
        let _ = guest.send(b"SENDPROXY=");
        guest.read_all();
    }));
    let a = net.host("a");
    a.conf("PEERTIMEOUT", "1s").start();

    let start = Instant::now();
    let conn = a.open(2000);
    conn.send("payload");
    assert_eq!(conn.rest(SOON), (Vec::new(), Ended::Reset));
    print_figure(
        "half an answer given up on",
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_secs(1) + MOMENT),
    );
    peer.call(0).wait_for_end();
    check(&peer.call(0).payload(), b"");
}

#[test]
fn answers_to_questions_that_make_no_sense_keep_nobody_from_being_served() {
    let net = Net::hosts(["a", "b", "c"]);
    let turn = AtomicUsize::new(0);
    let senseless = Peer::closing().questioned(move |guest| {
        let answer = match turn.fetch_add(1, Relaxed) {
            0 => return drop(guest.send(b"PODS=65535\r\n")),
            1 => b"PODS=99999999999999999999\r\n".to_vec(),
            2 => b"PODS=1\r\n".repeat(100_000),
            3 => vec![b'P'; 1 << 20],
            4 => b"SENDPROXY=false\r\nBUSY\r\n".to_vec(),
            5 => b"PODS=".to_vec(),
            _ => return guest.reset_on_close(),
        };
        let _ = guest.send(&answer);
        guest.read_all();
    });
    let good = Peer::answering([FALSE, b"pod\n"].concat());
    let a = two_peers(&net, &senseless, &good);
    let memory = a.rss();

    let mut port = 2000;
    for turn in 0..7 {
        forget(a, turn);
        eventually(SOON, "it is asked, or looked at", || {
            port += 1;
            let conn = a.open(port);
            assert_eq!(conn.send("payload").line(), "pod");
            check(&good.call_for(port).wait_for_payload(7), b"payload");
            senseless.questions() > usize::from(turn)
        });
    }
    print_figure(
        "memory after answers that make no sense",
        Figure::Bytes(a.rss().saturating_sub(memory)),
        Figure::Bytes(2 << 20),
    );
}

#[test]
fn a_client_that_leaves_ends_the_asking() {
    let net = Net::hosts(["a", "b"]);
    let peer = net.host("b").peer(Peer::silent());
    let a = net.host("a").start();

    let conn = a.open(2000);
    let call = peer.call(0);
    conn.reset();
    call.wait_for_end();
    eventually(SOON, "it was the client", || a.ends("client") == 1);
    assert_eq!(a.count("/connections/live"), 0);
}

#[test]
fn timed_out_attempts_leave_no_socket() {
    let net = Net::hosts(["a", "b", "c"]);
    let (silent, also) = (Peer::silent(), Peer::silent());
    let a = net.host("a");
    a.conf("PEERTIMEOUT", "1s");
    two_peers(&net, &silent, &also);
    let before = a.snproxy().descriptors();

    let conns: Vec<_> = (2000..2030).map(|port| a.open(port)).collect();
    for conn in conns {
        assert_eq!(conn.rest(SOON), (Vec::new(), Ended::Reset));
    }
    eventually(SOON, "nobody is inside", || {
        a.count("/connections/live") == 0
    });
    // One that looks whether they are back may be there.
    eventually(SOON, "descriptors as before", || {
        a.snproxy().descriptors() <= before + 2
    });
    for call in [silent.calls(), also.calls()].concat() {
        call.wait_for_end();
    }
}

#[test]
fn a_local_pod_is_reached_without_a_second_hop() {
    let net = Net::hosts(["a", "b"]);
    let a = net.host("a");
    let pod = a.pod(30000, Pod::answering("pod"));
    // No other host, though several names for this one.
    a.conf("HOST", "0.0.0.0")
        .hosts("10.77.0.1:32767\nlocalhost:32767\n127.0.0.1:32767\n")
        .mappings("1024:30000:9:false\n1025:30001:9:false\n")
        .start();
    let live = || a.count("/connections/total");

    assert_eq!(a.open(1024).greeting(), "pod");
    assert_eq!(
        pod.visit(0).peer().ip(),
        pod.visit(0).local().ip(),
        "dialled from here"
    );
    assert_eq!(
        live(),
        1,
        "one connection came in, not a second from ourselves"
    );
    // Where nobody serves a port we do not ask ourselves either.
    assert!(a.is_refused(2000) && a.is_reset(1025));
    eventually(SOON, "the dead pod is known", || a.action(1025) == "refuse");
    assert_eq!(live(), 2);
}
