//! The cluster directory in etcd: hosts say what they serve, and nobody is asked.

mod etcd;
mod hostile;
mod outage;
mod published;
mod reload;
mod size;

use etcd::Etcd;
use serde_json::Value;
use snproxy_tests::{Host, Net, Pod, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Longer than a lease, and than etcd takes to start.
const PATIENCE: Duration = Duration::from_secs(40);
const PORT: u16 = 1024;
const FIRST_POD: u16 = 30000;

/// Three hosts that know of each other by the directory alone, and etcd beside them.
fn net() -> (Net, Etcd) {
    let net = Net::new(&["a", "b", "c"], 2);
    let etcd = Etcd::start(&net);
    for host in net.all_hosts() {
        join(host, &etcd);
    }
    (net, etcd)
}

/// Has a host publish, and know nobody but itself by its files.
fn join(host: &Host, etcd: &Etcd) {
    host.conf("ETCD", &etcd.url());
    host.hosts(&format!("{}\n", host.port(32767)));
}

#[track_caller]
fn start(hosts: &[Host]) {
    for host in hosts {
        host.start();
    }
    for host in hosts {
        knows(host, hosts.len() - 1);
    }
}

/// Waits until a host has read what so many others publish, and is published itself.
#[track_caller]
fn knows(host: &Host, others: usize) {
    let what = format!("{} knows {others} hosts", host.name());
    eventually(PATIENCE, &what, || {
        let directory = directory(host);
        directory["state"] == "current"
            && directory["hosts"] == others
            && directory["published"] == true
    });
}

/// The part of the status about the directory.
#[track_caller]
fn directory(host: &Host) -> Value {
    host.status()["directory"].clone()
}

/// One pod on a host behind these ports, which greets with the name of its host.
#[track_caller]
fn serve(host: &Host, ports: &[u16], max_conn: u32) -> Pod {
    map(host, ports, max_conn);
    host.pod(FIRST_POD, Pod::answering(host.name()))
}

fn map(host: &Host, ports: &[u16], max_conn: u32) {
    let lines: Vec<_> = ports
        .iter()
        .map(|port| format!("{port}:{FIRST_POD}:{max_conn}:false\n"))
        .collect();
    host.mappings(&lines.concat());
}

/// Fails if this host asked another one for its pods.
#[track_caller]
fn assert_asked_nobody(host: &Host) {
    let routes = host.routes();
    for route in routes["routes"].as_array().expect("routes") {
        assert!(route["age_ms"].is_null(), "asked: {routes:#}");
    }
}
