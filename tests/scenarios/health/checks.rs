//! Checks: whom they go to, what they say, how many at a time, and what is said of their outcome.

use super::{SOON, count_in, is_up, pod};
use snproxy_tests::{Ended, Figure, Guest, Host, Net, Pod, eventually, print_figure};
use std::time::{Duration, Instant};

/// Answers PING, whatever comes before it, and remembers.
fn ponging() -> Pod {
    Pod::serving(|guest| {
        let mut got = Vec::new();
        let mut chunk = [0; 256];
        while let Ok(count @ 1..) = guest.read(&mut chunk) {
            got.extend_from_slice(&chunk[..count]);
            if got.ends_with(b"PING\r\n") {
                let _ = guest.send(b"+PONG\r\n");
            }
        }
    })
}

const PONG: &str = r#"tcp/200ms send="PING\r\n" expect="+PONG" timeout=300ms"#;

/// Waits so many seconds by the proxy's own clock.
fn wait_seconds(host: &Host, seconds: u64) {
    let end = host.count("/uptime_seconds") + seconds;
    eventually(SOON + Duration::from_secs(seconds), "time passes", || {
        host.count("/uptime_seconds") >= end
    });
}

#[test]
fn a_port_whose_pods_all_hang_says_so_refuses_and_comes_back() {
    let net = Net::one();
    let host = net.host("host");
    let nginx = host.nginx(30000, "", "here");
    let health =
        r#"tcp/300ms timeout=300ms rise=2 send="GET / HTTP/1.0\r\n\r\n" expect="HTTP/1.1 200""#;
    host.conf("HEALTH", health)
        .mappings("1024:30000:9:false\n1025:30000:9:false\n")
        .start();
    eventually(SOON, "a check passed", || {
        pod(host, 30000)["health"]["last"] == "passed its check"
    });
    let generation = host.count("/generation");

    nginx.freeze();
    eventually(SOON, "the port is refused", || {
        host.action(1024) == "refuse" && host.action(1025) == "refuse"
    });
    // Its kernel accepts, and its listener is seen: neither is an answer.
    wait_seconds(host, 4);
    assert!(host.is_refused(1024) && host.is_refused(1025));
    assert_eq!(host.port_range(1024)["reason"], "all pods are down");
    assert_eq!(host.status()["all_out"], "1024-1025");
    let down = pod(host, 30000);
    let last = down["health"]["last"].as_str().unwrap_or_default();
    assert!(last.ends_with("no answer in 300ms"), "{down:#}");
    assert!(
        down["health"]["since_ms"].as_u64() >= Some(3000),
        "{down:#}"
    );
    // Checks go on.
    assert!(down["health"]["last_ms"].as_u64() <= Some(2000), "{down:#}");
    assert!(down["health"]["next_check_ms"].is_u64(), "{down:#}");
    for words in ["status", "routes"] {
        let text = String::from_utf8_lossy(&host.run(&[words]).stdout).into_owned();
        assert!(
            text.contains("down for") && text.contains("no answer in 300ms"),
            "{text}"
        );
    }
    let log = host.log();
    assert_eq!(count_in(&log, "all pods are down"), 1, "{log}");
    assert_eq!(count_in(&log, "pod is down"), 1, "{log}");
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("upstream_down"));
    let line = line.expect("the event of the pod");
    assert!(line.contains(" WARN pod is down"), "{line}");
    assert!(line.contains(r#"ports="1024-1025""#), "{line}");

    nginx.thaw();
    eventually(SOON, "the port is steered", || host.action(1024) == "steer");
    let url = format!("http://{}/", host.port(1024));
    assert_eq!(net.client().curl(&[&url]), "here\n");
    assert_eq!(host.status()["all_out"], "");
    assert_eq!(host.count("/generation"), generation);
    host.snproxy().wait_for_line(SOON, "served again");
}

#[test]
fn a_pod_that_expects_a_header_gets_one_before_the_question() {
    let net = Net::one();
    let host = net.host("host");
    let [first, second] =
        [(30000, ponging()), (30001, ponging())].map(|(port, pod)| host.pod(port, pod));
    host.conf("HEALTH", PONG)
        .mappings("1024:30000:9:v1 1025:30001:9:v2\n")
        .start();
    assert_eq!(first.visit(2).wait_for_end(), Ended::Eof);
    let check = first.visit(0);
    let (from, to) = (check.peer(), check.local());
    // Of the check's own connection: servers refuse UNKNOWN.
    let line = format!(
        "PROXY TCP4 {} {} {} {}\r\nPING\r\n",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    );
    assert_eq!(String::from_utf8_lossy(&check.first_bytes()), line);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0PING\r\n";
    assert_eq!(second.visit(0).first_bytes(), local);
    assert!(is_up(host, 30000) && is_up(host, 30001));
}

#[test]
fn a_pod_that_resets_at_once_gets_nobody_once_a_check_found_out() {
    let net = Net::one();
    let host = net.host("host");
    let resets = host.pod(30000, Pod::serving(Guest::reset_on_close));
    host.pod(30001, ponging());
    host.conf("HEALTH", PONG)
        .mappings("1024:30000:99:false 1024:30001:99:false\n")
        .start();
    eventually(SOON, "it is down", || !is_up(host, 30000));
    for _ in 0..200 {
        let conn = host.open(1024);
        assert_eq!(conn.send("PING\r\n").line(), "+PONG");
    }
    let log = host.log();
    assert_eq!(count_in(&log, "pod is down"), 1, "{log}");

    // Another program is there now, at the same address.
    resets.stop();
    host.pod(30000, ponging());
    eventually(SOON, "it is up", || is_up(host, 30000));
}

#[test]
fn another_answer_than_expected_takes_a_pod_down_and_a_reload_brings_it_back() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::banner("-LOADING\r\n"));
    host.conf("HEALTH", &PONG.replace("tcp/200ms", "tcp/200ms fall=3"))
        .mappings("1024:30000:9:false\n")
        .start();
    eventually(SOON, "it is down", || !is_up(host, 30000));
    let last = pod(host, 30000)["health"]["last"].clone();
    let last = last.as_str().unwrap_or_default();
    assert!(
        last.ends_with(r"another answer than expected, but `-LOADING\r\n`"),
        "{last}"
    );

    // Another HEALTH holds from then on; what was known of the pod holds until it says otherwise.
    host.reloaded_after(|host| host.conf("HEALTH", "tcp/200ms"));
    eventually(SOON, "it is up", || is_up(host, 30000));
    assert_eq!(host.open(1024).line(), "-LOADING");
}

#[test]
fn plain_checks_go_to_pods_that_are_not_seen_to_listen_here() {
    let net = Net::hosts(["host", "elsewhere"]);
    let (host, elsewhere) = (net.host("host"), net.host("elsewhere"));
    let here = host.pod(30000, Pod::answering("here"));
    host.hosts(&format!("{}\n", host.port(32767)))
        .conf("HEALTH", "tcp/200ms")
        .mappings("1024:30000:9:false\n")
        .start();
    wait_seconds(host, 3);
    assert_eq!(here.accepted(), 0, "its listener is seen");
    let health = &pod(host, 30000)["health"];
    assert!(
        health["next_check_ms"].is_null() && health["last"].is_null(),
        "{health}"
    );

    // Here somebody listens on that port, there is another machine.
    let there = elsewhere.pod(30000, Pod::answering("there"));
    let pod_host = elsewhere.v4().to_string();
    host.reloaded_after(|host| host.conf("PODHOST", &pod_host));
    there.visit(9);
    // Nobody connects, and yet it is known.
    there.stop();
    eventually(SOON, "it is down", || !is_up(host, 30000));
    elsewhere.pod(30000, there.clone());
    eventually(SOON, "it is up", || is_up(host, 30000));

    host.reloaded_after(|host| host.conf("HEALTH", "passive"));
    // A check may be under way.
    wait_seconds(host, 1);
    let before = there.accepted();
    wait_seconds(host, 3);
    assert_eq!(there.accepted(), before, "dials alone tell");
}

#[test]
fn checks_of_two_thousand_pods_never_come_all_at_once() {
    const PODS: u16 = 2000;
    let net = Net::hosts(["host", "elsewhere"]);
    let (host, elsewhere) = (net.host("host"), net.host("elsewhere"));
    let pod = elsewhere.pod(30000, Pod::serving(|guest| drop(guest.read_all())));
    elsewhere.namespace().nft("add table ip checks");
    elsewhere
        .namespace()
        .nft("add chain ip checks in { type nat hook prerouting priority -100; }");
    elsewhere
        .namespace()
        .nft("add rule ip checks in tcp dport 20000-21999 redirect to :30000");
    let mappings: Vec<_> = (0..PODS)
        .map(|pod| format!("{}:{}:9:false\n", 2000 + pod, 20_000 + pod))
        .collect();
    host.conf("HEALTH", "tcp/5s")
        .conf("PODHOST", &elsewhere.v4().to_string())
        .mappings(&mappings.concat())
        .start();
    let start = Instant::now();
    eventually(2 * SOON, "two rounds of checks", || {
        pod.accepted() >= 2 * usize::from(PODS)
    });
    let took = start.elapsed();
    print_figure(
        "two rounds of 2,000 checks, 5 s apart",
        Figure::Time(took),
        Figure::Time(Duration::from_secs(12)),
    );
    assert!(took >= Duration::from_secs(8), "{took:?}");

    let mut times: Vec<_> = pod.visits().iter().map(|visit| visit.came()).collect();
    times.sort();
    // As many as come in a tenth of the time, were they all of one size: 200.
    let window = Duration::from_millis(500);
    let within = |at: &Instant| {
        times.partition_point(|time| *time < *at + window) - times.partition_point(|time| time < at)
    };
    let most = times.iter().map(within).max().unwrap_or_default();
    print_figure(
        "most of 2,000 checks that came within half a second",
        Figure::Count(most as u64),
        Figure::Count(300),
    );
    assert_eq!(host.status()["all_out"], "");
}
