//! Limits of the system: threads, memory of a control group, descriptors.

use snproxy_tests::{Cgroup, Net, Pod, Process, eventually};
use std::{net::SocketAddr, process::Command, thread::sleep, time::Duration};

const SOON: Duration = Duration::from_secs(15);
/// At least as many as there are here.
const WORKERS: u64 = 8;
const LONG: Duration = Duration::from_mins(2);
/// Longer than tokio keeps a thread that may block without work.
const PAUSE: Duration = Duration::from_secs(11);
const WHILE: Duration = Duration::from_secs(3);

#[test]
fn reload_needs_no_new_thread() {
    let net = Net::one();
    let host = net.host("host");
    let _pods = [30000, 30001].map(|port| host.pod(port, Pod::answering("pod")));
    let cgroup = Cgroup::new("pids");
    host.binary(&cgroup.binary(host))
        .mappings("1024:30000:9:false\n")
        .start();
    assert!(cgroup.holds(&host.snproxy()));
    let threads = cgroup.threads();
    host.snproxy().freeze();
    sleep(PAUSE);
    // A thread that ends now cannot be replaced.
    cgroup.limit_threads(threads - 1);
    host.snproxy().thaw();
    sleep(WHILE);
    host.reloaded_after(|host| {
        host.mappings("1024:30000:9:false\n1025:30001:9:false\n");
    });
    assert_eq!(host.open(1025).greeting(), "pod");
    assert!(!host.log().contains("panicked"), "{}", host.log());
    assert_eq!(host.stop().code(), Some(0));
}

#[test]
fn start_without_threads_is_an_error() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("pod"));
    let cgroup = Cgroup::new("pids");
    host.binary(&cgroup.binary(host))
        .mappings("1024:30000:9:false\n");
    for threads in 1..=5 {
        cgroup.limit_threads(threads);
        let snproxy = host.launch();
        let code = snproxy.wait(SOON).code();
        let log = snproxy.log();
        assert_eq!(code, Some(1), "{threads} threads: {log}");
        assert!(log.contains("snproxy: "), "{threads} threads: {log}");
        assert!(log.contains("thread"), "{threads} threads: {log}");
        assert!(!log.contains("panicked"), "{threads} threads: {log}");
    }
}

/// The program that holds many connections.
fn hold(words: &[&str]) -> Command {
    let mut hold = Command::new(env!("CARGO_BIN_EXE_hold"));
    hold.args(words);
    hold
}

#[test]
fn idle_connections_do_not_exhaust_a_memory_cgroup() {
    const MEMORY: u64 = 24 << 20;
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let at = SocketAddr::new(host.v4(), 30000).to_string();
    let pods = Process::spawn(host.namespace(), "pods", &mut hold(&["pods", &at]));
    pods.wait_for_line(SOON, "listens");
    let _other = host.pod(30001, Pod::answering("other"));
    let cgroup = Cgroup::new("memory");
    cgroup.limit_memory(MEMORY);
    host.binary(&cgroup.binary(host))
        .mappings("1024:30000:60000:false\n1025:30001:9:false\n")
        .start();
    let limit = host.count("/limits/connections");
    assert!((100..=2000).contains(&limit), "{limit}");

    let to = host.port(1024).to_string();
    let words = ["clients", &to, "6000", "0"];
    let clients = Process::spawn(client.namespace(), "clients", &mut hold(&words));
    clients.wait_for_line(LONG, "settled: ");
    println!("limit {limit}, {} of {MEMORY} bytes", cgroup.memory());
    println!("{}", clients.log());
    let served = limit - limit / 10;
    let log = clients.log();
    let settled = log.lines().find_map(|line| line.strip_prefix("settled: "));
    let settled = settled.and_then(|line| line.split_once(" served, 0 wait, 0 closed,"));
    let settled: u64 = settled
        .and_then(|(number, _)| number.parse().ok())
        .expect(&log);
    // Workers that look at the same moment may let in one more each.
    assert!((served..served + WORKERS).contains(&settled), "{log}");
    assert_eq!(host.ends("limit"), 6000 - settled);
    host.snproxy().wait_for_line(SOON, "above MAXCONN auto");
    let log = host.log();
    let lines = log.lines().filter(|line| line.contains("end=limit"));
    let lines = lines.count();
    assert!(
        (100..2000).contains(&lines),
        "{lines} lines of {} ends",
        6000 - served
    );
    // The last tenth is for other ports and sources.
    let other = host.open_locally(host.port(1025));
    assert_eq!(other.greeting(), "other");
    assert!(host.is_reset(1025), "of the same source");
    assert!(cgroup.memory() < MEMORY);
    clients.kill();
    eventually(LONG, "all are out", || host.count("/connections/live") <= 1);
    assert_eq!(host.open(1025).greeting(), "other");
    drop(other);
    assert_eq!(host.stop().code(), Some(0));
}

#[test]
fn few_descriptors_leave_room_for_commands_and_reloads() {
    let net = Net::one();
    let host = net.host("host");
    let _pods = [30000, 30001].map(|port| host.pod(port, Pod::answering("pod")));
    host.limit_nofile(128)
        .mappings("1024:30000:999:false\n")
        .start();
    let limit = host.count("/limits/connections");
    assert!((20..60).contains(&limit), "{limit}");
    let _held: Vec<_> = (0..80).map(|_| host.attempt(1024)).collect();
    eventually(SOON, "the limit is reached", || {
        let served = limit - limit / 10;
        (80 - served - WORKERS..=80 - served).contains(&host.ends("limit"))
    });
    host.reloaded_after(|host| {
        host.mappings("1024:30000:999:false\n1025:30001:9:false\n");
    });
    assert!(
        !host.log().contains("for want of descriptors"),
        "{}",
        host.log()
    );
    host.reloaded_after(|host| {
        host.conf("MAXCONN", "5");
    });
    assert_eq!(host.count("/limits/connections"), 5);
}
