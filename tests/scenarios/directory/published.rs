//! What is published, and what becomes of it on the other hosts.

use super::{
    FIRST_POD, PORT, SOON, assert_asked_nobody, directory, join, knows, map, net, serve, start,
};
use snproxy_tests::{Figure, Pod, eventually, print_figure};
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(10);

#[test]
fn a_port_that_no_host_serves_is_refused_at_its_first_syn_on_every_host() {
    let (net, _etcd) = net();
    serve(net.host("c"), &[PORT], 100);
    start(net.all_hosts());

    for host in net.all_hosts() {
        eventually(SOON, "the port that nobody serves is refused", || {
            host.action(PORT) == "steer" && host.action(2000) == "refuse"
        });
        assert_eq!(host.port_range(2000)["reason"], "no host serves it");
        assert_eq!(host.open(PORT).greeting(), "c");
        for port in [2000, 29_999, 32_768] {
            assert!(host.is_refused(port), "{port} on {}", host.name());
        }
        // In the kernel, not by the proxy.
        host.assert_refused(3);
        host.assert_steered(1);
        assert_eq!(host.ends("not_mapped"), 0);
        assert_asked_nobody(host);
    }
}

#[test]
fn a_pod_that_comes_is_reached_from_elsewhere_within_a_second() {
    let (net, _etcd) = net();
    let (a, c) = (net.host("a"), net.host("c"));
    c.pod(FIRST_POD, Pod::answering("c"));
    start(net.all_hosts());
    eventually(SOON, "the port is refused", || a.is_refused(PORT));

    let written = Instant::now();
    map(c, &[PORT], 100);
    eventually(SOON, "the port is served", || a.is_greeted(PORT, "c"));
    let took = written.elapsed();
    print_figure(
        "directory: from the mappings of one host to the port of another",
        Figure::Time(took),
        Figure::Time(Duration::from_secs(1)),
    );
    assert_asked_nobody(a);

    map(c, &[], 0);
    eventually(SOON, "the port is refused again", || a.is_refused(PORT));
}

#[test]
fn a_host_that_dies_leaves_within_its_lease_and_one_that_stops_at_once() {
    let (net, _etcd) = net();
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    serve(c, &[PORT], 100);
    serve(b, &[PORT + 1], 100);
    start(net.all_hosts());
    assert_eq!(a.open(PORT).greeting(), "c");
    assert_eq!(a.open(PORT + 1).greeting(), "b");

    let killed = Instant::now();
    c.crash();
    for host in [a, b] {
        eventually(LEASE * 2, "its ports are gone", || host.is_refused(PORT));
        knows(host, 1);
    }
    print_figure(
        "directory: from kill -9 of a host to its ports being refused elsewhere",
        Figure::Time(killed.elapsed()),
        Figure::Time(LEASE + Duration::from_secs(2)),
    );

    let back = Instant::now();
    c.start();
    // It is asked as soon as it is there, and may be found before its proxy is.
    eventually(SOON, "its ports are back", || a.is_greeted(PORT, "c"));
    print_figure(
        "directory: from the start of a host to its ports being served elsewhere",
        Figure::Time(back.elapsed()),
        Figure::Time(Duration::from_secs(2)),
    );

    let stopped = Instant::now();
    b.snproxy().signal(rustix::process::Signal::TERM);
    eventually(SOON, "its ports are gone", || a.is_refused(PORT + 1));
    print_figure(
        "directory: from TERM of a host to its ports being refused elsewhere",
        Figure::Time(stopped.elapsed()),
        Figure::Time(Duration::from_secs(1)),
    );
}

#[test]
fn a_host_whose_pods_are_full_is_known_to_be_busy_without_being_asked() {
    let (net, _etcd) = net();
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    serve(b, &[PORT], 1);
    serve(c, &[PORT], 1);
    start(net.all_hosts());

    let first = a.open(PORT);
    let second = a.open(PORT);
    let mut served = [first.greeting(), second.greeting()];
    served.sort();
    assert_eq!(served, ["b", "c"]);
    let is_full = || {
        let routes = a.routes();
        let routes = routes["routes"].as_array().expect("routes");
        routes.len() == 2
            && routes
                .iter()
                .all(|route| route["answer"] == "busy" && route["age_ms"].is_null())
    };
    eventually(SOON, "both are said to be full", is_full);
    let before = [b, c].map(|host| host.count("/connections/total"));
    assert!(a.is_reset(PORT));
    eventually(SOON, "its end is counted", || a.ends("busy") == 1);
    let after = [b, c].map(|host| host.count("/connections/total"));
    assert_eq!(
        before, after,
        "nobody was called for a place that is not there"
    );

    drop((first, second));
    eventually(SOON, "there are places again", || !is_full());
    eventually(SOON, "a client is served", || {
        let conn = a.attempt(PORT).connected();
        conn.is_some_and(|conn| !conn.rest(Duration::from_secs(1)).0.is_empty())
    });
}

#[test]
fn a_host_that_does_not_publish_is_asked_as_ever() {
    let (net, etcd) = net();
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    // c has no ETCD, and is known by the files.
    c.without("ETCD");
    let all: String = [a, b, c]
        .map(|host| format!("{}\n", host.port(32767)))
        .concat();
    for host in [a, b, c] {
        host.hosts(&all);
    }
    serve(c, &[PORT], 100);
    serve(b, &[PORT + 1], 100);
    for host in net.all_hosts() {
        host.start();
    }
    knows(a, 1);
    knows(b, 1);

    assert_eq!(a.open(PORT).greeting(), "c");
    assert_eq!(a.open(PORT + 1).greeting(), "b");
    assert_eq!(b.open(PORT).greeting(), "c");
    assert_eq!(c.open(PORT + 1).greeting(), "b");
    assert_eq!(directory(a)["complete"], false);
    assert_eq!(a.action(2000), "steer", "c may serve it");
    let routes = a.routes();
    let of = |name: &str, port: u16| {
        let all = routes["routes"].as_array().expect("routes").iter();
        let mut of = all.filter(|route| route["host"] == name && route["port"] == port);
        of.next().cloned().unwrap_or_default()
    };
    let (of_b, of_c) = (of("10.77.0.2", PORT), of("10.77.0.3", PORT));
    assert!(
        of_b["age_ms"].is_null() && of_b["answer"] == "not here",
        "{routes:#}"
    );
    assert!(
        of_c["age_ms"].is_number() && of_c["answer"] == "serves",
        "{routes:#}"
    );

    // It joins.
    c.reloaded_after(|c| join(c, &etcd));
    knows(a, 2);
    eventually(SOON, "nobody else may serve it", || {
        a.action(2000) == "refuse"
    });
    // Its hosts.conf does not name a any more: until it has read the directory, a is a stranger.
    eventually(SOON, "a is let in", || {
        let conn = a.attempt(PORT).connected();
        conn.is_some_and(|conn| conn.rest(SOON).0 == b"c\n")
    });
}

#[test]
fn commands_say_what_comes_from_the_directory() {
    let (net, etcd) = net();
    let (a, c) = (net.host("a"), net.host("c"));
    let lines: String = (PORT..PORT + 7)
        .flat_map(|port| [FIRST_POD, FIRST_POD + 1].map(|pod| format!("{port}:{pod}:9:false\n")))
        .collect();
    c.mappings(&format!("{lines}{}:{FIRST_POD}:1:false\n", PORT + 7));
    c.pod(FIRST_POD, Pod::answering("c"));
    c.pod(FIRST_POD + 1, Pod::answering("c"));
    start(net.all_hosts());

    let full = a.open(PORT + 7);
    assert_eq!(full.line(), "c");
    let block = "/snproxy/default/hosts/10.77.0.3:32767/1024";
    let stored = "1\n1024-1030 2\n1031 1 full\n";
    eventually(SOON, "it is said to be full", || {
        etcd.ctl(&net, &["get", block, "--print-value-only"]).trim() == stored.trim()
    });
    let told = |words: &[&str], expected: &str| {
        eventually(SOON, expected, || {
            let output = a.run(words);
            String::from_utf8_lossy(&output.stdout).contains(expected)
        });
    };
    told(
        &["status"],
        "directory    current: cluster default at http://10.77.0.102:2379, 2 other hosts with 8 ports; \
         this host is published as 10.77.0.1:32767",
    );
    told(&["routes"], "up, in the cluster directory");
    told(&["routes"], "10.77.0.3 busy (published, 1 live)");
    told(
        &["explain", "1024"],
        "serves it, pods 2, says the cluster directory",
    );
    told(
        &["explain", "1032"],
        "now: the kernel refuses the connection (no host serves it)",
    );
    told(&["ports"], "no host serves it");
}

#[test]
fn without_ebpf_ports_of_other_hosts_have_listeners_of_their_own() {
    let (net, mut etcd) = net();
    let (a, c) = (net.host("a"), net.host("c"));
    serve(c, &[PORT, PORT + 1], 100);
    a.conf("STEERING", "listeners");
    start(net.all_hosts());

    eventually(SOON, "they listen", || {
        a.action(PORT) == "steer" && a.action(PORT + 1) == "steer"
    });
    assert_eq!(a.open(PORT).greeting(), "c");
    assert_eq!(a.open(PORT + 1).greeting(), "c");
    assert!(a.is_refused(2000));
    map(c, &[PORT], 100);
    eventually(SOON, "nobody listens", || a.is_refused(PORT + 1));
    // What was known last is still served without etcd.
    etcd.stop();
    eventually(SOON * 2, "the directory is stale", || {
        directory(a)["state"] == "stale"
    });
    assert_eq!(a.open(PORT).greeting(), "c");
}
