//! `--max-workers`, and the end by Ctrl+C.

use super::fixture::{Apps, NameServer, SOON, echoes};
use snproxy_tests::{Attempt, Ended, Net, eventually};
use std::time::{Duration, Instant};

const FILE: &str = r#"{"Apps":[{"Name":"a","Ports":["5001-5003"],"Targets":["10.77.0.2:6001","10.77.0.2:6002"]}]}"#;
/// Longer than any way to a target takes.
const QUIET: Duration = Duration::from_secs(1);

#[test]
fn more_connections_than_workers_wait_and_are_served_in_their_turn() {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let names = NameServer::start(echo, &[]);
    let _echoes = echoes(echo, &[6001, 6002]);
    proxy.replace("config.json", FILE);
    for how in ["ebpf", "listeners"] {
        let apps = Apps::start(proxy, &names, &["--max-workers", "2", "--steering", how]);
        let first = proxy.open(5001);
        let second = proxy.open(5002);
        assert_eq!(first.greeting(), "echo 6001");
        assert_eq!(
            second.greeting(),
            "echo 6001",
            "a turn of its own at each port"
        );
        let third = proxy.open(5003);
        assert!(third.stays_quiet(QUIET), "the third waits");
        let fourth = proxy.open(5001);
        assert!(fourth.stays_quiet(QUIET), "the fourth waits");
        assert_eq!(
            apps.status()["queues"][0]["waiting"]
                .as_array()
                .map(Vec::len),
            Some(2)
        );
        let text = String::from_utf8_lossy(&apps.run(&["status"]).stdout).into_owned();
        assert!(
            text.contains("2 wait for a place under --max-workers"),
            "{text}"
        );
        let log = apps.log();
        assert!(log.contains("connections wait, --max-workers"), "{log}");

        drop(first);
        assert_eq!(third.greeting(), "echo 6001");
        assert!(fourth.stays_quiet(QUIET), "there is one worker for it");
        second.half_close();
        assert_eq!(second.rest(SOON).1, Ended::Eof);
        assert_eq!(fourth.greeting(), "echo 6002");
        assert_eq!(apps.ends("limit") + apps.ends("queue_full"), 0);
    }
}

#[test]
fn places_at_a_target_are_shared_by_all_ports_of_the_app() {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let names = NameServer::start(echo, &[]);
    let _echoes = echoes(echo, &[6001]);
    let file = FILE.replace(
        r#""10.77.0.2:6001","10.77.0.2:6002""#,
        r#"{"Addr":"10.77.0.2:6001","MaxConn":1}"#,
    );
    proxy.replace("config.json", &file);
    let apps = Apps::start(proxy, &names, &[]);
    let first = proxy.open(5001);
    assert_eq!(first.greeting(), "echo 6001");
    let second = proxy.open(5002);
    assert!(
        second.stays_quiet(QUIET),
        "its one place is taken by another port"
    );
    // The number counts on through a reload.
    proxy.replace("config.json", &file.replace("5001-5003", "5000-5003"));
    eventually(SOON, "the new set is in force", || apps.generation() == 2);
    let third = proxy.open(5000);
    assert!(third.stays_quiet(QUIET));
    drop(first);
    let greeted = eventually(SOON, "one of the two is served", || {
        [&second, &third]
            .iter()
            .any(|conn| !conn.stays_quiet(Duration::from_millis(100)))
    });
    eprintln!("the place was taken {greeted:.1?} after it came free");
}

#[test]
fn ctrl_c_refuses_new_connections_and_lets_the_others_end() {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let names = NameServer::start(echo, &[]);
    let _echoes = echoes(echo, &[6001, 6002]);
    proxy.replace("config.json", FILE);
    for how in ["ebpf", "listeners"] {
        let drain = ["--steering", how, "--set", "DRAINTIMEOUT 4s"];
        let apps = Apps::start(proxy, &names, &drain);
        let (ends, stays) = (proxy.open(5001), proxy.open(5001));
        ends.greeting();
        stays.greeting();
        let began = Instant::now();
        apps.interrupt();
        eventually(SOON, "new connections are refused", || {
            matches!(proxy.attempt(5002), Attempt::Refused)
        });
        ends.send(b"goes on\n");
        assert_eq!(ends.line(), "goes on");
        drop(ends);
        eventually(SOON, "it ends", || apps.exit_status().is_some());
        let took = began.elapsed();
        // What stays is reset in the last quarter of it.
        assert!(
            took >= Duration::from_secs(2),
            "{how}: cut after {took:.1?}"
        );
        eprintln!("{how}: gone {took:.1?} after Ctrl+C, with one connection that stayed");
        assert_eq!(apps.exit_status().and_then(|status| status.code()), Some(0));
        assert_eq!(stays.rest(SOON).1, Ended::Reset);
    }
}
