//! Policies on the running proxy: weights, clients that stay where they are, and what a reload changes of it.

use snproxy_tests::{Attempt, Client, Conn, Host, Net, Pod, eventually};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

const SOON: Duration = Duration::from_secs(15);
const WHILE: Duration = Duration::from_millis(300);
const CLIENTS: u8 = 24;

/// One app of these targets, each of a weight.
fn config(host: &Host, balance: &str, targets: &[(u16, u32)]) -> String {
    let targets: Vec<String> = targets
        .iter()
        .map(|(port, weight)| {
            let at = SocketAddr::new(host.v4(), *port);
            format!(r#"{{"Addr":"{at}","Weight":{weight}}}"#)
        })
        .collect();
    format!(
        r#"{{"Apps":[{{"Name":"app","Ports":[5001],"Balance":"{balance}","Targets":[{}]}}]}}"#,
        targets.join(",")
    )
}

fn pods(host: &Host) -> [Pod; 3] {
    [(30000, "a"), (30001, "b"), (30002, "c")]
        .map(|(port, name)| host.pod(port, Pod::answering(name)))
}

/// A connection from a client address of its own.
fn from(client: &Client, last: u8, host: &Host, port: u16) -> Conn {
    match client.attempt_from(([10, 99, 0, last], 0), host.port(port)) {
        Attempt::Connected(conn) => conn,
        attempt => panic!("{attempt:?}"),
    }
}

/// Which pod each client gets.
fn places(client: &Client, host: &Host, port: u16) -> BTreeMap<u8, String> {
    (1..=CLIENTS)
        .map(|last| (last, from(client, last, host, port).greeting()))
        .collect()
}

#[test]
fn connections_go_by_weight_and_weight_0_keeps_what_it_has() {
    let net = Net::one();
    let host = net.host("host");
    let pods = pods(host);
    host.replace(
        "config.json",
        &config(host, "wrr", &[(30000, 1), (30001, 2), (30002, 5)]),
    );
    host.conf("APPSCONF", "config.json").mappings("").start();
    for _ in 0..80 {
        let _ = host.open(5001).greeting();
    }
    assert_eq!(pods.each_ref().map(Pod::accepted), [10, 20, 50]);

    let held: Vec<Conn> = (0..8).map(|_| host.open(5001)).collect();
    let names: Vec<String> = held.iter().map(Conn::greeting).collect();
    host.reloaded_after(|host| {
        host.replace(
            "config.json",
            &config(host, "wrr", &[(30000, 1), (30001, 2), (30002, 0)]),
        );
    });
    let before = pods[2].accepted();
    for _ in 0..30 {
        let _ = host.open(5001).greeting();
    }
    assert_eq!(pods[2].accepted(), before, "nothing new");
    assert!(names.iter().any(|name| name == "c"));
    for conn in &held {
        assert!(conn.stays_quiet(Duration::from_millis(20)), "kept");
    }
}

#[test]
fn sh_and_mh_keep_a_client_at_its_pod_while_others_change() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let _pods = pods(host);
    let _fourth = host.pod(30003, Pod::answering("d"));
    for last in 1..=CLIENTS {
        client.add_address(&format!("10.99.0.{last}/32"));
    }
    host.namespace()
        .ip(&format!("route add 10.99.0.0/24 via {}", client.v4()));
    let three = "1024:30000:99:false 1024:30001:99:false 1024:30002:99:false\n\
                 1025:30000:99:false 1025:30001:99:false 1025:30002:99:false\n";
    host.conf("BALANCE", "1024 sh")
        .conf("HEALTH", "passive")
        .mappings(three)
        .start();
    host.reloaded_after(|host| {
        host.replace(
            "proxy.conf",
            &format!(
                "{}\nBALANCE 1025 mh\n",
                std::fs::read_to_string(host.conf_file()).unwrap()
            ),
        );
    });
    for (port, policy) in [(1024, "sh"), (1025, "mh")] {
        host.reloaded_after(|host| {
            host.mappings(&format!("{three}# {policy}\n"));
        });
        let first = places(client, host, port);
        assert_eq!(
            places(client, host, port),
            first,
            "{policy}: the same each time"
        );
        let names: std::collections::BTreeSet<_> = first.values().collect();
        assert!(names.len() > 1, "{policy}: {names:?}");
        for (last, pod) in &first {
            let words = [
                "explain",
                &port.to_string(),
                "--from",
                &format!("10.99.0.{last}"),
            ];
            let told = host.run(&words);
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            let number = 30000 + u16::from(pod.as_bytes()[0] - b'a');
            let place = told
                .lines()
                .find(|line| line.trim_start().starts_with("1 "));
            assert!(
                place.is_some_and(|line| line.contains(&format!(":{number} "))),
                "{policy}: 10.99.0.{last} is at {pod}, not as explained:\n{told}"
            );
        }
        // One is taken out: its clients move, and nearly nobody else.
        host.reloaded_after(|host| {
            host.mappings(&three.replace(&format!("{port}:30001:99:false"), ""));
        });
        let without = places(client, host, port);
        let moved = first
            .iter()
            .filter(|(last, pod)| *pod != "b" && without[*last] != **pod)
            .count();
        println!("{policy}: {moved} of {CLIENTS} moved without need");
        assert!(moved <= if policy == "sh" { 0 } else { 2 });
        assert!(without.values().all(|pod| pod != "b"));
        // Another one comes: who moves, moves to it.
        host.reloaded_after(|host| {
            host.mappings(&format!("{three}{port}:30003:99:false\n"));
        });
        let with = places(client, host, port);
        let elsewhere = first
            .iter()
            .filter(|(last, pod)| with[*last] != **pod && with[*last] != "d")
            .count();
        assert!(elsewhere <= if policy == "sh" { 0 } else { 2 }, "{policy}");
    }
}

#[test]
fn a_drain_serves_those_that_wait_and_cuts_them_at_its_end() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("a"));
    host.conf("MAXCONN", "1")
        .conf("QUEUE", "5")
        .conf("DRAINTIMEOUT", "3s")
        .mappings("1024:30000:9:false\n")
        .start();
    let inside = host.open(1024);
    assert_eq!(inside.greeting(), "a");
    let wait = |count: usize| {
        eventually(SOON, "they wait", || {
            host.status()["queues"][0]["waiting"]
                .as_array()
                .is_some_and(|waiting| waiting.len() == count)
        });
    };
    let first = host.open(1024);
    wait(1);
    let second = host.open(1024);
    wait(2);
    let snproxy = host.snproxy();
    host.signal(rustix::process::Signal::TERM);
    snproxy.wait_for_line(SOON, "draining");
    drop(inside);
    assert_eq!(first.greeting(), "a", "a place came free in time");
    assert!(second.stays_quiet(WHILE));
    eventually(SOON, "it ends", || snproxy.exit_status().is_some());
    assert_eq!(second.ended(), snproxy_tests::Ended::Reset);
}

#[test]
fn a_pod_that_comes_gets_its_share_little_by_little() {
    let net = Net::one();
    let host = net.host("host");
    let pods = pods(host);
    let two = "1024:30000:99:false 1024:30001:99:false";
    host.conf("BALANCE", "rr")
        .conf("SLOWSTART", "6s")
        .mappings(two)
        .start();
    let share = || {
        let before = pods[2].accepted();
        for _ in 0..90 {
            let _ = host.open(1024).greeting();
        }
        pods[2].accepted() - before
    };
    host.reloaded_after(|host| {
        host.mappings(&format!("{two} 1024:30002:99:false"));
    });
    let early = share();
    assert!(early < 25, "{early} of 90 at once");
    eventually(SOON, "it has its third", || share() == 30);
    println!("{early} of 90 at first, then 30");
}

/// Two pods of port 1024, by this policy.
fn two_pods(host: &Host, balance: &str, pods: [Pod; 2], max_conn: u32) -> [Pod; 2] {
    let [a, b] = pods;
    let mappings = format!("1024:30000:{max_conn}:false\n1024:30001:900:false\n");
    host.conf("BALANCE", balance).mappings(&mappings);
    let pods = [host.pod(30000, a), host.pod(30001, b)];
    host.start();
    pods
}

#[test]
fn an_idle_connection_keeps_no_short_ones_from_its_pod() {
    for balance in ["p2c", "lc"] {
        let net = Net::one();
        let host = net.host("host");
        let names = [Pod::answering("a"), Pod::answering("b")];
        let pods = two_pods(host, balance, names, 900);
        // For `lc` without one: there it is a load.
        let idle = (balance == "p2c").then(|| host.open(1024));
        if let Some(idle) = &idle {
            let _ = idle.greeting();
        }
        let before = pods.each_ref().map(Pod::accepted);
        for _ in 0..200 {
            let _ = host.open(1024).greeting();
        }
        let after = pods.each_ref().map(Pod::accepted);
        let share = after[0] - before[0];
        assert!((80..=120).contains(&share), "{balance}: {share} of 200");
    }
}

#[test]
fn a_connection_that_its_pod_has_ended_is_no_load_and_holds_its_place() {
    let net = Net::one();
    let host = net.host("host");
    let pods = [Pod::answering_once("a"), Pod::answering("b")];
    let [ends, stays] = two_pods(host, "lc", pods, 3);
    let mut held = Vec::new();
    for _ in 0..10 {
        let conn = host.open(1024);
        let _ = conn.line();
        // The pod's end is known here, and so in the proxy.
        std::thread::sleep(Duration::from_millis(20));
        held.push(conn);
    }
    // Equally loaded at first: they took turns at most once before the first one of `b` stayed.
    assert_eq!(ends.accepted(), 3, "as many as maxConn allows");
    assert_eq!(stays.accepted(), 7);
    let full = held.len();
    assert_eq!(ends.inside(), 3, "{full} are held");
    drop(held);
    eventually(SOON, "places are free again", || ends.inside() == 0);
    for _ in 0..4 {
        let _ = host.open(1024).line();
    }
    assert!(ends.accepted() >= 4);
}
