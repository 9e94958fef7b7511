//! Cluster ports on which other programs listen: theirs before, meanwhile and after.

use snproxy_tests::{Client, Conn, Figure, Host, Net, Pod, Process, eventually, print_figure};
use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const SECOND: Figure = Figure::Time(Duration::from_secs(1));

/// Connects to `to` again and again while `during` runs, and panics unless `name` greets each time; tells how many did.
fn greeted_throughout(
    client: &Client,
    to: SocketAddr,
    name: &str,
    during: impl FnOnce(&AtomicUsize),
) -> usize {
    let (greeted, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            client.run(|| {
                // The limit is for a scenario that panicked meanwhile.
                let start = Instant::now();
                while !done.load(Relaxed) && start.elapsed() < 3 * SOON {
                    let conn = Conn::connect(to, SOON);
                    let conn = conn.unwrap_or_else(|error| panic!("{to}: {error}"));
                    assert_eq!(conn.greeting(), name);
                    greeted.fetch_add(1, Relaxed);
                }
            });
        });
        during(&greeted);
        done.store(true, Relaxed);
        connecting.join().expect("every connection was greeted");
    });
    greeted.into_inner()
}

/// socat of user 1000, listening on this port of HOST.
fn socat(host: &Host, port: u16) -> Process {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=1000", "--regid=1000", "--clear-groups", "socat"])
        .arg(format!(
            "TCP-LISTEN:{port},bind={},reuseaddr,fork",
            host.v4()
        ))
        .arg("SYSTEM:echo socat");
    host.namespace().server("socat", &mut command, port)
}

#[test]
fn a_program_that_was_there_before_loses_no_connection() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("pod"));
    let program = host.pod_at(host.port(2000), Pod::answering_once("program"));
    host.mappings("1999:30000:9:false\n2000:30000:9:false\n2001:30000:9:false\n");

    let greeted = greeted_throughout(net.client(), host.port(2000), "program", |greeted| {
        eventually(SOON, "connections are made", || greeted.load(Relaxed) > 20);
        host.start();
        assert_eq!(host.action(2000), "pass");
        // A reload builds everything anew.
        assert!(host.reload().status.success());
        let before = greeted.load(Relaxed);
        eventually(SOON, "more connections", || {
            greeted.load(Relaxed) > before + 100
        });
    });
    assert_eq!((program.accepted(), pod.accepted()), (greeted, 0));
    assert_eq!(host.port_range(2000)["lookups"], 0);
    // Its neighbours are ours.
    for port in [1999, 2001] {
        assert_eq!(host.open(port).greeting(), "pod");
    }
    host.assert_steered(2);
}

/// What the metrics page says of conflicts in this state.
fn conflicts_in(net: &Net, state: &str) -> u64 {
    let metric = format!("snproxy_port_conflicts{{state=\"{state}\"}} ");
    let socket = net.host("host").folder().join("admin.sock");
    let socket = socket.to_str().expect("a path");
    let url = "http://localhost/metrics";
    let page = net.client().curl(&["--unix-socket", socket, url]);
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(&metric));
    let value = lines.next().unwrap_or_else(|| panic!("{page}"));
    value.parse().expect("a number")
}

#[test]
fn a_later_program_gets_no_connections_of_a_mapped_port() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("2000:30000:99:false\n").start();

    let greeted = greeted_throughout(net.client(), host.port(2000), "pod", |_| {
        let socat = socat(host, 2000);
        let began = Instant::now();
        eventually(SOON, "the program is seen", || {
            host.status()["conflicts"]["shadowed"] == "2000"
        });
        print_figure(
            "a program listens on a mapped port: reported after",
            Figure::Time(began.elapsed()),
            SECOND,
        );
        host.snproxy().wait_for_line(
            SOON,
            "another program listens on a cluster port: the program gets no connections",
        );
        let range = host.port_range(2000);
        assert_eq!(range["action"], "steer", "{range}");
        assert_eq!(range["owner"]["uid"], 1000, "{range}");
        assert_eq!(range["owner"]["shadowed"], true, "{range}");
        assert_eq!(conflicts_in(&net, "shadowed"), 1);
        // Neither a reload nor another mapping gives it the port.
        host.mappings("2000:30000:99:false\n2001:30000:9:false\n");
        assert!(host.reload().status.success());
        assert_eq!(host.action(2000), "steer");
        socat.kill();
        eventually(SOON, "the program is gone", || {
            host.status()["conflicts"]["shadowed"] == ""
        });
        assert_eq!(conflicts_in(&net, "shadowed"), 0);
    });
    assert!(greeted > 10, "{greeted}");
    host.snproxy()
        .wait_for_line(SOON, "the other program stopped listening");
}

#[test]
fn a_program_that_left_a_held_port_does_not_get_it_back() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    let program = host.pod_at(host.port(2000), Pod::answering("program"));
    host.mappings("2000:30000:9:false\n").start();
    assert_eq!(host.status()["conflicts"]["held"], "2000");
    assert_eq!(conflicts_in(&net, "held"), 1);
    assert_eq!(host.open(2000).greeting(), "program");

    program.stop();
    let ended = Instant::now();
    eventually(SOON, "2000 is steered", || host.action(2000) == "steer");
    print_figure(
        "the program of a held port ends: steered after",
        Figure::Time(ended.elapsed()),
        SECOND,
    );
    let _again = host.pod_at(host.port(2000), Pod::answering("program"));
    eventually(SOON, "it is seen", || {
        host.status()["conflicts"]["shadowed"] == "2000"
    });
    assert_eq!(host.open(2000).greeting(), "pod");

    // Without its mapping the port is the program's; with it again, the program was there before.
    host.mappings("");
    eventually(SOON, "2000 is left alone", || host.action(2000) == "pass");
    assert_eq!(host.open(2000).greeting(), "program");
    host.mappings("2000:30000:9:false\n");
    eventually(SOON, "it holds its port", || {
        host.status()["conflicts"]["held"] == "2000"
    });
    assert_eq!(host.open(2000).greeting(), "program");
}

#[test]
fn a_program_on_a_port_that_nobody_serves_is_left_alone_too() {
    let net = Net::one();
    let host = net.host("host");
    host.start();
    assert!(host.is_refused(2000));

    // On every address of both families: also on ours. Nothing has to be noticed first.
    host.pod(2000, Pod::answering("program"));
    assert_eq!(host.open(2000).greeting(), "program");
    assert_eq!(host.action(2000), "pass");
    host.assert_refused(0);
}

#[test]
fn ports_names_the_program() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    let socat = socat(host, 2000);
    host.mappings("2000:30000:9:false\n2001:30000:9:false\n")
        .start();
    assert_eq!(host.action(2000), "pass");

    let range = host.port_range(2000);
    let owner = &range["owner"];
    assert_eq!(
        range["reason"],
        "another program listened before the mapping"
    );
    assert_eq!(owner["name"], "socat", "{owner}");
    assert_eq!(owner["pid"], socat.pid());
    assert_eq!(owner["uid"], 1000);
    assert_eq!(owner["address"], host.port(2000).to_string());
    assert_eq!([&range["first"], &range["last"]], [2000, 2000]);

    let text = String::from_utf8(host.run(&["ports"]).stdout).expect("text");
    let line = text
        .lines()
        .find(|line| line.starts_with("2000 "))
        .unwrap_or_default();
    let named = format!(
        "another program listened before the mapping: socat, pid {}, uid 1000, on {}",
        socat.pid(),
        host.port(2000)
    );
    assert!(line.contains(" pass ") && line.ends_with(&named), "{text}");
    host.snproxy()
        .wait_for_line(SOON, "another program listens on a cluster port");

    socat.kill();
    eventually(SOON, "2000 is ours again", || host.action(2000) == "steer");
    assert!(host.port_range(2000)["owner"].is_null());
}

#[test]
fn conflict_steal_takes_new_connections_over_until_it_is_changed() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    let program = host.pod_at(host.port(2000), Pod::answering("program"));
    let before = host.open(2000);
    assert_eq!(before.greeting(), "program");
    host.mappings("2000:30000:9:false\n")
        .conf("CONFLICT", "steal")
        .start();

    assert_eq!(host.open(2000).greeting(), "pod");
    host.assert_steered(1);
    let range = host.port_range(2000);
    assert_eq!(
        (&range["action"], &range["owner"]["uid"]),
        (&"steer".into(), &0.into()),
        "{range}"
    );
    host.snproxy().wait_for_line(SOON, "CONFLICT steal");
    assert_eq!(program.inside(), 1, "its old connections stay");

    host.conf("CONFLICT", "yield");
    eventually(SOON, "2000 is left alone", || host.action(2000) == "pass");
    assert_eq!(host.open(2000).greeting(), "program");
    host.assert_steered(1);
    assert_eq!(program.accepted(), 2);
}

#[test]
fn conflict_fail_does_not_start_beside_a_program() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    let program = host.pod_at(host.port(2000), Pod::answering("program"));
    host.mappings("2000:30000:9:false\n")
        .conf("CONFLICT", "fail");

    let snproxy = host.launch();
    assert_eq!(snproxy.wait(SOON).code(), Some(1));
    snproxy.wait_for_line(
        SOON,
        &format!("another program (uid 0) listens on {}", host.port(2000)),
    );
    assert_eq!(host.attached(), [0; 0]);
    assert_eq!(host.open(2000).greeting(), "program");

    program.stop();
    host.start();
    assert_eq!(host.open(2000).greeting(), "pod");
    host.assert_steered(1);
}

#[test]
fn conflict_fail_keeps_its_ports_and_reloads_beside_later_programs() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("2000:30000:9:false\n")
        .conf("CONFLICT", "fail")
        .start();
    let programs = [2000, 2001].map(|port| socat(host, port));
    eventually(SOON, "the program is seen", || {
        host.status()["conflicts"]["shadowed"] == "2000"
    });
    assert_eq!(host.open(2000).greeting(), "pod");

    // A program on a port in force keeps no reload off; one on a port that is new does.
    host.mappings("2000:30000:9:false\n2002:30000:9:false\n");
    assert!(host.reload().status.success());
    assert_eq!(host.open(2002).greeting(), "pod");
    host.mappings("2000:30000:9:false\n2001:30000:9:false\n");
    assert!(!host.reload().status.success());
    let found = host.status()["reload"]["diagnostics"].to_string();
    assert!(found.contains("CONFLICT fail"), "{found}");
    assert_eq!(host.open(2002).greeting(), "pod", "the last set stays");

    for program in programs {
        program.kill();
    }
    eventually(SOON, "the new set is in force", || {
        host.action(2001) == "steer"
    });
    assert_eq!(host.open(2001).greeting(), "pod");
}

#[test]
fn programs_on_other_addresses_are_no_conflict() {
    let net = Net::one();
    let host = net.host("host");
    host.namespace().ip("address add 10.77.0.9/24 dev eth0");
    host.pod(30000, Pod::answering("pod"));
    let elsewhere: [SocketAddr; 3] = [
        ([127, 0, 0, 1], 2000).into(),
        ([10, 77, 0, 9], 2000).into(),
        host.port6(2000),
    ];
    for at in elsewhere {
        host.pod_at(at, Pod::answering("program"));
    }
    host.mappings("2000:30000:9:false\n")
        .conf("CONFLICT", "fail")
        .start();

    assert_eq!(host.open(2000).greeting(), "pod");
    assert_eq!(host.open_locally(elsewhere[0]).greeting(), "program");
    for at in &elsewhere[1..] {
        assert_eq!(net.client().open(*at).greeting(), "program");
    }
    assert!(host.port_range(2000)["owner"].is_null());
    host.assert_steered(1);
}
