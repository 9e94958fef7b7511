//! Connections that are made ahead of the calls that use them: how many, for how long, and what their end costs.

use super::{FALSE, MOMENT, SOON, caller, check};
use snproxy_tests::{Conn, Ended, Figure, Guest, Net, Peer, eventually, print_figure};
use std::{
    net::Shutdown,
    thread::sleep,
    time::{Duration, Instant},
};

/// Spare connections to one host, at most.
const MOST: usize = 8;
const RETIRED: Duration = Duration::from_secs(30);
const BARRED: Duration = Duration::from_mins(1);
/// Between two looks of snproxy at what it has.
const LOOK: Duration = Duration::from_millis(500);
/// An answer over a connection that was there, or is made anew.
const SERVED: Duration = Duration::from_millis(20);

fn pod() -> Peer {
    Peer::answering([FALSE, b"pod\n"].concat())
}

#[track_caller]
fn have_inside(peer: &Peer, count: usize) {
    eventually(SOON, &format!("{count} are inside"), || {
        peer.inside() == count
    });
}

/// Time from the connect to the pod's greeting.
#[track_caller]
fn greeted(open: impl FnOnce() -> Conn) -> Duration {
    let start = Instant::now();
    assert_eq!(open().greeting(), "pod");
    start.elapsed()
}

#[test]
fn the_line_goes_over_a_connection_that_came_before_the_client() {
    let net = Net::hosts(["a", "b"]);
    let peer = pod();
    let (a, _) = caller(&net, &peer);
    a.start();

    assert_eq!(a.open(2000).greeting(), "pod");
    eventually(SOON, "it was asked for its pods", || peer.questions() > 0);
    for turn in 1..20 {
        eventually(SOON, "the spare one is inside, and nothing else", || {
            peer.waiting() == 1 && peer.inside() == 1
        });
        let start = Instant::now();
        let conn = a.open(2000);
        conn.send("payload");
        assert_eq!(conn.greeting(), "pod");
        let call = peer.call(turn);
        assert!(call.came() < start && start < call.heard(), "{call:?}");
        assert_eq!(call.reads(), 1, "one write");
        assert_eq!(call.from().ip(), a.v4());
        check(&call.wait_for_payload(7), b"payload");
        assert_eq!(conn.half_close().ended(), Ended::Eof);
        assert_eq!(call.wait_for_end(), Ended::Eof, "it is an ordinary close");
    }
    assert_eq!(peer.calls().len(), 20);
}

#[test]
fn many_clients_at_once_leave_a_few() {
    let net = Net::hosts(["a", "b"]);
    let peer = pod();
    let (a, _) = caller(&net, &peer);
    a.start();

    let mut held = Vec::new();
    for _ in 0..3 {
        let to = a.port(2000);
        held.extend(net.client().run(|| -> Vec<Conn> {
            (0..100)
                .map(|_| Conn::connect(to, SOON).expect("connect"))
                .collect()
        }));
        for conn in &held[held.len() - 100..] {
            assert_eq!(conn.greeting(), "pod");
        }
    }
    eventually(SOON, "there is one", || peer.inside() > held.len());
    // Whoever asks for pods was told no, and goes.
    sleep(MOMENT);
    let spare = peer.inside() - held.len();
    print_figure(
        "spare connections after 300 clients at once",
        Figure::Count(spare as u64),
        Figure::Count(MOST as u64),
    );
    // How many depends on how often a client came while the next one was still connecting.
    assert!((1..=MOST).contains(&spare));
    drop(held);
    eventually(SOON, "the others have left", || peer.inside() == spare);
}

#[test]
fn they_end_with_time_with_the_host_and_with_the_process() {
    let net = Net::hosts(["a", "b", "c"]);
    let only = |port: u16| {
        Peer::scripted(move |asked, guest: &Guest| {
            if asked == port {
                let _ = guest.send(&[FALSE, b"pod\n"].concat());
                guest.read_all();
            }
        })
    };
    let patient = net.host("b").peer(only(2000));
    let closing = net
        .host("c")
        .peer(only(3000).closing_after(Duration::from_secs(2)));
    let a = net.host("a").start();

    // A no is no use: this host is asked until it is known to have nothing.
    for port in [2000, 2000, 3000, 3000] {
        assert_eq!(a.open(port).greeting(), "pod");
    }
    eventually(SOON, "one for each", || {
        patient.inside() == 1 && closing.inside() == 1
    });
    let start = Instant::now();
    have_inside(&closing, 0);
    let closed = Instant::now();
    // Nobody goes there now.
    eventually(RETIRED + SOON, "they are too old", || patient.inside() == 0);
    print_figure(
        "a spare connection nobody used ended after",
        Figure::Time(start.elapsed()),
        Figure::Time(RETIRED + 2 * LOOK),
    );
    assert!(start.elapsed() + SOON / 10 >= RETIRED);

    // The other host closed one: it is called, and gets none, for a minute.
    while closed.elapsed() + 2 * LOOK < BARRED {
        assert_eq!(a.open(3000).half_close().read_to_end(), b"pod\n");
        have_inside(&closing, 0);
        sleep(LOOK);
        assert_eq!(closing.inside(), 0);
    }
    eventually(SOON, "it gets one again", || {
        assert_eq!(a.open(3000).half_close().read_to_end(), b"pod\n");
        sleep(MOMENT / 10);
        closing.inside() == 1
    });

    assert_eq!(a.open(2000).greeting(), "pod");
    have_inside(&patient, 1);
    a.reloaded_after(|a| a.hosts("10.77.0.1:32767\n10.77.0.3:32767\n"));
    have_inside(&patient, 0);
    assert_eq!(a.open(3000).greeting(), "pod");
    have_inside(&closing, 1);
    let start = Instant::now();
    a.stop();
    print_figure(
        "drain beside spare connections",
        Figure::Time(start.elapsed()),
        Figure::Time(MOMENT),
    );
    have_inside(&closing, 0);
}

/// How a connection that was silent for a while ends as its line comes.
type End = fn(&Guest);

#[test]
fn a_spare_connection_that_ends_under_the_line_costs_its_client_nothing() {
    let ends: [(&str, End); 3] = [
        ("closed", |_| ()),
        ("reset", Guest::reset_on_close),
        ("half closed", |guest| {
            let _ = guest.stream().shutdown(Shutdown::Write);
            guest.read_all();
        }),
    ];
    for (name, end) in ends {
        let net = Net::hosts(["a", "b"]);
        let peer = Peer::scripted(move |_, guest: &Guest| {
            // What comes with its line is no spare connection.
            if guest.visit().came().elapsed() > MOMENT {
                return end(guest);
            }
            let _ = guest.send(&[FALSE, b"pod\n"].concat());
            guest.read_all();
        });
        let (a, _) = caller(&net, &peer);
        a.start();
        greeted(|| a.open(2000));
        let mut worst = Duration::ZERO;
        let mut ended = 0;
        for _ in 0..5 {
            sleep(2 * MOMENT);
            let before = peer.calls().len();
            worst = worst.max(greeted(|| a.open(2000)));
            ended += peer.calls().len() - before - 1;
        }
        assert!(ended > 0, "{name}: none went over a spare connection");
        print_figure(
            &format!("served though the spare connection is {name}"),
            Figure::Time(worst),
            Figure::Time(SERVED),
        );
        assert_eq!(a.ends("no_upstream") + a.ends("not_mapped"), 0);
    }
}

#[test]
fn one_that_was_closed_before_the_client_came_is_not_used() {
    const SILENCE: Duration = Duration::from_millis(300);
    let net = Net::hosts(["a", "b"]);
    let peer = pod().closing_after(SILENCE);
    let (a, _) = caller(&net, &peer);
    a.start();
    greeted(|| a.open(2000));
    let mut worst = Duration::ZERO;
    for turn in 1..20 {
        worst = worst.max(greeted(|| a.open(2000)));
        assert_eq!(peer.calls().len(), turn + 1, "each is heard once");
        sleep(SILENCE + Duration::from_millis(2) * u32::try_from(turn).expect("a few"));
    }
    print_figure(
        "served by a host that closes silent connections",
        Figure::Time(worst),
        Figure::Time(SERVED),
    );
}

#[test]
fn a_no_over_a_spare_connection_is_asked_for_once_more_and_believed() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::scripted(|port, guest: &Guest| {
        if port == 2000 {
            let _ = guest.send(&[FALSE, b"pod\n"].concat());
            guest.read_all();
        }
    });
    let (a, _) = caller(&net, &peer);
    a.start();
    greeted(|| a.open(2000));
    have_inside(&peer, 1);

    assert!(a.is_reset(2001));
    let calls = peer.calls_for(2001);
    assert_eq!(calls.len(), 2, "over the spare connection, and anew");
    assert!(calls[0].came() < calls[1].came());
    assert_eq!(a.ends("not_mapped"), 1);
    // It had heard the line: this is no host that closes silent connections.
    have_inside(&peer, 1);
    let start = Instant::now();
    greeted(|| a.open(2000));
    assert!(peer.calls_for(2000)[1].came() < start);
}

#[test]
fn a_host_that_says_no_to_all_gets_none() {
    let net = Net::hosts(["a", "b"]);
    let peer = Peer::closing();
    let (a, _) = caller(&net, &peer);
    a.start();
    for port in 2000..2010 {
        assert!(a.is_reset(port));
    }
    have_inside(&peer, 0);
    sleep(2 * LOOK);
    assert_eq!(peer.inside(), 0);
}

#[test]
fn few_descriptors_are_not_spent_on_them() {
    const LIMIT: usize = 64;
    let net = Net::hosts(["a", "b"]);
    let peer = pod();
    let (a, _) = caller(&net, &peer);
    a.limit_nofile(64).conf("MAXCONN", "0").start();

    // Each takes two. In threes, so that many spare connections are wanted.
    let mut held: Vec<Conn> = Vec::new();
    while a.snproxy().descriptors() + 8 < LIMIT {
        let conns: Vec<_> = (0..3).map(|_| a.open(2000)).collect();
        assert!(conns.iter().all(|conn| conn.greeting() == "pod"));
        held.extend(conns);
        let spare = peer.inside().saturating_sub(held.len());
        // One or two more may be connections that ask for pods.
        assert!(spare <= LIMIT / 16 + 2, "{spare} beside {}", held.len());
    }
    assert!(held.len() >= 6, "{} clients", held.len());
    // The last descriptors are the clients': spare connections give way.
    eventually(SOON, "none is left for them", || {
        held.push(a.open(2000));
        held[held.len() - 1].ended() != Ended::Open || peer.inside() == held.len()
    });
}
