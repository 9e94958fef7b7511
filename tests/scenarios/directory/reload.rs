//! What a reload changes in who is in the directory, and how far it is believed.

use super::{Etcd, PATIENCE, PORT, SOON, directory, knows, net, serve, start};
use snproxy_tests::{Host, Net, eventually};
use std::time::{Duration, Instant};

/// Longer than a host that left the directory is remembered.
const LONG: Duration = Duration::from_secs(13);

/// Opens the port of `c` on a host for as long as is said, which must do each time.
#[track_caller]
fn is_served_for(host: &Host, long: Duration) {
    let end = Instant::now() + long;
    while Instant::now() < end {
        assert_eq!(host.open(PORT).greeting(), "c");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[track_caller]
fn comes_to_be_served(host: &Host) {
    eventually(SOON, "the port is served", || {
        let conn = host.attempt(PORT).connected();
        conn.is_some_and(|conn| conn.rest(Duration::from_secs(1)).0 == b"c\n")
    });
    is_served_for(host, Duration::from_millis(500));
}

#[test]
fn with_another_etcd_that_is_away_what_was_known_goes_on() {
    let (net, etcd) = net();
    let (a, c) = (net.host("a"), net.host("c"));
    serve(c, &[PORT], 100);
    start(net.all_hosts());
    is_served_for(a, Duration::from_millis(200));

    let away = format!("http://{}:1", net.nth_client(1).v4());
    a.reloaded_after(|a| a.conf("ETCD", &away));
    eventually(PATIENCE, "the directory is stale", || {
        assert_eq!(a.open(PORT).greeting(), "c");
        directory(a)["state"] == "stale"
    });
    assert_eq!(directory(a)["hosts"], 2);
    assert!(a.log().contains("Connection refused"), "it is said why");
    is_served_for(a, Duration::from_secs(2));
    // Its own lease is over by then, or nearly so.
    a.reloaded_after(|a| a.conf("ETCD", &etcd.url()));
    knows(a, 2);
    is_served_for(a, Duration::from_millis(200));
}

#[test]
fn a_host_that_leaves_the_directory_and_lives_is_asked() {
    let (net, _etcd) = net();
    let (a, c) = (net.host("a"), net.host("c"));
    serve(c, &[PORT], 100);
    a.hosts(&format!("{}\n{}\n", a.port(32767), c.port(32767)));
    c.hosts(&format!("{}\n{}\n", a.port(32767), c.port(32767)));
    start(net.all_hosts());
    eventually(SOON, "all publish", || directory(a)["complete"] == true);

    c.reloaded_after(|c| c.conf("ETCD", "none"));
    is_served_for(a, LONG);
    assert_eq!(directory(a)["complete"], false);
}

#[test]
fn a_host_that_carries_to_nobody_takes_those_of_the_directory() {
    let (net, _etcd) = net();
    let (a, c) = (net.host("a"), net.host("c"));
    c.conf("LOCALITY", "only");
    serve(c, &[PORT], 100);
    for host in [a, c] {
        host.start();
    }
    comes_to_be_served(a);
    // One that comes later as well.
    let b = net.host("b");
    b.start();
    knows(b, 2);
    comes_to_be_served(b);
}

#[test]
fn services_of_another_etcd_are_read_anew_though_it_has_the_same_number_and_went_on_further() {
    let net = Net::new(&["a"], 3);
    let a = net.host("a");
    let [old, new] = [1, 2].map(|client| Etcd::start_at(&net, client));
    old.ctl(&net, &["put", "/srv/echo/10.77.0.7:7001", ""]);
    for _ in 0..3 {
        new.ctl(&net, &["put", "/srv/echo/10.77.0.8:7002", ""]);
    }
    assert!(new.revision(&net) > old.revision(&net));
    let apps = r#"{"Apps":[{"Name":"echo","Ports":[5001],"Srv":"/srv/echo"}]}"#;
    a.replace("config.json", apps);
    for (key, value) in [
        ("PORT", "none"),
        ("APPSCONF", "config.json"),
        ("ETCD", &old.url()),
    ] {
        a.conf(key, value);
    }
    a.start();
    let has = |node: &str| {
        a.run(&["explain", "5001"])
            .stdout
            .windows(node.len())
            .any(|at| at == node.as_bytes())
    };
    eventually(SOON, "its nodes are read", || has("10.77.0.7:7001"));

    a.reloaded_after(|a| a.conf("ETCD", &new.url()));
    eventually(SOON, "those of the new one are", || has("10.77.0.8:7002"));
    assert!(!has("10.77.0.7:7001"));
    assert_eq!(a.status()["services"][0]["nodes"], 1);
}
