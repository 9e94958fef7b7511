//! Connections that the hosts make to each other ahead of their clients: what a status shows, what an end costs.

use super::{PORT, SOON, greeted, serve, start_all};
use snproxy_tests::{Conn, Ended, Figure, Host, Net, Pod, eventually, print_figure};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Silent connections that a host lets another one have.
const SEATS: u64 = 16;
/// Until then a line may be under way on a silent connection.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// Connections of other hosts that have not asked for anything.
fn waiting(host: &Host) -> u64 {
    host.count("/connections/waiting")
}

/// A spare connection, and the one for questions.
#[track_caller]
fn is_prepared(a: &Host, b: &Host) {
    eventually(SOON, "a spare connection waits", || {
        greeted(a);
        waiting(b) >= 2
    });
}

#[test]
fn connections_that_wait_are_not_live_and_displace_nobody() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    serve(b, 1);
    start_all(&net);
    is_prepared(a, b);
    eventually(SOON, "nobody is served", || {
        b.count("/connections/live") == 0
    });

    let (to, unused) = (a.port(PORT), b.ends("unused"));
    let mut most = 0;
    for _ in 0..4 {
        let held = net.client().run(|| -> Vec<Conn> {
            (0..50)
                .map(|_| Conn::connect(to, SOON).expect("connect"))
                .collect()
        });
        for conn in &held {
            assert_eq!(conn.greeting(), "b");
        }
        assert_eq!(b.count("/connections/live"), 50, "{}", b.status());
        // By now each of them sits.
        sleep(UNDER_WAY + UNDER_WAY / 5);
        most = most.max(waiting(b));
        drop(held);
        eventually(SOON, "they have left", || b.count("/connections/live") == 0);
    }
    print_figure(
        "connections of another host that wait",
        Figure::Count(most),
        // Eight spare ones, and one for questions.
        Figure::Count(9),
    );
    assert!(most < SEATS);
    assert_eq!(b.ends("unused"), unused, "nobody was sent away");
}

#[test]
fn neither_side_waits_for_them_when_it_drains() {
    let net = Net::hosts(["a", "b", "c"]);
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    for host in [b, c] {
        serve(host, 1);
    }
    start_all(&net);
    is_prepared(a, b);
    is_prepared(a, c);

    let start = Instant::now();
    b.stop();
    print_figure(
        "drain beside connections that wait",
        Figure::Time(start.elapsed()),
        Figure::Time(2 * UNDER_WAY),
    );
    // What was left of them here costs nobody anything.
    is_served_by_c(a, "served after a host with spare connections went");
    eventually(SOON, "c serves", || waiting(c) >= 2);
    a.stop();
    eventually(SOON, "a has closed its own", || waiting(c) == 0);
}

#[test]
fn a_killed_host_with_spare_connections_is_noticed_by_nobody() {
    let net = Net::hosts(["a", "b", "c"]);
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    for host in [b, c] {
        serve(host, 1);
    }
    start_all(&net);
    is_prepared(a, b);
    is_prepared(a, c);
    b.crash();
    is_served_by_c(a, "served after a host with spare connections was killed");
}

#[test]
fn what_the_client_said_early_follows_the_answer() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    b.pod(30000, Pod::echo());
    b.mappings("1024:30000:99:false\n");
    start_all(&net);
    for _ in 0..50 {
        let conn = a.open(PORT);
        conn.send("early").half_close();
        assert_eq!(conn.rest(SOON), (b"early".to_vec(), Ended::Eof));
    }
}

/// Fifty times, without a wait.
#[track_caller]
fn is_served_by_c(by: &Host, figure: &str) {
    let mut worst = Duration::ZERO;
    for _ in 0..50 {
        let (name, took) = greeted(by);
        assert_eq!(name, "c");
        worst = worst.max(took);
    }
    print_figure(
        figure,
        Figure::Time(worst),
        Figure::Time(Duration::from_millis(50)),
    );
}
