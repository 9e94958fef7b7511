//! hosts.conf in its forms: IPv6, shared by all hosts, changed while running.

use super::{PORT, PROXY_PORT, SOON, greeted, hosts_conf, serve, start_all};
use serde_json::json;
use snproxy_tests::{Net, Pod, eventually};
use std::time::Duration;

/// One hosts.conf for all of these, in this order.
fn shared(net: &Net, names: &[&str]) -> String {
    hosts_conf(names.iter().map(|name| net.host(name).port(PROXY_PORT)))
}

#[test]
fn each_finds_itself_in_one_file_for_all() {
    let net = Net::hosts(["a", "b", "c"]);
    let file = shared(&net, &["c", "a", "b"]);
    // Nothing in the files of a DaemonSet names the host that reads them.
    for (host, address) in net
        .all_hosts()
        .iter()
        .zip([None, Some("0.0.0.0"), Some("::")])
    {
        host.hosts(&file);
        match address {
            Some(address) => host.conf("HOST", address),
            None => host.without("HOST"),
        };
    }
    serve(net.host("b"), 1);
    start_all(&net);

    for host in net.all_hosts() {
        for _ in 0..10 {
            assert_eq!(greeted(host).0, "b");
        }
        assert!(host.is_reset(2000));
        // Nobody takes itself for another one.
        let others = host.routes()["hosts"].clone();
        let own = host.port(PROXY_PORT).to_string();
        assert_eq!(others.as_array().map(Vec::len), Some(2), "{others}");
        assert!(!others.to_string().contains(&own), "{others}");
    }
}

#[test]
fn hosts_reach_each_other_over_ipv6() {
    let net = Net::hosts(["a", "b", "c"]);
    let lines = hosts_conf(net.all_hosts().iter().map(|host| host.port6(PROXY_PORT)));
    assert!(lines.starts_with("[fd77::1]:32767\n"), "{lines}");
    for host in net.all_hosts() {
        host.hosts(&lines).conf("HOST", "::");
    }
    let c = net.host("c");
    let told = c.pod(30000, Pod::recording());
    let plain = c.pod(30001, Pod::answering("c"));
    c.mappings("1024:30001:99:false 1025:30000:99:true\n");
    start_all(&net);

    for host in net.all_hosts() {
        for to in [host.port(PORT), host.port6(PORT)] {
            assert_eq!(net.client().open(to).greeting(), "c");
            assert_eq!(host.open_locally(to).greeting(), "c");
        }
    }
    assert_eq!(plain.accepted(), 12);
    let a = net.host("a");
    for (turn, (to, family)) in [(a.port6(1025), "TCP6"), (a.port(1025), "TCP4")]
        .into_iter()
        .enumerate()
    {
        let conn = net.client().open(to);
        conn.send("x").half_close();
        told.visit(turn).wait_for_end();
        let heard = told.visit(turn).first_bytes();
        let (from, to) = (conn.local(), to.ip());
        let expected = format!(
            "PROXY {family} {} {to} {} 1025\r\nx",
            from.ip(),
            from.port()
        );
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }
}

#[test]
fn a_host_that_comes_or_goes_is_taken_over_while_running() {
    let net = Net::hosts(["a", "b", "c"]);
    let a = net.host("a");
    serve(net.host("c"), 1);
    a.hosts(&shared(&net, &["a", "b"]));
    start_all(&net);

    assert!(a.is_reset(PORT), "b does not serve it");
    a.reloaded_after(|a| a.hosts(&shared(&net, &["a", "b", "c"])));
    // What was known of the port went with the old file.
    assert_eq!(a.routes()["routes"], json!([]));
    for _ in 0..10 {
        assert_eq!(greeted(a).0, "c");
    }
    let held = a.open(PORT);
    assert_eq!(held.greeting(), "c");

    a.reloaded_after(|a| a.hosts(&shared(&net, &["a", "b"])));
    assert!(a.is_reset(PORT), "c is gone");
    assert!(
        held.stays_quiet(Duration::from_millis(100)),
        "nobody is cut off by a file"
    );
    a.reloaded_after(|a| a.hosts(&shared(&net, &["a"])));
    eventually(SOON, "left alone: there is nobody to ask", || {
        a.action(PORT) != "steer"
    });
    assert!(a.is_refused(PORT));
}

#[test]
fn a_name_that_nobody_knows_is_passed_over() {
    let net = Net::hosts(["a", "b"]);
    let a = net.host("a");
    serve(net.host("b"), 1);
    let [own, other] = ["a", "b"].map(|name| net.host(name).port(PROXY_PORT));
    a.hosts(&format!("{own}\nno-such-host.invalid:32767\n{other}\n"));
    start_all(&net);
    for _ in 0..5 {
        assert_eq!(greeted(a).0, "b");
    }
}

#[test]
fn a_file_of_other_hosts_alone_loses_no_line() {
    let net = Net::hosts(["a", "b", "c"]);
    let a = net.host("a");
    serve(net.host("b"), 1);
    a.hosts(&shared(&net, &["b", "c"]));
    start_all(&net);
    // b stands in line 1, and is the only host that serves the port.
    for _ in 0..5 {
        assert_eq!(greeted(a).0, "b");
    }
    let told = a.status()["reload"]["diagnostics"].to_string();
    assert!(told.contains("all 2 lines are peers"), "{told}");
}
