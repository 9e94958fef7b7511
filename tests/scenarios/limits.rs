//! Limits on connections, and the queues of those that wait for a place.

use rustix::process::Signal;
use snproxy_tests::{Attempt, Conn, Ended, Host, Net, Pod, Process, eventually};
use std::{
    net::SocketAddr,
    process::{Command, Output},
    thread::{self, sleep},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(15);
const LONG: Duration = Duration::from_mins(3);
/// Long enough for what must not happen.
const WHILE: Duration = Duration::from_millis(300);

/// The program that holds many connections.
fn hold(words: &[&str]) -> Command {
    let mut hold = Command::new(env!("CARGO_BIN_EXE_hold"));
    hold.args(words);
    hold
}

fn waiting(host: &Host) -> Vec<String> {
    let status = host.status();
    let queues = status["queues"].as_array().expect("queues");
    let waiting = queues
        .iter()
        .filter_map(|queue| queue["waiting"].as_array());
    waiting
        .flatten()
        .map(|waiting| waiting["client"].as_str().expect("a client").to_owned())
        .collect()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn ten_thousand_are_held_against_eight_thousand_places_and_a_queue_of_a_thousand() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let at = SocketAddr::new(host.v4(), 30000).to_string();
    let pods = Process::spawn(host.namespace(), "pods", &mut hold(&["pods", &at]));
    pods.wait_for_line(SOON, "listens");
    host.conf("MAXCONN", "8000")
        .conf("QUEUE", "1000")
        .mappings("1024:30000:20000:false\n")
        .start();

    let to = host.port(1024).to_string();
    let words = ["clients", &to, "10000", "50"];
    let clients = Process::spawn(client.namespace(), "clients", &mut hold(&words));
    clients.wait_for_line(LONG, "settled: ");
    assert!(
        clients
            .log()
            .contains("settled: 8000 served, 1000 wait, 0 closed, 1000 reset"),
        "{}",
        clients.log()
    );
    assert_eq!(host.ends("queue_full"), 1000);
    let line = waiting(host);
    clients.signal(Signal::USR1);
    clients.wait_for_line(LONG, "freed");
    let log = clients.log();
    let served: Vec<&str> = log
        .lines()
        .filter_map(|line| line.strip_prefix("next "))
        .collect();
    assert_eq!(served, line[..50], "in the order in which they waited");
    assert_eq!(host.count("/connections/live"), 8950);
    assert_eq!(waiting(host).len(), 950);
    let told = text(&host.run(&["status"]));
    assert!(
        told.contains("950 wait for a place under MAXCONN"),
        "{told}"
    );
    clients.kill();
    eventually(LONG, "all are out", || host.count("/connections/live") == 0);
    assert_eq!(waiting(host), [""; 0]);
    // A FIN is no reason to leave a queue: those that waited were carried, to their pods' end.
    assert_eq!(host.ends("queue_timeout"), 0);
    let number = host.open(1024).line();
    assert_eq!(number.trim(), "9001", "nobody else ever reached a pod");
}

#[test]
fn those_that_wait_for_a_pod_are_served_in_order_or_leave() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("a").expecting_at_most(1));
    host.conf("QUEUE", "1024 3")
        .mappings("1024:30000:1:false\n")
        .start();

    let inside = host.open(1024);
    assert_eq!(inside.greeting(), "a");
    let crowd: Vec<Conn> = (1..=3)
        .map(|count| {
            let conn = host.open(1024);
            eventually(SOON, "it waits", || waiting(host).len() == count);
            conn
        })
        .collect();
    let order: Vec<String> = crowd.iter().map(|conn| conn.local().to_string()).collect();
    assert_eq!(waiting(host), order, "in the order in which they came");
    assert!(host.is_reset(1024), "a fourth may not wait");
    assert_eq!(host.ends("queue_full"), 1);

    let [first, second, third] = <[Conn; 3]>::try_from(crowd).unwrap_or_else(|_| panic!("three"));
    second.reset();
    eventually(SOON, "one left", || waiting(host).len() == 2);
    assert!(first.stays_quiet(WHILE), "the place is taken");
    drop(inside);
    assert_eq!(first.greeting(), "a");
    assert!(third.stays_quiet(WHILE));
    drop(first);
    assert_eq!(third.greeting(), "a");
    drop(third);
    assert_eq!(pod.most_inside(), 1);
    eventually(SOON, "all are out", || host.count("/connections/live") == 0);
}

#[test]
fn a_reload_lets_in_those_that_wait_and_a_wait_has_an_end() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("a"));
    host.conf("PORTMAXCONN", "1024 1")
        .conf("QUEUE", "5")
        .mappings("1024:30000:9:false\n1025:30000:9:false\n")
        .start();
    let _inside = host.open(1024);
    let waits = host.open(1024);
    assert!(waits.stays_quiet(WHILE));
    assert_eq!(host.open(1025).greeting(), "a", "the limit is of one port");
    host.reloaded_after(|host| {
        host.conf("PORTMAXCONN", "1024 2")
            .conf("QUEUETIMEOUT", "1s");
    });
    assert_eq!(waits.greeting(), "a");

    let start = Instant::now();
    let late = host.open(1024);
    assert_eq!(late.ended(), Ended::Reset);
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert_eq!(host.ends("queue_timeout"), 1);
    host.reloaded_after(|host| {
        host.conf("OVERLIMIT", "close").conf("QUEUE", "0");
    });
    let closed = host.open(1024);
    assert_eq!(closed.ended(), Ended::Eof, "closed rather than reset");
    assert_eq!(host.ends("limit"), 1);
}

#[test]
fn what_was_full_reopens_below_its_lower_threshold() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("a"));
    host.conf("REOPEN", "50%")
        .mappings("1024:30000:4:false\n")
        .start();
    let mut inside: Vec<Conn> = (0..4).map(|_| host.open(1024)).collect();
    for conn in &inside {
        assert_eq!(conn.greeting(), "a");
    }
    assert!(host.is_reset(1024));
    let live = |count: u64| {
        eventually(SOON, "it is out", || {
            host.count("/connections/live") == count
        });
    };
    inside.truncate(2);
    live(2);
    assert!(host.is_reset(1024), "2 are not below 50 % of 4");
    inside.truncate(1);
    live(1);
    for _ in 0..3 {
        let conn = host.open(1024);
        assert_eq!(conn.greeting(), "a");
        inside.push(conn);
    }
    assert!(host.is_reset(1024));
}

#[test]
fn one_source_has_its_share_and_others_theirs() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let _pod = host.pod(30000, Pod::answering("a"));
    host.conf("SOURCEMAXCONN", "1024 3 /24")
        .conf("SOURCERATE", "1025 5/s burst=4")
        .mappings("1024:30000:99:false\n1025:30000:99:false\n")
        .start();
    let inside: Vec<Conn> = (0..3).map(|_| host.open(1024)).collect();
    for conn in &inside {
        assert_eq!(conn.greeting(), "a");
    }
    assert!(host.is_reset(1024));
    client.add_address("10.99.0.1/32");
    host.namespace()
        .ip(&format!("route add 10.99.0.0/24 via {}", client.v4()));
    let other = || match client.attempt_from(([10, 99, 0, 1], 0), host.port(1024)) {
        Attempt::Connected(conn) => conn,
        attempt => panic!("{attempt:?}"),
    };
    assert_eq!(other().greeting(), "a", "another network");
    drop(inside);
    eventually(SOON, "its places are free", || {
        host.attempt(1024).connected().is_some_and(|conn| {
            conn.rest(WHILE).0 == b"a\n" || conn.rest(WHILE).0.starts_with(b"a")
        })
    });

    let start = Instant::now();
    let mut served: u32 = 0;
    while start.elapsed() < Duration::from_secs(3) {
        if let Some(conn) = host.attempt(1025).connected()
            && conn.rest(Duration::from_millis(20)).0.starts_with(b"a")
        {
            served += 1;
        }
        sleep(Duration::from_millis(10));
    }
    let most = 4 + 5 * u32::try_from(start.elapsed().as_secs() + 1).unwrap();
    println!("{served} of one source in 3 s at 5/s after 4");
    assert!((5..=most).contains(&served), "{served}, at most {most}");
    assert!(host.ends("source") > 1);
}

#[test]
fn a_client_stays_at_its_pod_for_the_time_that_is_said() {
    let net = Net::one();
    let host = net.host("host");
    let pods = [30000, 30001, 30002].map(|port| host.pod(port, Pod::answering("a")));
    host.conf("PERSIST", "2s")
        .conf("BALANCE", "rr")
        .mappings("1024:30000:99:false\n1024:30001:99:false\n1024:30002:99:false\n")
        .start();
    let visits = || pods.each_ref().map(Pod::accepted);
    for _ in 0..12 {
        assert_eq!(host.open(1024).greeting(), "a");
    }
    assert_eq!(visits().iter().filter(|count| **count == 12).count(), 1);
    let explained = text(&host.run(&["explain", "1024", "--from", &net.client().v4().to_string()]));
    assert!(
        explained.contains("PERSIST: the client's network was here last"),
        "{explained}"
    );
    eventually(SOON, "it goes elsewhere when its time is over", || {
        sleep(Duration::from_millis(2500));
        assert_eq!(host.open(1024).greeting(), "a");
        visits().iter().filter(|count| **count > 0).count() > 1
    });
}

#[test]
fn explain_tells_the_order_and_the_reasons() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let _pods = [30000, 30001, 30002].map(|port| a.pod(port, Pod::answering("a")));
    let _other = b.pod(30000, Pod::answering("b"));
    a.conf("BALANCE", "ordered")
        .mappings("1024:30000:5:false\n1024:30001:1:false\n1024:30002:5:false\n")
        .start();
    b.mappings("1024:30000:5:false\n").start();
    assert_eq!(a.open(1024).greeting(), "a");
    let explain = || text(&a.run(&["explain", "1024", "--from", "10.0.0.9"]));
    eventually(SOON, "the other host's answer is known", || {
        let _ = a.open(1024).greeting();
        explain().contains("serves it, pods 1")
    });
    let told = explain();
    println!("{told}");
    let lines: Vec<&str> = told.lines().map(str::trim_start).collect();
    assert!(lines[0].starts_with("port 1024 from 10.0.0.9: steer (mapped), BALANCE ordered"));
    for (place, what) in [(1, "30000"), (2, "30001"), (3, "30002")] {
        let line = lines
            .iter()
            .find(|line| line.starts_with(&format!("{place} ")));
        assert!(line.is_some_and(|line| line.contains(what)), "{told}");
    }
    assert!(told.contains("4   host"), "{told}");
    assert!(told.contains("nobody can be reached"), "{told}");
    let json = text(&a.run(&["explain", "1024", "--json"]));
    assert!(json.contains("\"candidates\":["), "{json}");
    let nobody = text(&a.run(&["explain", "2000"]));
    assert!(nobody.contains("end not_mapped"), "{nobody}");
}

#[test]
fn a_pod_that_comes_back_serves_those_that_wait() {
    let net = Net::one();
    let host = net.host("host");
    let _full = host.pod(30000, Pod::answering("a"));
    host.conf("QUEUE", "5")
        .mappings("1024:30000:1:false\n1024:30001:9:false\n")
        .start();
    eventually(SOON, "the second pod is known to be down", || {
        host.log().contains("30001")
    });
    let inside = host.open(1024);
    assert_eq!(inside.greeting(), "a");
    let waits = host.open(1024);
    assert!(waits.stays_quiet(WHILE));
    let _back = host.pod(30001, Pod::answering("b"));
    assert_eq!(waits.greeting(), "b");
    assert!(inside.stays_quiet(WHILE), "and nobody had to leave");
}

#[test]
fn who_waited_is_carried_by_the_files_as_they_are_by_then() {
    let net = Net::one();
    let host = net.host("host");
    let _old = host.pod(30000, Pod::answering("old"));
    let _new = host.pod(30001, Pod::answering("new"));
    host.conf("MAXCONN", "1")
        .conf("QUEUE", "5")
        .mappings("1024:30000:9:false\n")
        .start();
    let inside = host.open(1024);
    assert_eq!(inside.greeting(), "old");
    let waits = host.open(1024);
    assert!(waits.stays_quiet(WHILE));
    host.reloaded_after(|host| {
        host.mappings("1024:30001:9:false\n");
    });
    drop(inside);
    assert_eq!(waits.greeting(), "new");
}

#[test]
fn a_port_of_an_app_that_is_full_holds_up_no_other_one() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("a"));
    let target = SocketAddr::new(host.v4(), 30000);
    host.replace(
        "config.json",
        &format!(
            r#"{{"Apps":[
                {{"Name":"nowhere","Ports":[5000],"Targets":["name.invalid:1"]}},
                {{"Name":"app","Ports":[5001,5002],"Targets":["{target}"]}}
            ]}}"#
        ),
    );
    host.conf("APPSCONF", "config.json")
        .conf("PORTMAXCONN", "5001 1")
        .conf("QUEUE", "5")
        .mappings("")
        .start();
    let inside = host.open(5001);
    assert_eq!(inside.greeting(), "a", "an app beside it has no address");
    let waits = host.open(5001);
    eventually(SOON, "it waits", || waiting(host).len() == 1);
    let told = text(&host.run(&["status"]));
    assert!(told.contains("PORTMAXCONN of port 5001"), "{told}");
    assert_eq!(host.open(5002).greeting(), "a", "no limit of its own");
    assert!(waits.stays_quiet(WHILE));
    drop(inside);
    assert_eq!(waits.greeting(), "a");
}

#[test]
fn nobody_who_waited_is_turned_away_at_the_next_limit() {
    let net = Net::one();
    let host = net.host("host");
    let _pod = host.pod(30000, Pod::answering("a").expecting_at_most(1));
    host.conf("MAXCONN", "3")
        .conf("QUEUE", "40")
        .conf("WORKERS", "4")
        .mappings("1024:30000:1:false\n")
        .start();
    let crowd: Vec<Conn> = (0..40).map(|_| host.open(1024)).collect();
    // Four workers accept them: their order is not that of the connects.
    thread::scope(|scope| {
        for conn in crowd {
            scope.spawn(move || assert_eq!(conn.greeting(), "a"));
        }
    });
    eventually(SOON, "all are out", || host.count("/connections/live") == 0);
    assert_eq!(host.ends("queue_full"), 0);
}
