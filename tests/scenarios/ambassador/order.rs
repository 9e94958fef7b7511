//! Which server gets a connection.

use super::fixture::{Launch, SOON};
use snproxy_tests::{Ended, Net, Pod, eventually};
use std::{collections::BTreeMap, time::Duration};

#[test]
fn the_first_server_that_answers_gets_all_connections() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let dead = b.pod(6001, Pod::answering("first"));
    b.pod(6002, Pod::answering("second"));
    dead.stop();
    let words = "ambassador --src :5000 --dst 10.77.0.2:6001 --dst 10.77.0.2:6002";
    let ambassador = Launch::on(a).start(words);
    for _ in 0..10 {
        assert_eq!(a.open(5000).greeting(), "second");
    }
    // It is the first one again once it is seen to be back.
    b.pod(6001, Pod::answering("first"));
    eventually(SOON, "the first server is back", || {
        a.open(5000).greeting() == "first"
    });
    assert_eq!(a.open(5000).greeting(), "first");
    assert_eq!(ambassador.ends("no_upstream"), 0);
}

#[test]
fn where_no_server_answers_the_client_hears_it() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    let words = "ambassador --src :5000 --dst 127.0.0.1:6001 --dst 127.0.0.1:6002 --health passive";
    let ambassador = Launch::on(a).start(words);
    // By a reset, or refused at once from the second one on.
    assert!(a.is_reset(5000) || a.is_refused(5000));
    eventually(SOON, "the end is counted", || {
        ambassador.ends("no_upstream") >= 1 || a.is_refused(5000)
    });
    assert_eq!(ambassador.exit_status(), None);
}

#[test]
fn lb_spreads_and_tries_the_next_one_where_a_server_is_dead() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    for port in [6001, 6002, 6003] {
        a.pod(port, Pod::answering(&port.to_string()));
    }
    let words = "ambassador --src :5000 --lb --dst 127.0.0.1:6001 --dst 127.0.0.1:6002 --dst 127.0.0.1:6003";
    let ambassador = Launch::on(a).start(words);
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..30 {
        *shares.entry(a.open(5000).greeting()).or_default() += 1;
    }
    assert_eq!(shares.values().copied().collect::<Vec<_>>(), [10, 10, 10]);
    // Nobody listens on the fourth one: no client notices.
    drop(ambassador);
    let words = "ambassador --src :5000 --lb --dst 127.0.0.1:6001 --dst 127.0.0.1:6004";
    let _ambassador = Launch::on(a).start(words);
    for _ in 0..10 {
        assert_eq!(a.open(5000).greeting(), "6001");
    }
}

#[test]
fn of_several_sources_each_has_its_own_server() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    for port in [6001, 6002, 6003] {
        a.pod(port, Pod::answering(&port.to_string()));
    }
    // Several addresses as well: each where it is said, and nowhere else.
    let words = "ambassador --src 127.0.0.1:5001 --dst 127.0.0.1:6001 \
         --src 127.0.0.2:5002 --dst localhost:6002 --src 10.77.0.1:5003 --dst 127.0.0.1:6003";
    let ambassador = Launch::on(a).start(words);
    for (at, expected) in [
        ("127.0.0.1:5001", "6001"),
        ("127.0.0.2:5002", "6002"),
        ("10.77.0.1:5003", "6003"),
    ] {
        let at: std::net::SocketAddr = at.parse().expect("an address");
        assert_eq!(a.open_locally(at).greeting(), expected);
    }
    assert!(a.is_refused(5001) && a.is_refused(5002));
    assert_eq!(a.open(5003).greeting(), "6003");
    let status = ambassador.ask(&["status"]);
    assert!(
        status.contains("localhost:6002 (127.0.0.1:6002 up"),
        "{status}"
    );
}

#[test]
fn half_a_connection_goes_on() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    a.pod(6001, Pod::returning());
    let _ambassador = Launch::on(a).start("ambassador --src :5000 --dst 127.0.0.1:6001");
    let conn = a.open(5000);
    conn.send(b"all of it").half_close();
    assert_eq!(
        conn.rest(Duration::from_secs(15)),
        (b"all of it".to_vec(), Ended::Eof)
    );
}
