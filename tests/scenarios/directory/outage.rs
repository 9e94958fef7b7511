//! etcd goes away, and comes back.

use super::{PATIENCE, PORT, SOON, directory, knows, net, serve, start};
use snproxy_tests::{Host, eventually};
use std::time::Duration;

#[test]
fn traffic_goes_on_without_etcd_and_what_changed_is_known_once_it_is_back() {
    let (net, mut etcd) = net();
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    serve(b, &[PORT + 1], 100);
    serve(c, &[PORT], 100);
    start(net.all_hosts());
    let is_served = |host: &Host| {
        assert_eq!(host.open(PORT).greeting(), "c");
        assert_eq!(host.open(PORT + 1).greeting(), "b");
    };
    eventually(SOON, "the port is refused", || a.is_refused(2000));
    let open = a.open(PORT);
    assert_eq!(open.line(), "c");

    etcd.stop();
    for host in [a, b, c] {
        eventually(PATIENCE, "the directory is stale", || {
            is_served(host);
            directory(host)["state"] == "stale"
        });
        assert_eq!(directory(host)["hosts"], 2);
        assert_eq!(host.action(2000), "steer", "somebody may serve it by now");
    }
    // Found out by asking, for nobody says it.
    serve_more(c);
    eventually(SOON, "a new port is found by asking", || {
        let conn = a.attempt(2000).connected();
        conn.is_some_and(|conn| conn.rest(Duration::from_secs(1)).0 == b"c\n")
    });
    // One that dies now stays in the table, and is no way to anybody.
    b.crash();
    assert!(a.is_reset(PORT + 1));

    etcd.go_on(&net);
    knows(a, 1);
    knows(c, 1);
    eventually(PATIENCE, "what changed is known", || {
        a.is_refused(PORT + 1) && a.action(2000) == "steer" && a.is_refused(2001)
    });
    assert_eq!(a.open(PORT).greeting(), "c");
    assert_eq!(a.open(2000).greeting(), "c");
    assert!(
        open.stays_quiet(Duration::from_millis(50)),
        "it was never touched"
    );
}

fn serve_more(host: &Host) {
    host.reloaded_after(|host| super::map(host, &[PORT, 2000], 100));
}

#[test]
fn keys_that_somebody_removed_or_that_cannot_be_read_are_mended() {
    let (net, etcd) = net();
    let (a, c) = (net.host("a"), net.host("c"));
    serve(c, &[PORT], 100);
    start(net.all_hosts());

    let key = "/snproxy/default/hosts/10.77.0.3:32767";
    assert_eq!(
        etcd.ctl(&net, &["get", key, "--print-value-only"]).trim(),
        "1 10.77.0.3"
    );
    let block = format!("{key}/1024");
    assert_eq!(
        etcd.ctl(&net, &["get", &block, "--print-value-only"])
            .trim(),
        "1\n1024 1"
    );
    etcd.ctl(&net, &["del", "--prefix", key]);
    eventually(SOON, "it is there again", || a.is_greeted(PORT, "c"));
    // Not by us: its host is asked meanwhile.
    etcd.ctl(&net, &["put", &block, "2\nof the future"]);
    for _ in 0..5 {
        assert_eq!(a.open(PORT).greeting(), "c");
    }
    eventually(SOON, "said again", || {
        etcd.ctl(&net, &["get", &block, "--print-value-only"])
            .trim()
            == "1\n1024 1"
    });
    knows(a, 2);
    etcd.ctl(&net, &["put", "/snproxy/default/hosts/rubbish", "x"]);
    eventually(SOON, "said once", || a.log().contains("rubbish"));
    assert_eq!(a.open(PORT).greeting(), "c");
}
