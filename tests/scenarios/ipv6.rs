//! HOST in all its forms: which addresses are ours, which are not, and what the pod is told.

use snproxy_tests::{Conn, Host, Net, Pod, eventually};
use std::{net::SocketAddr, time::Duration};

const SOON: Duration = Duration::from_secs(10);

/// The line that tells a pod of this connection.
fn expected(conn: &Conn, to: SocketAddr) -> String {
    let from = conn.local();
    let family = if to.is_ipv4() { "TCP4" } else { "TCP6" };
    format!(
        "PROXY {family} {} {} {} {}",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    )
}

/// The net's client reaches the sendProxy pod behind port 1024 of this address, and the pod learns both ends.
#[track_caller]
fn is_ours(net: &Net, host: &Host, pod: &Pod, to: impl Into<SocketAddr>) {
    let to = to.into();
    let (steered, visitors) = (host.steered(), pod.accepted());
    let conn = net.client().open(to);
    conn.send("payload");
    let heard = pod.visit(visitors).wait_for_bytes(1);
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert_eq!(heard.lines().next(), Some(expected(&conn, to).as_str()));
    host.assert_steered(steered + 1);
}

/// A program that listens on port 1024 of this address keeps it; without it the port is refused, and neither is counted.
#[track_caller]
fn is_not_ours(net: &Net, host: &Host, to: impl Into<SocketAddr>) {
    let to = to.into();
    let counts = || host.steered() + host.count("/kernel/refused");
    let before = counts();
    for _ in 0..20 {
        assert!(net.client().is_refused(to));
    }
    let program = host.pod_at(to, Pod::answering("program"));
    for _ in 0..20 {
        assert_eq!(net.client().open(to).greeting(), "program");
    }
    // Stray segments of earlier connections to us aside.
    assert!(counts() < before + 10, "{before}, then {}", counts());
    program.stop();
}

fn one_host_with_more_addresses() -> (Net, [SocketAddr; 2]) {
    let net = Net::one();
    let namespace = net.host("host").namespace();
    namespace.ip("address add 10.77.0.9/24 dev eth0");
    namespace.ip("address add fd77::9/64 dev eth0 nodad");
    let more = ["10.77.0.9:1024", "[fd77::9]:1024"].map(|at| at.parse().expect("an address"));
    (net, more)
}

/// A sendProxy pod behind port 1024, and snproxy started with this HOST.
fn started(host: &Host, address: &str) -> Pod {
    let pod = host.pod(30000, Pod::recording());
    host.conf("HOST", address)
        .mappings("1024:30000:9:true\n")
        .start();
    assert_eq!(host.status()["host"], address);
    pod
}

#[test]
fn both_families_are_served_by_one_dual_stack_socket() {
    let (net, more) = one_host_with_more_addresses();
    let host = net.host("host");
    let pod = started(host, "::");

    for to in [host.port(1024), host.port6(1024), more[0], more[1]] {
        is_ours(&net, host, &pod, to);
    }
    // Refused in both families as well.
    for to in [host.port(1025), host.port6(1025)] {
        assert!(net.client().is_refused(to));
    }
    let log = host.log();
    assert!(!log.contains("::ffff:"), "addresses are canonical: {log}");
}

#[test]
fn one_ipv6_address_leaves_all_others_alone() {
    let (net, more) = one_host_with_more_addresses();
    let host = net.host("host");
    let pod = started(host, "fd77::1");

    is_ours(&net, host, &pod, host.port6(1024));
    for to in [host.port(1024), more[0], more[1]] {
        is_not_ours(&net, host, to);
    }
    is_ours(&net, host, &pod, host.port6(1024));
}

#[test]
fn all_ipv4_addresses_leave_ipv6_alone() {
    let (net, more) = one_host_with_more_addresses();
    let host = net.host("host");
    let pod = started(host, "0.0.0.0");

    for to in [host.port(1024), more[0]] {
        is_ours(&net, host, &pod, to);
    }
    for to in [host.port6(1024), more[1]] {
        is_not_ours(&net, host, to);
    }
    is_ours(&net, host, &pod, more[0]);
}

#[test]
fn one_ipv4_address_leaves_all_others_alone() {
    let (net, more) = one_host_with_more_addresses();
    let host = net.host("host");
    let pod = started(host, "10.77.0.1");

    is_ours(&net, host, &pod, host.port(1024));
    for to in [host.port6(1024), more[0], more[1]] {
        is_not_ours(&net, host, to);
    }
    is_ours(&net, host, &pod, host.port(1024));
}

#[test]
fn a_killed_pod_is_refused_in_both_families() {
    let (net, more) = one_host_with_more_addresses();
    let host = net.host("host");
    let pod = started(host, "::");
    is_ours(&net, host, &pod, host.port6(1024));

    pod.stop();
    eventually(SOON, "1024 is to be refused", || {
        host.action(1024) == "refuse"
    });
    for to in [host.port(1024), host.port6(1024), more[0], more[1]] {
        assert!(net.client().is_refused(to));
    }
    host.assert_refused(4);
    host.assert_steered(1);
}
