//! `snproxy register`: the key is there while the node is.

use super::{Etcd, SOON, register};
use snproxy_tests::{Figure, Net, Pod, eventually, print_figure};
use std::time::{Duration, Instant};

/// The shortest lease that there is.
const TTL: Duration = Duration::from_secs(5);

#[test]
fn a_node_is_registered_while_it_takes_connections() {
    let net = Net::hosts(["one", "etcd"]);
    let [one, _] = ["one", "etcd"].map(|name| net.host(name));
    let etcd = Etcd::start(&net, &["etcd"]);
    let (v4, v6) = (one.port(6001).to_string(), one.port6(6002).to_string());
    let plain = register(one, &etcd.urls(), &v4, &["--ttl", "5s"]);
    let unchecked = ["--check", "none", "--value", "{}"];
    let six = register(one, &etcd.urls(), &v6, &unchecked);
    eventually(SOON, "the unchecked node", || etcd.nodes() == [v6.as_str()]);
    let pod = one.pod(6001, Pod::echo());
    let both = [v4.as_str(), &v6];
    eventually(SOON, "both nodes", || etcd.nodes() == both);
    let value = etcd.done(&["get", "/srv/echo/", "--prefix", "--print-value-only"]);
    assert_eq!(value.trim(), "{}");

    // Kept alive for longer than the lease, and put back when somebody removes it.
    etcd.delete(&v4);
    eventually(SOON, "it is back", || etcd.nodes() == both);
    plain.wait_for_line(SOON, "somebody removed the key");
    let lease = etcd.done(&["lease", "list"]);
    assert!(lease.contains("found 2 leases"), "{lease}");

    pod.stop();
    eventually(SOON, "the node is away", || etcd.nodes() == [v6.as_str()]);
    plain.wait_for_line(SOON, "the node takes no connections");
    let _pod = one.pod(6001, Pod::echo());
    eventually(SOON, "the node is back", || etcd.nodes() == both);

    let began = Instant::now();
    assert!(six.stop(SOON).success());
    assert_eq!(etcd.nodes(), [v4.as_str()], "TERM takes it away at once");
    print_figure(
        "register: from TERM to a node that is gone",
        Figure::Time(began.elapsed()),
        Figure::Time(Duration::from_secs(1)),
    );
    plain.kill();
    let gone = eventually(SOON, "the lease is over", || etcd.nodes().is_empty());
    print_figure(
        "register: from -9 to a node that is gone",
        Figure::Time(gone),
        Figure::Time(TTL + Duration::from_secs(2)),
    );
}

#[test]
fn a_lease_that_was_lost_is_granted_anew() {
    let net = Net::hosts(["one"]);
    let one = net.host("one");
    let etcd = Etcd::start(&net, &["one"]);
    let node = one.port(6001).to_string();
    let process = register(
        one,
        &etcd.urls(),
        &node,
        &["--check", "none", "--ttl", "5s"],
    );
    eventually(SOON, "registered", || etcd.nodes() == [node.as_str()]);
    process.freeze();
    eventually(SOON, "the lease is over", || etcd.nodes().is_empty());
    process.thaw();
    eventually(SOON, "registered again", || etcd.nodes() == [node.as_str()]);
    process.wait_for_line(SOON, "the lease is over: a new one is asked for");
    // Without etcd it ends with another exit code, for the key is still there.
    etcd.kill(0);
    let status = process.stop(SOON);
    assert_eq!(status.code(), Some(1));
    assert!(process.log().contains("it goes with its lease"));
}
