//! Another etcd in the place of the one that was read: nothing of the old one stays.

use super::{Etcd, FILE, SOON, SRV, proxy, service};
use rustix::process::Signal;
use snproxy_tests::{Host, Net, eventually};

/// Waits until these are the nodes, told by the last line that the log has of them.
#[track_caller]
fn has_only(host: &Host, node: &str) {
    let came = format!("came=\"{node}\"");
    eventually(SOON, &format!("only {node}"), || {
        let log = host.log();
        let last = log.lines().rfind(|line| line.contains("INFO nodes "));
        let service = service(host);
        let is_only = service["nodes"] == 1 && service["stale_ms"].is_null();
        is_only && last.is_some_and(|line| line.contains(&came))
    });
}

/// More changes than the etcd before had, so that no revision tells.
fn put_often(etcd: &Etcd<'_>, node: &str) {
    let before = etcd.revision();
    for _ in 0..10 {
        etcd.put(node);
    }
    assert!(etcd.revision() >= before + 10);
}

#[test]
fn an_etcd_that_lost_all_it_had_is_read_anew_though_its_revision_is_higher() {
    let net = Net::hosts(["proxy"]);
    let host = net.host("proxy");
    let etcd = Etcd::start(&net, &["proxy"]);
    etcd.put("10.77.0.8:1");
    etcd.put("10.77.0.9:1");
    proxy(host, &etcd.urls(), FILE);
    assert_eq!(service(host)["nodes"], 2);

    // While the proxy looks on.
    etcd.kill(0);
    eventually(SOON, "stale", || service(host)["stale_ms"].is_u64());
    etcd.forget(0);
    etcd.go_on(0);
    put_often(&etcd, "10.77.0.7:1");
    has_only(host, "10.77.0.7:1");

    // While it does not: it never finds etcd away.
    host.signal(Signal::STOP);
    etcd.kill(0);
    etcd.forget(0);
    etcd.go_on(0);
    put_often(&etcd, "10.77.0.6:1");
    put_often(&etcd, "10.77.0.6:1");
    host.signal(Signal::CONT);
    has_only(host, "10.77.0.6:1");

    // And back to a revision that was.
    etcd.kill(0);
    etcd.forget(0);
    etcd.go_on(0);
    etcd.done(&["put", &format!("{SRV}/10.77.0.5:1"), ""]);
    has_only(host, "10.77.0.5:1");
}
