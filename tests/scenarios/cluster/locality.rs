//! LOCALITY: pods of this host, of all hosts, or first these and then those.

use super::{PORT, SOON, greeted, map, serve, start_all};
use snproxy_tests::{Conn, Host, Net, eventually};

const ROOM: u32 = 5;

/// A connection that is held open, and who it reached.
#[track_caller]
fn hold(host: &Host) -> (Conn, String) {
    let conn = host.open(PORT);
    let name = conn.greeting();
    (conn, name)
}

/// Hosts a and b with a pod each; that of a has [`ROOM`].
fn two_hosts(locality: &str) -> Net {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    serve(a, 1);
    map(a, 1, ROOM);
    serve(b, 1);
    a.conf("LOCALITY", locality);
    start_all(&net);
    net
}

#[test]
fn prefer_fills_the_local_pod_before_it_crosses() {
    let net = two_hosts("prefer");
    let a = net.host("a");

    let mut held: Vec<_> = (0..ROOM).map(|_| hold(a)).collect();
    assert!(held.iter().all(|(_, name)| name == "a"));
    held.extend((0..10).map(|_| hold(a)));
    assert!(held[5..].iter().all(|(_, name)| name == "b"));

    drop(held);
    eventually(SOON, "there is room again", || {
        a.count("/connections/live") == 0
    });
    for _ in 0..50 {
        let (conn, name) = hold(a);
        assert_eq!(name, "a");
        drop(conn);
        eventually(SOON, "it is gone", || a.count("/connections/live") == 0);
    }
}

#[test]
fn only_never_crosses() {
    let net = two_hosts("only");
    let (a, b) = (net.host("a"), net.host("b"));

    let held: Vec<_> = (0..ROOM).map(|_| hold(a)).collect();
    assert!(held.iter().all(|(_, name)| name == "a"));
    assert!(a.is_reset(PORT));
    eventually(SOON, "its end is counted", || a.ends("busy") == 1);
    assert_eq!(b.count("/connections/total"), 0);
    drop(held);

    // The other way round nothing changes: b balances.
    let mut names: Vec<_> = (0..40).map(|_| greeted(b).0).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["a", "b"]);
}
