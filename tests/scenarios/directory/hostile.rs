//! What somebody else writes there harms nobody.

use super::{PORT, SOON, directory, net, serve, start};
use snproxy_tests::{Host, eventually};
use std::time::Duration;

/// Ports that hosts are said to be at, each of which serves the other one.
const FALSE_PORTS: [u16; 2] = [8080, 8081];

/// Opens a port, and waits for what becomes of it.
fn knock(host: &Host, port: u16) {
    if let Some(conn) = host.attempt(port).connected() {
        conn.rest(Duration::from_secs(1));
    }
}

#[test]
fn hosts_at_cluster_ports_are_left_out_so_that_nothing_goes_round_in_circles() {
    let (net, etcd) = net();
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    serve(c, &[PORT], 100);
    start(net.all_hosts());
    let hosts = "/snproxy/default/hosts";
    // One at its own address, and two crosswise.
    for (ip, at, serves) in [
        ("10.77.0.1", FALSE_PORTS[0], FALSE_PORTS[0]),
        ("10.77.0.1", FALSE_PORTS[1], FALSE_PORTS[0]),
        ("10.77.0.3", FALSE_PORTS[0], FALSE_PORTS[1]),
    ] {
        let key = format!("{hosts}/{ip}:{at}");
        etcd.ctl(
            &net,
            &["put", &format!("{key}/7168"), &format!("1\n{serves} 1\n")],
        );
        etcd.ctl(&net, &["put", &key, "1 x"]);
    }
    serve(b, &[PORT + 1], 100);
    for host in [a, c] {
        eventually(SOON, "all that is read", || {
            host.action(PORT + 1) == "steer"
        });
    }
    let before = [a, c].map(|host| host.count("/connections/total"));
    for port in FALSE_PORTS {
        knock(a, port);
        knock(c, port);
    }
    let after = [a, c].map(|host| host.count("/connections/total"));
    for (before, after) in before.iter().zip(after) {
        assert!(after - before < 20, "from {before} connections to {after}");
    }
    eventually(SOON, "it is said", || {
        a.log().contains("host=10.77.0.3:8080") && c.log().contains("host=10.77.0.1:8081")
    });
    assert_eq!(directory(a)["hosts"], 2);
    assert_eq!(a.open(PORT).greeting(), "c");
}
