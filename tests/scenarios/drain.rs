//! How it ends: in order, by deadline, at once, and by a crash.

use rustix::process::Signal;
use snproxy_tests::{Conn, Ended, Figure, Host, Net, Pod, eventually, print_figure};
use std::{
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);

fn one_pod(net: &Net, pod: Pod) -> (&Host, Pod) {
    let host = net.host("host");
    let pod = host.pod(30000, pod);
    host.mappings("1024:30000:900:false\n");
    (host, pod)
}

/// Sends TERM and waits until new connections are refused.
fn begin_drain(host: &Host) {
    host.signal(Signal::TERM);
    eventually(SOON, "new connections are refused", || {
        host.is_refused(1024)
    });
}

#[test]
fn a_transfer_ends_in_order_while_new_connections_are_refused() {
    let net = Net::one();
    let (host, _) = one_pod(&net, Pod::echo());
    host.start();

    let conn = host.open(1024);
    conn.send("before\n");
    assert_eq!(conn.line(), "before");
    begin_drain(host);

    // It is asked as before, and says what it does.
    assert_eq!(host.status()["state"], "draining");
    eventually(SOON, "only the transfer is left", || {
        host.count("/connections/live") == 1
    });
    let chunk = vec![7; 1 << 20];
    for _ in 0..8 {
        conn.send(&chunk);
        assert!(conn.read(chunk.len()) == chunk);
    }
    assert!(host.is_refused(1024) && host.is_refused(32767));
    let snproxy = host.snproxy();
    assert_eq!(
        snproxy.exit_status(),
        None,
        "it waits for the last connection"
    );

    let start = Instant::now();
    assert_eq!(conn.half_close().ended(), Ended::Eof);
    assert_eq!(snproxy.wait(SOON).code(), Some(0), "{}", snproxy.log());
    print_figure(
        "exit after the last connection ended",
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_millis(100)),
    );
    assert!(
        !host.folder().join("admin.sock").exists(),
        "the control socket is left behind"
    );
}

#[test]
fn what_is_left_at_the_deadline_is_reset_spread_over_time() {
    const LIMIT: Duration = Duration::from_secs(2);
    const LEFT: usize = 40;
    let net = Net::one();
    let (host, pod) = one_pod(&net, Pod::answering("a"));
    host.conf("DRAINTIMEOUT", "2s").start();

    let conns: Vec<Conn> = (0..LEFT).map(|_| host.open(1024)).collect();
    assert!(conns.iter().all(|conn| conn.greeting() == "a"));
    let start = Instant::now();
    host.signal(Signal::TERM);
    let mut ends: Vec<Duration> = thread::scope(|scope| {
        let ended = |conn| {
            move || {
                let conn: &Conn = conn;
                (conn.ended(), start.elapsed())
            }
        };
        let waiting: Vec<_> = conns.iter().map(|conn| scope.spawn(ended(conn))).collect();
        let ended = waiting
            .into_iter()
            .map(|thread| thread.join().expect("join"));
        ended
            .map(|(ended, after)| {
                assert_eq!(ended, Ended::Reset);
                after
            })
            .collect()
    });
    ends.sort();
    let snproxy = host.snproxy();
    assert_eq!(snproxy.wait(SOON).code(), Some(0), "{}", snproxy.log());

    let (first, last) = (ends[0], ends[LEFT - 1]);
    assert!(first >= LIMIT / 2, "the first was cut after {first:?}");
    assert!(
        last.saturating_sub(first) >= LIMIT / 20,
        "all were cut at once: {first:?} to {last:?}"
    );
    print_figure(
        "last connection cut by drain, of 2 s",
        Figure::Time(last),
        Figure::Time(LIMIT + LIMIT / 4),
    );
    print_figure(
        "the cuts are spread over",
        Figure::Time(last.saturating_sub(first)),
        Figure::Time(LIMIT / 4 + LIMIT / 8),
    );
    for visit in pod.visits() {
        assert_eq!(visit.wait_for_end(), Ended::Reset);
    }
    let log = snproxy.log();
    assert_eq!(log.matches("end=drain").count(), LEFT, "{log}");
}

#[test]
fn a_second_interrupt_ends_at_once_by_reset() {
    let net = Net::one();
    let (host, pod) = one_pod(&net, Pod::answering("a"));
    host.start();

    let conns: Vec<Conn> = (0..20).map(|_| host.open(1024)).collect();
    assert!(conns.iter().all(|conn| conn.greeting() == "a"));
    let snproxy = host.snproxy();
    host.signal(Signal::INT);
    eventually(SOON, "it drains", || host.is_refused(1024));
    assert_eq!(snproxy.exit_status(), None);

    let start = Instant::now();
    host.signal(Signal::INT);
    assert_eq!(snproxy.wait(SOON).code(), Some(0), "{}", snproxy.log());
    print_figure(
        "exit after the second interrupt",
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_millis(300)),
    );
    // Nobody may take what was cut for a whole answer.
    let resets = conns
        .iter()
        .filter(|conn| conn.ended() == Ended::Reset)
        .count();
    assert_eq!(resets, conns.len());
    // A client that asked whether it drains may have got in after them, and left in order.
    for visit in pod.visits().iter().take(conns.len()) {
        assert_eq!(visit.wait_for_end(), Ended::Reset);
    }
}

#[test]
fn who_still_waits_for_a_pod_at_the_deadline_is_reset() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::clogged());
    host.mappings("1024:30000:9:false\n");
    host.conf("DRAINTIMEOUT", "1s")
        .conf("CONNECTTIMEOUT", "30s")
        .start();

    let conn = host.open(1024);
    eventually(SOON, "it is inside", || {
        host.count("/connections/live") == 1
    });
    host.signal(Signal::TERM);
    assert_eq!(conn.rest(SOON), (Vec::new(), Ended::Reset));
    let snproxy = host.snproxy();
    assert_eq!(snproxy.wait(SOON).code(), Some(0), "{}", snproxy.log());
    assert!(snproxy.log().contains("end=drain"), "{}", snproxy.log());
}

#[test]
fn connections_that_wait_to_be_accepted_are_served_by_the_drain() {
    let net = Net::one();
    let (host, pod) = one_pod(&net, Pod::answering("a"));
    host.start();

    host.signal(Signal::STOP);
    let waiting: Vec<Conn> = (0..800).map(|_| host.open(1024)).collect();
    host.signal(Signal::TERM);
    host.signal(Signal::CONT);
    for conn in &waiting {
        assert_eq!(conn.greeting(), "a");
    }
    drop(waiting);
    let snproxy = host.snproxy();
    assert_eq!(snproxy.wait(SOON).code(), Some(0), "{}", snproxy.log());
    assert_eq!(pod.accepted(), 800);
}

#[test]
fn a_crash_ends_steering_and_the_next_start_serves() {
    let net = Net::one();
    let (host, _) = one_pod(&net, Pod::answering("a"));
    host.start();
    assert_eq!(host.open(1024).greeting(), "a");

    for _ in 0..3 {
        host.crash();
        assert!(host.is_refused(1024), "nobody serves it");
        assert!(
            host.folder().join("admin.sock").exists(),
            "a crash cannot clean up"
        );
        host.start();
        assert_eq!(host.open(1024).greeting(), "a");
        assert_eq!(host.status()["pid"], host.snproxy().pid());
        assert_eq!(host.count("/kernel/steered"), 1);
    }
}

#[test]
fn a_second_proxy_does_not_start_and_takes_nothing_from_the_first() {
    let net = Net::one();
    let (host, _) = one_pod(&net, Pod::answering("a"));
    host.start();

    let output = host.run(&[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("listen on 10.77.0.1:32767"), "{error}");
    assert_eq!(host.open(1024).greeting(), "a");
    assert_eq!(host.status()["pid"], host.snproxy().pid());
    assert!(host.reload().status.success());
}
