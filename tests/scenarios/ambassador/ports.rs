//! Ranges of ports, families of addresses, and who may listen.

use super::fixture::{Launch, SOON};
use snproxy_tests::{Net, Pod, eventually};
use std::time::Duration;

#[test]
fn a_range_is_steered_where_that_can_be_and_opened_where_it_cannot() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    b.pod(6001, Pod::answering("b"));
    let words = "ambassador --src :5000-5999 --dst 10.77.0.2:6001";
    for (launch, how) in [
        (Launch::on(a), "ebpf"),
        (Launch::on(a).by_user(), "listeners"),
    ] {
        let ambassador = launch.start(words);
        assert_eq!(ambassador.status()["steering"], how);
        for port in [5000, 5001, 5500, 5999] {
            assert_eq!(a.open(port).greeting(), "b", "{how}, {port}");
        }
        assert!(a.is_refused(4999) && a.is_refused(6000));
        let ports = ambassador.ask(&["ports"]);
        assert!(ports.contains("5000-5999"), "{ports}");
    }
}

#[test]
fn single_ports_take_no_privilege_and_attach_nothing() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    a.pod(6001, Pod::answering("a"));
    // As root, too: what needs no eBPF has none.
    let _one = Launch::on(a).start("ambassador --src :5001 --dst 127.0.0.1:6001");
    let _two = Launch::on(a).start("ambassador --src :5002 --dst 127.0.0.1:6001");
    let by_user = Launch::on(a).by_user();
    let user = by_user.start("ambassador --src :5003 --dst 127.0.0.1:6001");
    for port in [5001, 5002, 5003] {
        assert_eq!(a.open(port).greeting(), "a");
    }
    assert!(a.attached().is_empty());
    assert_eq!(user.status()["steering"], "listeners");
    let output = by_user.run("ambassador --src :80 --dst 127.0.0.1:6001");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("listen on 0.0.0.0:80: Permission denied"),
        "{said}"
    );
}

#[test]
fn both_families_and_each_alone() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    a.pod(6001, Pod::answering("a"));
    let launch = Launch::on(a);
    let _four = launch.start("ambassador --src :5001 --dst [::1]:6001");
    let _both = launch.start("ambassador --net tcp --src :5002 --dst 127.0.0.1:6001");
    let _six = launch.start("ambassador --src [::1]:5003 --dst [::1]:6001");
    let client = net.client();
    assert_eq!(a.open(5001).greeting(), "a");
    assert!(client.is_refused(a.port6(5001)));
    assert_eq!(a.open(5002).greeting(), "a");
    assert_eq!(client.open(a.port6(5002)).greeting(), "a");
    assert_eq!(
        a.open_locally((std::net::Ipv6Addr::LOCALHOST, 5003))
            .greeting(),
        "a"
    );
    assert!(a.is_refused(5003) && client.is_refused(a.port6(5003)));
}

#[test]
fn one_family_is_that_of_clients_and_of_servers() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    a.pod(6001, Pod::answering("a"));
    let launch = Launch::on(a);
    // The ports of the two are not in each other's way.
    let four = launch.start(
        "ambassador --net tcp4 --src :5001 --src :5002 --dst 127.0.0.1:6001 --dst localhost:6001",
    );
    assert_eq!(a.open(5001).greeting(), "a");
    assert!(net.client().is_refused(a.port6(5001)));
    let six = launch.start(
        "ambassador --net tcp6 --src :5001 --src :5002 --dst [::1]:6001 --dst localhost:6001",
    );
    assert_eq!(net.client().open(a.port6(5001)).greeting(), "a");
    assert_eq!(a.open(5001).greeting(), "a");
    let _range = launch.start("ambassador --net tcp6 --src :5100-5199 --dst [::1]:6001");
    assert_eq!(net.client().open(a.port6(5150)).greeting(), "a");
    assert!(a.is_refused(5150));
    // A name has addresses of both.
    for (ambassador, other) in [(&four, "[::1]:6001"), (&six, "127.0.0.1:6001")] {
        let routes = ambassador.ask(&["routes"]);
        assert!(!routes.contains(other), "{routes}");
    }
}

#[test]
fn the_listener_outlives_a_want_of_descriptors() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    a.pod(6001, Pod::echo());
    let launch = Launch::on(a).limit_nofile(64);
    let ambassador = launch.start("ambassador --src :5000 --dst 127.0.0.1:6001");
    let crowd: Vec<_> = (0..100)
        .filter_map(|_| a.attempt(5000).connected())
        .collect();
    // The last one waits: there is no descriptor for it.
    let last = crowd.last().expect("the kernel accepts");
    last.send(b"x");
    assert_ne!(last.rest(Duration::from_millis(500)).0, b"x");
    drop(crowd);
    eventually(SOON, "clients are served again", || {
        a.attempt(5000).connected().is_some_and(|conn| {
            conn.send(b"x");
            conn.rest(Duration::from_millis(300)).0 == b"x"
        })
    });
    assert_eq!(ambassador.exit_status(), None);
}
