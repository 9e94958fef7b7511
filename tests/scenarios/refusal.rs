//! Pods that die, come back, or stop answering: who is refused, who is served, and how soon.

use snproxy_tests::{Attempt, Ended, Figure, Guest, Host, Net, Pod, eventually, print_figure};
use std::{
    io::ErrorKind,
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const SECOND: Figure = Figure::Time(Duration::from_secs(1));

/// One SYN, by the kernel's own count, answered with RST.
#[track_caller]
fn is_refused_by_the_kernel(host: &Host, port: u16) {
    let before = host.count("/kernel/refused");
    assert!(host.is_refused(port));
    host.assert_refused(before + 1);
}

/// Accepted, and then reset for want of a pod.
fn is_reset(host: &Host, port: u16) -> bool {
    match host.attempt(port) {
        Attempt::Connected(conn) => conn.ended() == Ended::Reset,
        // The reset overtook the connect.
        Attempt::Failed(error) => error.kind() == ErrorKind::ConnectionReset,
        Attempt::Refused | Attempt::TimedOut => false,
    }
}

fn is_all_down(host: &Host, port: u16) -> bool {
    host.port_range(port)["reason"] == "all pods are down"
}

#[test]
fn a_killed_pod_that_was_the_only_one_is_noticed_without_a_client() {
    let net = Net::one();
    let host = net.host("host");
    let url = format!("http://{}/", host.port(1024));
    let served = || net.client().curl(&[&url]) == "here\n";
    let nginx = host.nginx(30000, "", "here");
    host.mappings("1024:30000:9:false\n").start();
    assert!(served());

    let killed = Instant::now();
    nginx.kill();
    // Asked, not dialled: a connection would make the proxy find out.
    eventually(SOON, "port 1024 is to be refused", || {
        host.action(1024) == "refuse"
    });
    print_figure(
        "killed pod: refused after",
        Figure::Time(killed.elapsed()),
        SECOND,
    );
    is_refused_by_the_kernel(host, 1024);

    let _nginx = host.nginx(30000, "", "here");
    let back = Instant::now();
    eventually(SOON, "port 1024 is steered again", || {
        host.action(1024) == "steer"
    });
    print_figure(
        "pod is back: steered after",
        Figure::Time(back.elapsed()),
        SECOND,
    );
    assert!(served());
    host.assert_steered(2);
}

#[test]
fn a_pod_out_of_sight_is_served_from_at_once_when_it_is_back() {
    let net = Net::hosts(["host", "elsewhere"]);
    let (host, elsewhere) = (net.host("host"), net.host("elsewhere"));
    // Its listener is in another namespace: no scan of this host tells when it goes.
    let pod = elsewhere.pod(30000, Pod::answering("pod"));
    host.hosts(&format!("{}\n", host.port(32767)))
        .conf("PODHOST", &elsewhere.v4().to_string())
        .mappings("1024:30000:9:false\n")
        .start();
    assert_eq!(host.open(1024).greeting(), "pod");

    pod.stop();
    assert!(is_reset(host, 1024));
    eventually(SOON, "its port has no pod", || is_all_down(host, 1024));
    // What is remembered of it may be old: only a dial can tell.
    for _ in 0..10 {
        assert!(is_reset(host, 1024));
    }
    assert_eq!(host.action(1024), "steer");

    elsewhere.pod(30000, pod.clone());
    assert_eq!(host.open(1024).greeting(), "pod");
    assert_eq!(host.count("/ends/no_upstream"), 11);
    eventually(SOON, "it is up", || !is_all_down(host, 1024));
}

#[test]
fn a_pod_out_of_sight_is_not_taken_for_dead() {
    let net = Net::hosts(["host", "elsewhere"]);
    let (host, elsewhere) = (net.host("host"), net.host("elsewhere"));
    let pod = elsewhere.pod(30000, Pod::answering("pod"));
    host.hosts(&format!("{}\n", host.port(32767)))
        .conf("PODHOST", &elsewhere.v4().to_string())
        .mappings("1024:30000:9:false\n")
        .start();

    // Through several looks at the host's sockets.
    let mut opened = 0;
    let end = host.count("/uptime_seconds") + 2;
    while host.count("/uptime_seconds") < end {
        opened += 1;
        assert_eq!(host.open(1024).greeting(), "pod");
    }
    assert_eq!(host.action(1024), "steer");
    // Nobody connected but our clients: no evidence, no probe.
    host.assert_steered(opened);
    assert_eq!(u64::try_from(pod.accepted()), Ok(opened));
}

#[test]
fn one_of_two_pods_dies_and_nobody_is_refused() {
    let net = Net::one();
    let host = net.host("host");
    let pods =
        [(30000, "a"), (30001, "b")].map(|(port, name)| host.pod(port, Pod::answering(name)));
    host.mappings("1024:30000:9:false 1024:30001:9:false\n")
        .conf("BALANCE", "ordered")
        .start();
    assert_eq!(host.open(1024).greeting(), "a");

    pods[0].stop();
    // The first may still be tried at a: it is refused there, and the next pod is taken.
    for _ in 0..20 {
        assert_eq!(host.open(1024).greeting(), "b");
    }
    eventually(SOON, "a is known to be down", || {
        host.status()["pods"][0]["up"] == false
    });
    host.pod(30000, pods[0].clone());
    eventually(SOON, "a is up again", || {
        host.status()["pods"][0]["up"] == true
    });
    assert_eq!(host.open(1024).greeting(), "a");
    host.assert_refused(0);
    host.assert_steered(22);
}

#[test]
fn a_pod_that_stops_answering_costs_one_client_one_wait() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::clogged());
    let other = host.pod(30001, Pod::answering("other"));
    host.mappings("1024:30000:9:false 1024:30001:9:false\n")
        .conf("BALANCE", "ordered")
        .conf("CONNECTTIMEOUT", "2s")
        .start();

    let start = Instant::now();
    let first = host.open(1024);
    assert_eq!(first.greeting(), "other");
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "it was not tried first"
    );
    assert_eq!(host.status()["pods"][0]["up"], false);

    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(host.open(1024).greeting(), "other");
    }
    // Had one of them waited, it would be two seconds.
    print_figure(
        "20 connections beside a silent pod",
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_millis(200)),
    );
    host.assert_steered(21);
    assert_eq!(other.accepted(), 21);
    assert_eq!(host.action(1024), "steer");
}

#[test]
fn a_pod_host_that_answers_nothing_is_dialed_seldom_until_it_is_back() {
    let net = Net::one();
    let host = net.host("host");
    // A neighbour with an address that no card has: the switch finds nobody.
    host.namespace()
        .ip("neighbour add 10.77.0.66 lladdr 02:00:00:00:00:66 dev eth0");
    host.conf("PODHOST", "10.77.0.66")
        .conf("CONNECTTIMEOUT", "500ms")
        .mappings("1024:30000:9:false\n")
        .start();

    // Nothing is known yet.
    assert!(is_reset(host, 1024));
    eventually(SOON, "its port has no pod", || is_all_down(host, 1024));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert!(is_reset(host, 1024)));
        }
    });
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?} for 40 clients");
    let checks = host
        .namespace()
        .output(std::process::Command::new("nstat").args(["-asz", "TcpActiveOpens"]));
    let checks = String::from_utf8_lossy(&checks.stdout).into_owned();
    let dials: u64 = checks
        .split_whitespace()
        .nth(2)
        .and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("{checks}"));
    assert!(dials <= 35 + 25 * took.as_secs(), "{dials} dials");

    host.namespace().ip("address add 10.77.0.66/32 dev lo");
    host.pod(30000, Pod::answering("back"));
    assert_eq!(host.open(1024).greeting(), "back");
}

#[test]
fn a_dead_pod_is_not_met_by_our_own_dials() {
    let net = Net::one();
    let host = net.host("host");
    // The kernel gives out even ports first: a dial to 40000 comes from 40000, and where nobody listens it meets itself.
    host.namespace()
        .sysctl("ipv4/ip_local_port_range", "40000 40001");
    host.mappings("1024:40000:9:false\n").start();

    assert!(is_reset(host, 1024));
    // Through several probes.
    let end = host.count("/uptime_seconds") + 3;
    eventually(SOON, "three seconds", || {
        assert_eq!(host.status()["pods"][0]["up"], false);
        host.count("/uptime_seconds") >= end
    });
    is_refused_by_the_kernel(host, 1024);
    assert_eq!(host.count("/ends/no_upstream"), 1);
}

#[test]
fn a_pod_that_resets_every_client_is_not_taken_for_dead() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::serving(Guest::reset_on_close));
    host.mappings("1024:30000:99:false\n").start();

    // Now and then the pod is quicker than our own connect().
    for attempt in 0..300 {
        assert!(is_reset(host, 1024), "attempt {attempt}");
    }
    assert_eq!(host.action(1024), "steer");
    assert!(!host.log().contains("pod is down"), "{}", host.log());
}
