//! Pods that listen for one connection at a time: nothing but a client may take it.

use super::SOON;
use snproxy_tests::{Figure, Host, Net, Pod, eventually, print_figure};
use std::{
    process::Command,
    time::{Duration, Instant},
};

const ROUNDS: usize = 8;

/// A host whose port 1024 is mapped to a port on which nothing listens, and refused.
fn refused(host: &Host) {
    host.mappings("1024:30000:99:false\n").start();
    eventually(SOON, "nothing listens: refused", || {
        // A client finds out before the first check.
        drop(host.attempt(1024));
        host.action(1024) == "refuse"
    });
}

/// Waits until port 1024 is steered; panics unless that was soon after `listens`.
fn steered_after(host: &Host, listens: Instant) -> Duration {
    eventually(SOON, "a program listens: steered", || {
        host.action(1024) == "steer"
    });
    listens.elapsed()
}

#[test]
fn nc_that_takes_one_connection_serves_a_client() {
    let net = Net::one();
    let host = net.host("host");
    refused(host);
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let mut nc = Command::new("sh");
        let listen = format!("echo nc {round} | nc -l -N {} 30000", host.v4());
        nc.args(["-c", &listen]);
        let nc = host.namespace().server("nc", &mut nc, 30000);
        took.push(steered_after(host, Instant::now()));
        // Longer than from one scan to the next: no check takes the connection meanwhile.
        std::thread::sleep(Duration::from_millis(if round == 0 { 1200 } else { 0 }));
        assert_eq!(host.open(1024).greeting(), format!("nc {round}"));
        assert!(nc.wait(SOON).success());
        eventually(SOON, "it has ended: refused", || {
            drop(host.attempt(1024));
            host.action(1024) == "refuse"
        });
    }
    took.sort();
    print_figure(
        "nc -l listens: seen to be steered after (median, with the time of a command)",
        Figure::Time(took[ROUNDS / 2]),
        Figure::Time(Duration::from_millis(500)),
    );
}

#[test]
fn iperf3_that_serves_one_test_serves_a_client() {
    let net = Net::one();
    let host = net.host("host");
    refused(host);
    for _ in 0..2 {
        let mut server = Command::new("iperf3");
        server.args(["--server", "--one-off", "--port", "30000"]);
        let server = host.namespace().server("iperf3", &mut server, 30000);
        steered_after(host, Instant::now());
        let mut client = Command::new("iperf3");
        let to = host.v4().to_string();
        client.args(["--client", &to, "--port", "1024", "--bytes", "1M"]);
        let output = net.client().namespace().output(&mut client);
        assert!(output.status.success(), "{output:?}");
        assert!(server.wait(SOON).success());
        eventually(SOON, "it has ended: refused", || {
            drop(host.attempt(1024));
            host.action(1024) == "refuse"
        });
    }
}

#[test]
fn passive_health_lets_each_client_find_out() {
    let net = Net::one();
    let host = net.host("host");
    host.conf("HEALTH", "passive")
        .mappings("1024:30000:99:false\n")
        .start();
    for round in 0..ROUNDS {
        assert!(!host.is_greeted(1024, "pod"), "nothing listens");
        assert_eq!(host.action(1024), "steer");
        // At once, as a client of FTP that was just told the port.
        let pod = host.pod(30000, Pod::answering("pod"));
        assert_eq!(host.open(1024).greeting(), "pod", "{round}");
        pod.stop();
    }
}
