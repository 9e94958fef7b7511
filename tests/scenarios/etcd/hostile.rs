//! An etcd that sends more than any etcd does.

use super::fixture::{FILE, SOON};
use snproxy_tests::{Guest, Net, Pod};
use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

/// Long enough for several answers.
const WHILE: Duration = Duration::from_secs(8);
/// Longest wait for a command.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Most memory of the process, in KiB: without the answers it takes 15 MiB.
const MAX_MEMORY: u64 = 64 << 10;

/// Answers each request with keys, 66 MB of them, or with empty elements.
fn flood(guest: &Guest) {
    let mut request = [0; 4096];
    let Ok(1..) = guest.read(&mut request) else {
        return;
    };
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\
                {\"header\":{\"cluster_id\":\"7\",\"revision\":\"9\"},\"kvs\":[{}";
    let element = match guest.stream().peer_addr().map_or(0, |addr| addr.port()) % 2 {
        0 => ",{\"key\":\"L3Nydi9lY2hvLzEwLjAuMC4xOjE=\"}",
        _ => ",{}",
    };
    let part = element.repeat(2000);
    let mut result = guest.send(head.as_bytes());
    for _ in 0..(66 << 20) / part.len() {
        result = result.and_then(|()| guest.send(part.as_bytes()));
    }
    let _ = result.and_then(|()| guest.send(b"]}"));
}

#[test]
fn huge_answers_of_etcd_are_cut_off() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("pod"));
    let _etcd = host.pod(2379, Pod::serving(flood));
    host.replace("apps.json", FILE)
        .conf("APPSCONF", "apps.json")
        .conf("ETCD", &format!("http://{}", host.port(2379)))
        .mappings("1024:30000:9:false\n")
        .start();
    let start = Instant::now();
    while start.elapsed() < WHILE {
        let asked = Instant::now();
        assert_eq!(host.count("/connections/waiting"), 0);
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        sleep(Duration::from_millis(100));
    }
    host.snproxy().wait_for_line(SOON, "etcd does not answer");
    assert_eq!(host.open(1024).greeting(), "pod");
    let status = fs::read_to_string(format!("/proc/{}/status", host.snproxy().pid()));
    let status = status.expect("a running process");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most: u64 = most
        .and_then(|most| most.trim().strip_suffix(" kB")?.parse().ok())
        .expect("VmHWM of a running process");
    println!("at most {most} KiB");
    assert!(most < MAX_MEMORY, "{most} KiB");
}
