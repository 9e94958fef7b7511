//! Source ports run out towards one pod or target.

use snproxy_tests::{Conn, Host, Net, Pod, eventually};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    net::IpAddr,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(20);
const PORTS: usize = 100;
/// As many ports as [`PORTS`], none of them a cluster port or a pod's.
const RANGE: &str = "40000 40099";

/// So many connections to a port of this host, each served and held.
#[track_caller]
fn hold(host: &Host, port: u16, count: usize) -> Vec<Conn> {
    let held: Vec<Conn> = (0..count).map(|_| host.open(port)).collect();
    for (number, conn) in held.iter().enumerate() {
        assert_eq!(conn.greeting(), "a", "connection {number}");
    }
    held
}

/// Whether anything comes before the end.
fn is_greeted(conn: &Conn) -> bool {
    conn.stream().read(&mut [0; 2]).is_ok_and(|read| read > 0)
}

/// How many visitors a pod had from each address.
fn visitors(pod: &Pod) -> BTreeMap<IpAddr, usize> {
    let mut visitors = BTreeMap::new();
    for visit in pod.visits() {
        *visitors.entry(visit.peer().ip()).or_default() += 1;
    }
    visitors
}

#[test]
fn a_pod_here_is_dialled_from_further_addresses_of_loopback() {
    let net = Net::one();
    let host = net.host("host");
    host.namespace().sysctl("ipv4/ip_local_port_range", RANGE);
    for (pod_host, ordinary) in [
        ("10.77.0.1", host.v4()),
        ("127.0.0.1", [127, 0, 0, 1].into()),
    ] {
        let pod = host.pod(30000, Pod::answering("a"));
        host.conf("PODHOST", pod_host)
            .mappings("1024:30000:9999:false\n")
            .start();
        let held = hold(host, 1024, 4 * PORTS);
        let visitors = visitors(&pod);
        println!("PODHOST {pod_host}: {visitors:?}");
        let further: BTreeSet<IpAddr> = (2..=4).map(|last| [127, 0, 0, last].into()).collect();
        let seen: BTreeSet<IpAddr> = visitors.keys().copied().collect();
        assert!(seen.is_superset(&further), "{seen:?}");
        assert!(visitors[&ordinary] > PORTS / 2, "the ordinary one first");
        assert_eq!(host.ends("source_ports") + host.ends("no_upstream"), 0);
        assert!(
            host.log()
                .contains("dialled from 127.0.0.2 and further addresses"),
            "{}",
            host.log()
        );
        drop(held);
        eventually(SOON, "all are out", || host.count("/connections/live") == 0);
        host.stop();
        pod.stop();
    }
}

#[test]
fn towards_another_machine_the_end_names_the_cause_after_a_warning() {
    let net = Net::hosts(["proxy", "other"]);
    let (proxy, other) = (net.host("proxy"), net.host("other"));
    proxy.namespace().sysctl("ipv4/ip_local_port_range", RANGE);
    let _pod = other.pod(6001, Pod::answering("a"));
    proxy
        .conf("APPSCONF", "config.json")
        .replace(
            "config.json",
            r#"{"Apps":[{"Name":"a","Ports":[5001],"Targets":["10.77.0.2:6001"]}]}"#,
        )
        .start();
    let mut held = hold(proxy, 5001, PORTS / 2);
    assert!(!proxy.log().contains("run short"), "{}", proxy.log());
    held.extend(hold(proxy, 5001, PORTS / 2 - 10));
    eventually(SOON, "it is said before they run out", || {
        proxy
            .log()
            .contains("source ports run short: up to 90 of 100")
    });
    held.extend(hold(proxy, 5001, 10));
    assert_eq!(proxy.ends("source_ports"), 0);
    assert!(proxy.is_reset(5001), "number 101");
    assert_eq!(proxy.ends("source_ports"), 1);
    let log = proxy.log();
    assert!(log.contains("no source port is left towards it"), "{log}");
    assert!(!log.contains("pod is down"), "{log}");

    // A port more, without a reload.
    proxy
        .namespace()
        .sysctl("ipv4/ip_local_port_range", "40000 40100");
    eventually(SOON, "the port is found", || {
        let conn = proxy.attempt(5001).connected();
        held.extend(conn.filter(is_greeted));
        held.len() == PORTS + 1
    });
    assert!(proxy.is_reset(5001));

    // Nor are all ports searched for each client that comes meanwhile.
    let before = proxy.ends("source_ports");
    for _ in 0..100 {
        assert!(proxy.is_reset(5001));
    }
    assert_eq!(proxy.ends("source_ports"), before + 100);

    // The client is the one who ends: the ports may wait in TIME_WAIT for a minute.
    proxy.namespace().sysctl("ipv4/tcp_tw_reuse", "1");
    held.truncate(PORTS / 2);
    let mut again = None;
    eventually(SOON, "places come free", || {
        let conn = proxy.attempt(5001).connected();
        again = conn.filter(is_greeted);
        again.is_some()
    });
}

#[test]
fn another_host_without_ports_towards_it_is_no_dead_one() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    a.namespace().sysctl("ipv4/ip_local_port_range", RANGE);
    let _pod = b.pod(30000, Pod::answering("a"));
    b.mappings("1024:30000:9999:false\n").start();
    a.start();
    let mut held = Vec::new();
    let mut is_served = true;
    while is_served {
        assert!(held.len() < 2 * PORTS, "they run out");
        let conn = a.attempt(1024).connected();
        let served = conn.filter(is_greeted);
        is_served = served.is_some();
        held.extend(served);
    }
    println!("{} calls from {PORTS} ports", held.len());
    assert!(a.ends("source_ports") > 0);
    assert!(!a.log().contains("host is down"), "{}", a.log());
}
