//! Cluster ports without a pod on this host.

use snproxy_tests::{Host, Net, Pod, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn lot(host: &Host, port: u16) -> String {
    let range = host.port_range(port);
    let text = |key: &str| range[key].as_str().unwrap_or_default().to_owned();
    format!("{}: {}", text("action"), text("reason"))
}

/// Sets a key and waits until this is what becomes of port 2000.
fn takes_over(host: &Host, key: &str, value: &str, expected: &str) {
    host.conf(key, value);
    eventually(SOON, &format!("{key} {value}: {expected}"), || {
        lot(host, 2000) == expected
    });
}

#[test]
fn what_becomes_of_ports_without_a_pod_follows_the_hosts_and_the_keys() {
    let net = Net::hosts(["host", "other"]);
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:9:false\n").start();
    assert_eq!(lot(host, 2000), "steer: other hosts may serve it");
    assert_eq!(lot(host, 40000), "steer: other hosts may serve it");
    assert!(host.is_reset(2000), "nobody serves it");
    host.hosts(&format!("{}\n", host.port(32767)));
    eventually(SOON, "alone", || lot(host, 2000) == "pass: not mapped");
    assert!(host.is_refused(2000));

    takes_over(host, "UNMAPPED", "steer", "steer: not mapped");
    assert!(host.is_reset(2000));
    takes_over(host, "UNMAPPED", "refuse", "refuse: not mapped");
    assert!(host.is_refused(2000));
    host.hosts(&format!(
        "{}\n{}\n",
        host.port(32767),
        net.host("other").port(32767)
    ));
    takes_over(host, "UNMAPPED", "auto", "steer: other hosts may serve it");
    takes_over(host, "LOCALITY", "only", "pass: not mapped");
    assert!(host.is_refused(2000));
    assert_eq!(host.open(1024).greeting(), "pod");
}

#[test]
fn a_port_whose_pods_are_down_stays_steered_while_another_host_may_serve_it() {
    let net = Net::hosts(["host", "other"]);
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:9:false\n").start();
    assert_eq!(lot(host, 1024), "steer: mapped");

    pod.stop();
    eventually(SOON, "the other host's", || {
        lot(host, 1024) == "steer: other hosts may serve it"
    });
    host.conf("LOCALITY", "only");
    eventually(SOON, "refused", || {
        lot(host, 1024) == "refuse: all pods are down"
    });
    assert!(host.is_refused(1024));
}

#[test]
fn without_ebpf_ports_without_a_pod_get_a_listener_only_where_that_is_said() {
    let net = Net::hosts(["host", "other"]);
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.conf("STEERING", "listeners")
        .conf("CLUSTERPORTS", "1024,2000-2030")
        .limit_nofile(64)
        .mappings("1024:30000:9:false\n")
        .start();
    assert_eq!(lot(host, 2000), "pass: not mapped");
    assert!(host.is_refused(2000));
    assert_eq!(host.open(1024).greeting(), "pod");

    // All 32 of them are the half of 64 descriptors; a 33rd is too many.
    takes_over(host, "UNMAPPED", "steer", "steer: other hosts may serve it");
    assert!(host.is_reset(2030));
    host.conf("CLUSTERPORTS", "1024,2000-2031");
    assert!(!host.reload().status.success());
    let said = host.status()["reload"]["diagnostics"].to_string();
    assert!(said.contains("33 ports are too many"), "{said}");
    assert!(host.is_refused(2031));
    assert_eq!(host.open(1024).greeting(), "pod");
}
