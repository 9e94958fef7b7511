//! Servers that speak first: who waits for a header of the client, and how an operator learns of it.

use super::{SOON, V1};
use snproxy_tests::{Guest, Host, Net, Pod, eventually};
use std::time::{Duration, Instant};

/// Greets a client once it knows from the header who it is.
fn greeter() -> Pod {
    Pod::serving(|guest: &Guest| {
        let mut got = Vec::new();
        let mut byte = [0; 1];
        while !got.ends_with(b"\n") {
            match guest.read(&mut byte) {
                Ok(1) => got.push(byte[0]),
                _ => return,
            }
        }
        let _ = guest.send(b"220 ready\r\n");
        guest.read_all();
    })
}

fn text(host: &Host, words: &[&str]) -> String {
    String::from_utf8_lossy(&host.run(words).stdout).into_owned()
}

#[test]
fn delay_by_proxywait_is_reported_with_its_cause() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, greeter());
    host.mappings("1024:30000:99:true\n").start();
    let explain = |from: &str| text(host, &["explain", "1024", "--from", from]);
    let cause = "PROXYWAIT 1s: if the client sends nothing";
    let client = net.client().v4().to_string();
    assert!(explain(&client).contains(cause), "{}", explain(&client));
    let public = explain("198.51.100.7");
    let reads = "CLIENTPROXY detect private: no header of 198.51.100.7 is read";
    assert!(
        public.contains(reads) && !public.contains(cause),
        "{public}"
    );
    assert!(!text(host, &["status"]).contains("PROXYWAIT"));

    for count in 1..=3 {
        let start = Instant::now();
        let conn = host.open(V1);
        assert_eq!(conn.line(), "220 ready");
        assert!(start.elapsed() >= Duration::from_secs(1));
        let delayed = format!("PROXYWAIT delayed the header of {count} clients");
        assert!(explain(&client).contains(&delayed), "{}", explain(&client));
    }
    eventually(SOON, "the log names the cause", || {
        host.log().contains("PROXY header was delayed by PROXYWAIT")
    });
    let log = host.log();
    assert!(log.contains("set CLIENTPROXY 1024 never"), "{log}");
    assert_eq!(log.matches("delayed by PROXYWAIT").count(), 1, "{log}");
    assert_eq!(host.status()["header_delays"]["1024"], 3);
    let status = text(host, &["status"]);
    assert!(
        status.contains("of silent clients of port 1024 (3)"),
        "{status}"
    );

    // What the line tells the operator to do.
    host.reloaded_after(|host| {
        host.conf("CLIENTPROXY", "1024 never")
            .conf("PROXYWAIT", "60s")
    });
    let start = Instant::now();
    assert_eq!(host.open(V1).line(), "220 ready");
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(!explain(&client).contains(cause), "{}", explain(&client));
    assert!(!text(host, &["status"]).contains("PROXYWAIT"));
}
