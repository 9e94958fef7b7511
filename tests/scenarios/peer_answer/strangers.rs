//! Who may use PORT.

use super::{FALSE, SOON, answer, one_pod, two_hosts};
use snproxy_tests::{Conn, Ended, Host, PROXY_PORT, Pod, eventually, request_for};
use std::{io::Write, net::SocketAddr, process::Command};

/// Whether a caller is paired; a stranger gets no byte and an end at once.
#[track_caller]
fn is_served(conn: &Conn) -> bool {
    // A stranger may be gone before it has said anything.
    let _ = conn.stream().write_all(request_for(1024).as_bytes());
    let (got, ended) = conn.half_close().rest(SOON);
    assert_ne!(ended, Ended::Open);
    assert!(got.is_empty() || got == [FALSE, b"pod\n"].concat());
    !got.is_empty()
}

#[test]
fn a_source_that_hosts_conf_does_not_name_is_refused_and_the_log_says_the_way_out() {
    let net = two_hosts();
    let (a, b, pod) = one_pod(&net, Pod::answering_once("pod"));
    a.start();

    assert!(is_served(&b.call(a)));
    for _ in 0..50 {
        assert!(!is_served(&net.client().open(a.port(PROXY_PORT))));
    }
    // Also who says nothing is not kept.
    let silent = net.client().open(a.port(PROXY_PORT));
    assert_eq!(silent.rest(SOON).0, b"");
    eventually(SOON, "an end for each", || a.ends("stranger") == 51);
    assert_eq!(pod.accepted(), 1);
    let client = net.client().v4().to_string();
    let log = a.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("PEERS") && line.contains(&client))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("hosts.conf"), "{}", told[0]);

    // The way out works without a restart, and so does the way back.
    let client = net.client();
    a.reloaded_after(|a| a.hosts("10.77.0.1:32767\n10.77.0.2:32767\n10.77.0.101:32767\n"));
    assert!(is_served(&client.open(a.port(PROXY_PORT))));
    a.reloaded_after(|a| a.hosts("10.77.0.1:32767\n"));
    assert!(!is_served(&client.open(a.port(PROXY_PORT))));
    assert!(!is_served(&b.call(a)));
}

#[test]
fn peers_lists_networks_or_lets_anybody_in() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    a.conf("PEERS", "10.77.0.96/28").start();

    let client = || is_served(&net.client().open(a.port(PROXY_PORT)));
    let host = || is_served(&b.call(a));
    for (peers, client_is, host_is) in [
        ("10.77.0.101", true, false),
        ("hosts, 192.0.2.0/24 10.77.0.101/32", true, true),
        ("hosts", false, true),
        ("any", true, true),
        ("fd77::/64", false, false),
    ] {
        a.reloaded_after(|a| a.conf("PEERS", peers));
        assert_eq!((client(), host()), (client_is, host_is), "PEERS {peers}");
    }
}

#[test]
fn this_host_may_ask_itself_by_any_of_its_addresses() {
    let net = two_hosts();
    let (a, _, _) = one_pod(&net, Pod::answering_once("pod"));
    a.namespace().ip("address add 10.77.0.9/24 dev eth0");
    a.conf("HOST", "0.0.0.0").start();

    let from = |from: &str, to: &str| {
        let [from, to] = [from, to].map(|at| at.parse::<SocketAddr>().expect("an address"));
        let conn = a.namespace().run(|| Conn::connect_from(from, to, SOON));
        conn.expect("connect")
    };
    assert!(is_served(&from("127.0.0.1:0", "127.0.0.1:32767")));
    assert!(is_served(&from("127.0.0.5:0", "127.0.0.1:32767")));
    assert!(is_served(&from("10.77.0.1:0", "10.77.0.1:32767")));
    assert!(is_served(&from("10.77.0.9:0", "10.77.0.1:32767")));
    assert_eq!(a.ends("stranger"), 0);
}

/// Whether a program of this user on the host is paired, from this address of the host.
fn is_served_as(host: &Host, uid: u32, from: &str) -> bool {
    let mut command = Command::new("setpriv");
    let user = format!("--reuid={uid}");
    let to = format!("TCP:{},bind={from},shut-none", host.port(PROXY_PORT));
    command
        .args([&user, "--regid=1000", "--clear-groups", "sh", "-c"])
        .arg(format!(
            "printf '{}' | socat -t 2 - {to}",
            request_for(1024).escape_default()
        ));
    let output = host.namespace().run(|| command.output()).expect("setpriv");
    assert!(output.stdout.is_empty() || output.stdout == [FALSE, b"pod\n"].concat());
    !output.stdout.is_empty()
}

#[test]
fn a_local_user_does_not_speak_for_clients() {
    let net = two_hosts();
    let (a, _, _) = one_pod(&net, Pod::answering_once("pod"));
    a.namespace().ip("address add 10.77.0.9/24 dev eth0");
    // PEERS names the host's own addresses as well, as one file for all hosts does.
    a.conf("PEERS", "hosts 10.77.0.0/24").start();
    for from in ["10.77.0.1", "10.77.0.9"] {
        assert!(!is_served_as(a, 1000, from), "{from}");
        assert!(is_served_as(a, 0, from), "{from}");
    }
    assert_eq!(a.ends("stranger"), 2);
    let log = a.log();
    assert!(
        log.contains("refused a program of this host on PORT"),
        "{log}"
    );
    assert!(log.contains("uid 1000"), "{log}");

    a.reloaded_after(|a| a.conf("PEERS", "hosts local"));
    assert!(is_served_as(a, 1000, "10.77.0.1"));
}

#[test]
fn the_user_of_snproxy_speaks_for_clients_of_its_host() {
    let net = two_hosts();
    let (a, _, _) = one_pod(&net, Pod::answering_once("pod"));
    a.as_user(1000, &["bpf", "net_admin"]).start();
    assert!(is_served_as(a, 1000, "10.77.0.1"));
    assert!(is_served_as(a, 0, "10.77.0.1"));
    assert!(!is_served_as(a, 1001, "10.77.0.1"));
}

#[test]
fn a_stranger_learns_nothing_and_holds_nothing() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering_once("pod"));
    a.start();
    assert!(is_served(&b.call(a)));
    quiet(a);
    let descriptors = a.snproxy().descriptors();

    let question = "PROXY TCP4 1.2.3.4 1.2.3.4 1024 0\r\n";
    let conns: Vec<_> = (0..500)
        .map(|_| net.client().open(a.port(PROXY_PORT)))
        .collect();
    let mut answered = 0;
    for conn in &conns {
        let _ = conn.stream().write_all(question.as_bytes());
        answered += conn.rest(SOON).0.len();
    }
    assert_eq!(answered, 0);
    // They have not closed their side, and cost us nothing.
    quiet(a);
    eventually(SOON, "descriptors as before", || {
        a.snproxy().descriptors() <= descriptors
    });
    assert_eq!(answer(&b.call(a), question).0, b"PODS=1\r\n");
    drop(conns);
    assert_eq!(a.ends("stranger"), 500);
}

fn quiet(host: &Host) {
    eventually(SOON, "nobody is inside", || {
        host.count("/connections/live") == 0
    });
}
