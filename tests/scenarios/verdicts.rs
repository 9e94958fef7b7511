//! What `explain`, `ports` and `status` say of ports that are not steered, or not served now.

use rustix::process::Signal;
use snproxy_tests::{Ended, Host, Net, Pod, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const USER: u32 = 65534;

#[track_caller]
fn text(host: &Host, words: &[&str]) -> String {
    String::from_utf8_lossy(&host.run(words).stdout).into_owned()
}

/// `explain` of a port names this end, and no candidates.
#[track_caller]
fn explains(host: &Host, port: &str, verdict: &str) {
    let text = text(host, &["explain", port]);
    assert!(text.contains(verdict), "{port}: {text}");
    for untrue in ["no_upstream", "not_mapped", "One of many", "BALANCE"] {
        assert!(!text.contains(untrue), "{port}: {text}");
    }
}

#[test]
fn explain_names_who_takes_ports_that_are_not_steered() {
    let net = Net::one();
    let host = net.host("host");
    let _program = host.pod(1025, Pod::answering("program"));
    let _unmapped = host.pod(1026, Pod::answering("program"));
    let _pod = host.pod(30000, Pod::answering("a"));
    host.conf("CLUSTERPORTS", "1024-31000")
        .mappings("1024:30000:9:false\n1025:30000:9:false\n")
        .start();

    explains(
        host,
        "22",
        "snproxy does not take this port (not a cluster port)",
    );
    explains(host, "32767", "peers connect to snproxy here");
    explains(
        host,
        "30000",
        "the pod that listens on this port takes the connection",
    );
    for port in ["1025", "1026"] {
        explains(host, port, "the program that listens takes the connection");
    }
    explains(host, "2000", "snproxy does not take this port (not mapped)");
    let steered = text(host, &["explain", "1024"]);
    assert!(steered.contains("1   pod   10.77.0.1:30000"), "{steered}");
    assert!(!steered.contains("One of many"), "there is one: {steered}");
}

#[test]
fn explain_says_that_a_client_waits_in_the_queue() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("a"));
    host.conf("PORTMAXCONN", "1")
        .conf("QUEUE", "2")
        .mappings("1024:30000:9:false\n")
        .start();
    let inside = host.open(1024);
    assert_eq!(inside.greeting(), "a");
    let explained = || text(host, &["explain", "1024"]);
    let queues = "PORTMAXCONN is reached: the client waits in the queue (0 of 2 places taken)";
    assert!(explained().contains(queues), "{}", explained());
    assert!(!explained().contains("no_upstream"), "{}", explained());
    let _waiting = [host.open(1024), host.open(1024)];
    let full = "PORTMAXCONN is reached and the queue is full";
    eventually(SOON, "the queue is full", || explained().contains(full));
}

#[test]
fn ports_of_a_draining_host_are_not_listed_as_steered() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("a"));
    host.mappings("1024:30000:9:false\n").start();
    let held = host.open(1024);
    assert_eq!(held.greeting(), "a");
    host.signal(Signal::TERM);
    eventually(SOON, "new connections are refused", || {
        host.is_refused(1024)
    });
    explains(
        host,
        "1024",
        "snproxy drains: the kernel refuses the connection",
    );
    let ports = text(host, &["ports"]);
    assert_eq!(ports, "draining: snproxy takes no new connections\n");
    assert_eq!(host.status()["ports"]["steer"], 0);
    held.half_close();
    assert_eq!(held.ended(), Ended::Eof);
}

#[test]
fn start_counts_ports_that_it_could_not_open() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("a"));
    host.conf("STEERING", "listeners")
        .conf("CLUSTERPORTS", "80,1024-2000")
        .mappings("80:30000:9:false\n1024:30000:9:false\n")
        .as_user(USER, &[])
        .start();
    let way_out = "failed to listen: Permission denied (os error 13); \
                   start snproxy as root or with CAP_NET_BIND_SERVICE";
    let line = format!("ready: 1 of 2 ports; port 80: {way_out}");
    assert!(host.log().contains(&line), "{}", host.log());
    assert_eq!(host.open(1024).greeting(), "a");
    assert_eq!(host.action(80), "pass");
    assert_eq!(host.count("/ports/closed"), 1);
    assert!(text(host, &["ports"]).contains(way_out));
    assert!(text(host, &["status"]).contains("CLOSED       1 ports have no listener"));
    explains(host, "80", way_out);
}
