//! Three members: a leader that dies, a quorum that is lost, and revisions that are gone.

use super::{Etcd, FILE, PORT, SOON, proxy, service};
use rustix::process::Signal;
use snproxy_tests::{Conn, Figure, Host, Net, Pod, eventually, print_figure};
use std::time::{Duration, Instant};

/// Time for an election, and for the proxy to see that a member says nothing any more.
const ELECTION: Duration = Duration::from_secs(6);

/// Whether a connection still carries bytes both ways.
#[track_caller]
fn assert_alive(held: &Conn) {
    held.send(b"still there?\n");
    assert_eq!(held.line(), "still there?");
}

/// Registers a node, and waits until the proxy has as many as etcd.
#[track_caller]
fn put_and_see(etcd: &Etcd<'_>, host: &Host, node: &str, what: &str) {
    let began = Instant::now();
    etcd.put(node);
    let count = etcd.nodes().len();
    eventually(SOON, &format!("the node put after {what}"), || {
        service(host)["nodes"] == count
    });
    let name = format!("etcd, {what}: from the first try to put a node to its place in the table");
    print_figure(&name, Figure::Time(began.elapsed()), Figure::Time(ELECTION));
}

#[test]
fn a_leader_that_dies_and_a_quorum_that_is_lost_end_no_connection() {
    let net = Net::hosts(["proxy", "one", "two", "three"]);
    let [host, one] = ["proxy", "one"].map(|name| net.host(name));
    let _pod = host.pod(6001, Pod::echo());
    let etcd = Etcd::start(&net, &["one", "two", "three"]);
    // First in order, whatever else comes.
    etcd.put(&host.port(6001).to_string());
    proxy(host, &etcd.urls(), FILE);
    let held = host.open(PORT);
    assert_alive(&held);

    let leader = etcd.leader();
    etcd.kill(leader);
    put_and_see(&etcd, host, &one.port(7001).to_string(), "the leader died");
    assert_alive(&held);
    etcd.go_on(leader);

    // A leader that stands still keeps its sockets open and says nothing.
    let leader = etcd.leader();
    etcd.signal(leader, Signal::STOP);
    put_and_see(
        &etcd,
        host,
        &one.port(7002).to_string(),
        "the leader stopped",
    );
    etcd.signal(leader, Signal::CONT);

    // Two of three: nobody can tell, and the last nodes go on.
    let leader = etcd.leader();
    let others: Vec<usize> = (0..etcd.len()).filter(|at| *at != leader).collect();
    for at in &others {
        etcd.signal(*at, Signal::STOP);
    }
    eventually(SOON, "stale", || service(host)["stale_ms"].is_u64());
    assert_alive(&held);
    assert_alive(&host.open(PORT));
    for at in &others {
        etcd.signal(*at, Signal::CONT);
    }
    put_and_see(
        &etcd,
        host,
        &one.port(7003).to_string(),
        "the quorum was back",
    );
    assert!(service(host)["stale_ms"].is_null());

    // All of them, while the proxy stands still: what changed meanwhile is compacted when it looks.
    host.snproxy().freeze();
    for at in 0..etcd.len() {
        etcd.kill(at);
    }
    for at in 0..etcd.len() {
        etcd.go_on(at);
    }
    etcd.delete(&one.port(7001).to_string());
    for port in 7004..7008 {
        etcd.put(&one.port(port).to_string());
    }
    let revision = etcd.revision().to_string();
    etcd.done(&["compaction", &revision]);
    host.snproxy().thaw();
    let count = etcd.nodes().len();
    assert_eq!(count, 7);
    eventually(SOON, "what was compacted is read", || {
        service(host)["nodes"] == count
    });
    // The watch goes on from there.
    put_and_see(&etcd, host, &one.port(7009).to_string(), "a compaction");
    assert_alive(&held);
    assert_alive(&host.open(PORT));
    let ends = &host.status()["ends"];
    assert_eq!(
        (&ends["upstream"], &ends["removed"]),
        (&0.into(), &0.into()),
        "{ends}"
    );
}
