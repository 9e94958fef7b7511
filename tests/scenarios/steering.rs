//! One socket for all cluster ports: what is steered, what is refused, and what is left after the end.

use snproxy_tests::{Attempt, Conn, Figure, Host, Net, Pod, eventually, print_figure};
use std::{
    hash::{BuildHasher, RandomState},
    net::{TcpListener, UdpSocket},
    process::Command,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(10);

/// The default CLUSTERPORTS.
fn is_cluster_port(port: u16) -> bool {
    matches!(port, 1024..=29999 | 32768..)
}

/// That many of `ports`, drawn at random, each at most once.
fn drawn(mut ports: Vec<u16>, count: usize) -> Vec<u16> {
    let order = RandomState::new();
    ports.sort_by_cached_key(|port| order.hash_one(port));
    ports.truncate(count);
    ports
}

/// Where the snproxy of this host listens, by `ss`.
fn listens_at(host: &Host) -> Vec<String> {
    let ss = host
        .namespace()
        .output(Command::new("ss").args(["-H", "-l", "-t", "-n", "-p"]));
    let owner = format!("pid={},", host.snproxy().pid());
    let lines = String::from_utf8(ss.stdout).expect("ss writes text");
    lines
        .lines()
        .filter(|line| line.contains(&owner))
        .map(|line| {
            line.split_whitespace()
                .nth(3)
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

#[test]
fn all_cluster_ports_are_served_by_one_socket() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering_once("pod"));
    let (ours, others): (Vec<u16>, Vec<u16>) =
        (1..=u16::MAX).partition(|&port| is_cluster_port(port));
    assert_eq!(ours.len(), 61_744);
    let mappings: Vec<_> = ours
        .iter()
        .map(|port| format!("{port}:30000:1000:false\n"))
        .collect();
    host.mappings(&mappings.concat()).limit_nofile(1024).start();

    let ready = Figure::Time(host.ready_after());
    print_figure(
        "61,744 ports: ready after exec",
        ready,
        Figure::Time(Duration::from_millis(500)),
    );
    let limit = Figure::Bytes(16 << 20);
    print_figure(
        "61,744 ports: memory when ready",
        Figure::Bytes(host.rss()),
        limit,
    );
    assert_eq!(listens_at(host), [host.port(32767).to_string()]);

    let steered = drawn(ours, 1000);
    net.client().run(|| {
        for port in &steered {
            let conn = Conn::connect(host.port(*port), SOON);
            let conn = conn.unwrap_or_else(|error| panic!("port {port}: {error}"));
            assert_eq!(conn.greeting(), "pod", "port {port}");
        }
    });
    let memory = Figure::Bytes(host.rss());
    print_figure(
        "61,744 ports: memory after 1,000 connections",
        memory,
        limit,
    );
    // Asked only now: an answer about 61,744 pods takes memory too.
    assert_eq!(host.count("/ports/steer"), 61_744);
    host.assert_steered(1000);
    assert_eq!(pod.accepted(), 1000);

    let open = [30000, 32767];
    let others = others.into_iter().filter(|port| !open.contains(port));
    net.client().run(|| {
        for port in drawn(others.collect(), 1000) {
            let attempt = Attempt::made(Conn::connect(host.port(port), SOON));
            assert!(
                matches!(attempt, Attempt::Refused),
                "port {port}: {attempt:?}"
            );
        }
    });
    // Not a word of ours: nobody listens there, and the kernel said so by itself.
    host.assert_steered(1000);
    host.assert_refused(0);
}

#[test]
fn cluster_ports_that_nobody_serves_are_refused_at_the_first_syn() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:9:false\n").start();

    let unmapped = (1025..=u16::MAX).filter(|&port| is_cluster_port(port));
    net.client().run(|| {
        for port in drawn(unmapped.collect(), 1000) {
            let attempt = Attempt::made(Conn::connect(host.port(port), SOON));
            assert!(
                matches!(attempt, Attempt::Refused),
                "port {port}: {attempt:?}"
            );
        }
    });
    assert_eq!(host.open(1024).greeting(), "pod");
    // By the kernel itself: no connection was made for it.
    host.assert_steered(1);
    assert_eq!(host.count("/connections/total"), 1);
}

#[test]
fn a_program_that_takes_any_free_port_is_reached_at_once() {
    let net = Net::one();
    let host = net.host("host");
    host.conf("HOST", "0.0.0.0")
        .mappings("1024:30000:9:false\n")
        .start();

    // The kernel's choice is a cluster port: all of 32768-60999 are, by default.
    host.namespace().run(|| {
        for _ in 0..200 {
            let program = TcpListener::bind(("127.0.0.1", 0)).expect("any port");
            let addr = program.local_addr().expect("its address");
            assert!(is_cluster_port(addr.port()), "{addr}");
            Conn::connect(addr, SOON).expect("nobody stands between two programs of the host");
        }
    });
}

#[test]
fn udp_on_the_same_ports_is_never_touched() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:9:false\n").start();

    // The one port is steered, the other left alone.
    for port in [1024, 1025] {
        let to = host.port(port);
        let program = host.namespace().run(|| UdpSocket::bind(to)).expect("bind");
        program.set_read_timeout(Some(SOON)).expect("read timeout");
        let client = net.client().run(|| UdpSocket::bind((net.client().v4(), 0)));
        client
            .expect("bind")
            .send_to(b"datagram", to)
            .expect("send");
        let mut received = [0; 16];
        let length = program.recv(&mut received).expect("the datagram");
        assert_eq!(received[..length], *b"datagram");
    }
    assert_eq!((host.steered(), host.count("/kernel/refused")), (0, 0));
    assert_eq!(host.open(1024).greeting(), "pod");
}

#[test]
fn steering_ends_with_the_process_however_it_ends() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:9:false\n");
    let stop = |host: &Host| assert_eq!(host.stop().code(), Some(0));

    for end in [&Host::crash as &dyn Fn(&Host), &stop] {
        host.start();
        let attached = host.attached();
        assert_eq!(attached.len(), 1);
        assert_eq!(host.open(1024).greeting(), "pod");
        host.assert_steered(1);

        end(host);
        assert!(host.is_refused(1024));
        assert_eq!(host.attached(), [0; 0]);
        // A pin would hold it.
        eventually(SOON, "the program is gone", || {
            host.bpftool(&format!("prog show id {}", attached[0]))
                .is_none()
        });
        let other = host.pod_at(host.port(1024), Pod::answering("other"));
        assert_eq!(host.open(1024).greeting(), "other");
        other.stop();
    }
}

#[test]
fn a_failed_map_write_is_survived_and_told_once() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:9:false\n1025:30000:9:false\n")
        .start();
    assert!(host.status()["pending"].is_null());

    // From here on the kernel refuses every write of user space.
    let actions = host.map_id("ACTIONS");
    assert!(host.bpftool(&format!("map freeze id {actions}")).is_some());
    host.mappings("1024:30000:9:false\n1026:30000:9:false\n");
    let mut pending = String::new();
    eventually(SOON, "status tells of the failed write", || {
        pending = host.status()["pending"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        !pending.is_empty()
    });
    assert!(pending.contains("ACTIONS"), "{pending}");

    let reload = host.reload();
    assert_eq!(reload.status.code(), Some(1), "the files are good");
    let said = String::from_utf8_lossy(&reload.stdout).into_owned();
    assert!(said.contains("not in force yet"), "{said}");

    let retried_at = host.count("/uptime_seconds") + 3;
    eventually(SOON, "it was tried again several times", || {
        host.count("/uptime_seconds") >= retried_at
    });
    for port in [1024, 1025] {
        assert_eq!(host.open(port).greeting(), "pod", "port {port}");
    }
    assert!(host.is_refused(1026));
    host.assert_steered(2);
    let log = host.log();
    let told = log.lines().filter(|line| line.contains("ACTIONS")).count();
    assert_eq!(told, 1, "{log}");

    // The files as they were need nothing of the kernel; the set that waited must not come back over them.
    host.mappings("1024:30000:9:false\n1025:30000:9:false\n");
    eventually(SOON, "the files are in force", || {
        host.status()["reload"]["ok"] == true
    });
    let (generation, retried_at) = (host.count("/generation"), host.count("/uptime_seconds") + 3);
    eventually(SOON, "a retry would have come", || {
        host.count("/uptime_seconds") >= retried_at
    });
    assert_eq!(host.count("/generation"), generation);
    assert_eq!(host.status()["reload"]["ok"], true);

    assert_eq!(host.stop().code(), Some(0));
    assert_eq!(host.attached(), [0; 0]);
}
