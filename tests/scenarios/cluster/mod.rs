//! Several hosts, each with its snproxy: any client reaches any cluster port, on whichever host serves it.

mod balance;
mod drain;
mod failover;
mod header;
mod hosts;
mod locality;
mod max_conn;
mod reach;
mod scale;
mod spares;

use snproxy_tests::{Conn, Host, Net, Pod};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
/// The cluster port of all these scenarios.
const PORT: u16 = 1024;
const PROXY_PORT: u16 = 32767;
const FIRST_POD: u16 = 30000;

/// That many pods on a host behind [`PORT`], that greet with the name of their host.
#[track_caller]
fn serve(host: &Host, pods: u16) -> Vec<Pod> {
    map(host, pods, 10_000);
    let pods =
        (FIRST_POD..FIRST_POD + pods).map(|port| host.pod(port, Pod::answering(host.name())));
    pods.collect()
}

/// Mappings of [`PORT`] to that many pods.
fn map(host: &Host, pods: u16, max_conn: u32) {
    let lines: Vec<_> = (FIRST_POD..FIRST_POD + pods)
        .map(|port| format!("{PORT}:{port}:{max_conn}:false\n"))
        .collect();
    host.mappings(&lines.concat());
}

/// A hosts.conf with these, in this order.
fn hosts_conf(hosts: impl IntoIterator<Item = SocketAddr>) -> String {
    let lines: Vec<_> = hosts.into_iter().map(|host| format!("{host}\n")).collect();
    lines.concat()
}

#[track_caller]
fn start_all(net: &Net) {
    for host in net.all_hosts() {
        host.start();
    }
}

/// Opens a connection from the net's client and hears who answers; and the time until then.
#[track_caller]
fn greeted(host: &Host) -> (String, Duration) {
    let start = Instant::now();
    let name = host.open(PORT).greeting();
    (name, start.elapsed())
}

/// Like [`greeted`], in the namespace that the thread is in.
fn greeted_at(to: SocketAddr) -> String {
    let conn = Conn::connect(to, SOON).unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    conn.greeting()
}
