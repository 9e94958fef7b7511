//! All ports of a host.

use super::{PORT, SOON, directory, knows, net, start};
use snproxy_tests::{Figure, Pod, eventually, print_figure};
use std::{
    fmt::Write,
    time::{Duration, Instant},
};

const PORTS: u16 = 60_000;

#[test]
fn sixty_thousand_ports_of_one_host_are_published_and_read() {
    let (net, etcd) = net();
    let (a, c) = (net.host("a"), net.host("c"));
    for host in net.all_hosts() {
        host.conf("CLUSTERPORTS", "1024-29999,32768-65535");
    }
    c.pod(30000, Pod::answering("c"));
    c.pod(30001, Pod::answering("c"));
    start(net.all_hosts());

    let ports: Vec<u16> = (1024..30_000)
        .chain(32_768..=u16::MAX)
        .take(PORTS.into())
        .collect();
    // Neighbours differ, so that no two share a line: the worst case.
    let mut mappings = String::new();
    for port in &ports {
        let _ = writeln!(mappings, "{port}:30000:9:false");
        if port % 2 == 0 {
            let _ = writeln!(mappings, "{port}:30001:9:false");
        }
    }
    let begun = Instant::now();
    c.mappings(&mappings);
    eventually(Duration::from_mins(1), "all are known", || {
        directory(a)["ports"] == PORTS
    });
    print_figure(
        "directory: 60,000 ports of one host, from its mappings to another host's table",
        Figure::Time(begun.elapsed()),
        Figure::Time(Duration::from_secs(5)),
    );
    knows(c, 2);
    for port in [PORT, 29_999, 32_768, *ports.last().expect("ports")] {
        assert_eq!(a.open(port).greeting(), "c");
    }
    let stored = etcd.ctl(
        &net,
        &["get", "--prefix", "/snproxy/default/hosts/10.77.0.3:32767"],
    );
    print_figure(
        "directory: 60,000 ports of one host in etcd, no two alike",
        Figure::Bytes(stored.len() as u64),
        Figure::Bytes(600 << 10),
    );

    // One pod more or less is one block.
    let before = etcd.revision(&net);
    let written = Instant::now();
    c.mappings(&mappings.replace("\n1025:30000:9:false\n", "\n"));
    eventually(SOON, "it is refused", || a.is_refused(1025));
    print_figure(
        "directory: one of 60,000 ports goes, from the mappings to the other host",
        Figure::Time(written.elapsed()),
        Figure::Time(Duration::from_secs(2)),
    );
    assert!(etcd.revision(&net) <= before + 1, "one write");

    // All alike: a line for each block.
    let alike = ports.iter().fold(String::new(), |mut alike, port| {
        let _ = writeln!(alike, "{port}:30000:9:false");
        alike
    });
    c.mappings(&alike);
    eventually(SOON, "they are few lines", || {
        etcd.ctl(
            &net,
            &["get", "--prefix", "/snproxy/default/hosts/10.77.0.3:32767"],
        )
        .len()
            < 8 << 10
    });
}
