//! What snproxy may do: as root, as an ordinary user with two capabilities, and without any.

use snproxy_tests::{Attempt, Ended, Host, Net, Pod, Process, eventually};
use std::{fs, io::ErrorKind, time::Duration};

const SOON: Duration = Duration::from_secs(10);
const USER: u32 = 1000;

/// Every thread of it has given up all capabilities, and the ways to gain one.
#[track_caller]
fn holds_no_capability(snproxy: &Process) {
    let tasks = fs::read_dir(format!("/proc/{}/task", snproxy.pid())).expect("a running process");
    let mut threads = 0;
    for task in tasks.flatten() {
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        threads += 1;
        let value = |key: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(key));
            found.expect("a field of status").trim().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            let left = u64::from_str_radix(&value(set), 16);
            assert_eq!(left, Ok(0), "{set} of {}", task.path().display());
        }
        assert_eq!(value("NoNewPrivs:"), "1");
    }
    assert!(threads > 1, "the threads that serve were looked at");
}

/// A program's descriptor would let its holder attach it to any namespace.
#[track_caller]
fn holds_no_program(snproxy: &Process) {
    let held = fs::read_dir(format!("/proc/{}/fd", snproxy.pid())).expect("a running process");
    let held: Vec<_> = held
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    assert!(
        held.iter().any(|target| target.contains("bpf-map")),
        "{held:?}"
    );
    assert!(
        !held.iter().any(|target| target.contains("bpf-prog")),
        "{held:?}"
    );
}

/// Mappings of `count` cluster ports from 2000 on, all to one pod.
fn mappings(count: u16) -> String {
    let lines = (2000..)
        .take(count.into())
        .map(|port| format!("{port}:30000:99:false\n"));
    lines.collect()
}

/// Ends by itself as a failure, and says all of this.
#[track_caller]
fn does_not_start(host: &Host, said: &[&str]) {
    let snproxy = host.launch();
    assert_eq!(snproxy.wait(SOON).code(), Some(1));
    for text in said {
        snproxy.wait_for_line(SOON, text);
    }
    assert!(!snproxy.log().contains(" ready: "));
    assert_eq!(host.attached(), [0; 0]);
}

#[test]
fn a_user_with_two_capabilities_steers_and_then_holds_none() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings(&mappings(1))
        .as_user(USER, &["bpf", "net_admin"])
        .start();

    assert_eq!(host.status()["steering"], "ebpf");
    assert_eq!(host.open(2000).greeting(), "pod");
    holds_no_capability(&host.snproxy());
    holds_no_program(&host.snproxy());

    // The maps are still written to, and the routes change.
    host.mappings("2001:30000:99:false\n");
    assert!(host.reload().status.success());
    assert_eq!(host.open(2001).greeting(), "pod");
    assert!(host.is_refused(2000));
    host.assert_steered(2);
    assert!(host.status()["pending"].is_null());
    holds_no_capability(&host.snproxy());
    assert_eq!(host.stop().code(), Some(0));
    assert_eq!(host.attached(), [0; 0]);
}

#[test]
fn root_ends_up_with_no_capability_either() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings(&mappings(1));

    for steering in ["ebpf", "listeners"] {
        host.conf("STEERING", steering).start();
        assert_eq!(host.status()["steering"], steering);
        assert_eq!(host.open(2000).greeting(), "pod");
        holds_no_capability(&host.snproxy());
        if steering == "ebpf" {
            holds_no_program(&host.snproxy());
            host.assert_steered(1);
        }
        assert_eq!(host.stop().code(), Some(0));
    }
}

#[test]
fn without_capabilities_auto_takes_a_listener_for_each_of_a_few_ports() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings(&mappings(20)).as_user(USER, &[]).start();

    assert_eq!(host.status()["steering"], "listeners");
    assert_eq!(host.attached(), [0; 0]);
    let log = host.log();
    let warned: Vec<_> = log
        .lines()
        .filter(|line| line.contains("eBPF cannot be used"))
        .collect();
    assert_eq!(warned.len(), 1, "{log}");
    for missing in ["CAP_BPF", "CAP_NET_ADMIN"] {
        assert!(warned[0].contains(missing), "{}", warned[0]);
    }
    for port in [2000, 2010, 2019] {
        assert_eq!(host.open(port).greeting(), "pod", "port {port}");
    }
    assert!(host.is_refused(2020));
    assert!((2000..2020).all(|port| host.namespace().listens(port)));

    host.mappings("2019:30000:99:false\n2020:30000:99:false\n");
    assert!(host.reload().status.success());
    for port in [2019, 2020] {
        assert_eq!(host.open(port).greeting(), "pod", "port {port}");
    }
    assert!(host.is_refused(2000));
    holds_no_capability(&host.snproxy());
    assert_eq!(host.stop().code(), Some(0));
}

#[test]
fn without_capabilities_auto_does_not_start_with_many_ports() {
    let net = Net::one();
    let host = net.host("host");
    let ports = (1024..=29999).chain(32768..=u16::MAX);
    let all: Vec<_> = ports
        .map(|port| format!("{port}:30000:99:false\n"))
        .collect();
    host.mappings(&all.concat()).as_user(USER, &[]);

    does_not_start(
        host,
        &[
            "missing CAP_BPF, CAP_NET_ADMIN",
            "61744 ports are too many",
            "`STEERING listeners`",
        ],
    );
}

#[test]
fn many_ports_are_not_reloaded_into_listeners_of_auto() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings(&mappings(20)).as_user(USER, &[]).start();

    host.mappings(&mappings(2000));
    let reload = host.reload();
    assert!(!reload.status.success());
    let said = String::from_utf8_lossy(&reload.stdout).into_owned();
    assert!(said.contains("2000 ports are too many"), "{said}");
    assert_eq!(host.open(2000).greeting(), "pod");
    assert!(host.is_refused(2020));
}

#[test]
fn ebpf_that_was_asked_for_is_not_replaced_by_anything() {
    let net = Net::one();
    let host = net.host("host");
    host.mappings(&mappings(1)).conf("STEERING", "ebpf");

    host.as_user(USER, &[]);
    does_not_start(host, &["missing CAP_BPF, CAP_NET_ADMIN"]);
    host.as_user(USER, &["net_admin"]);
    does_not_start(host, &["missing CAP_BPF"]);
    assert!(!host.log().contains("CAP_NET_ADMIN"), "{}", host.log());
    host.as_user(USER, &["bpf"]);
    does_not_start(host, &["missing CAP_NET_ADMIN"]);
    assert!(!host.log().contains("CAP_BPF"), "{}", host.log());
}

#[test]
fn listeners_are_the_same_proxy() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::echo());
    let one = host.pod(30001, Pod::answering("one"));
    host.mappings("2000:30000:9:false\n2001:30001:1:false\n")
        .conf("STEERING", "listeners")
        .start();
    assert!(host.status()["kernel"].is_null());

    let inside = host.open(2001);
    assert_eq!(inside.greeting(), "one");
    // maxConn is 1.
    let refused = match host.attempt(2001) {
        Attempt::Connected(conn) => conn.ended() == Ended::Reset,
        // The reset overtook the connect.
        Attempt::Failed(error) => error.kind() == ErrorKind::ConnectionReset,
        Attempt::Refused | Attempt::TimedOut => false,
    };
    assert!(refused);
    assert_eq!((host.count("/ends/busy"), one.accepted()), (1, 1));
    drop(inside);
    eventually(SOON, "the place is free again", || {
        host.attempt(2001)
            .connected()
            .is_some_and(|conn| conn.rest(SOON / 10).0 == b"one\n")
    });

    let old = host.open(2000);
    assert_eq!(old.send("before\n").line(), "before");
    host.mappings("2002:30000:9:false\n");
    assert!(host.reload().status.success());
    for port in [2000, 2001] {
        assert!(host.is_refused(port), "port {port}");
        assert!(!host.namespace().listens(port));
    }
    assert_eq!(host.open(2002).send("new\n").line(), "new");
    assert_eq!(
        old.send("after\n").line(),
        "after",
        "no reload ends a connection"
    );

    pod.stop();
    eventually(SOON, "2002 is refused", || host.action(2002) == "refuse");
    eventually(SOON, "its listener is closed", || {
        !host.namespace().listens(2002)
    });
    assert!(host.is_refused(2002));
    host.pod(30000, pod.clone());
    eventually(SOON, "2002 is open again", || {
        host.namespace().listens(2002)
    });
    assert_eq!(host.open(2002).send("back\n").line(), "back");
    // A stop would wait for it.
    drop(old);
    assert_eq!(host.stop().code(), Some(0));
}

#[test]
fn listeners_wait_for_ports_that_other_programs_hold() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    let program = host.pod_at(host.port(2000), Pod::answering("program"));
    host.mappings(&mappings(2))
        .conf("STEERING", "listeners")
        .start();

    assert_eq!(host.open(2000).greeting(), "program");
    assert_eq!(host.open(2001).greeting(), "pod");
    assert_eq!(host.action(2000), "pass");
    assert!(host.status()["pending"].is_null());
    program.stop();
    eventually(SOON, "2000 is ours", || host.action(2000) == "steer");
    assert_eq!(host.open(2000).greeting(), "pod");
}

#[test]
fn listeners_leave_descriptors_for_connections() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.conf("STEERING", "listeners").limit_nofile(64);

    host.mappings(&mappings(33));
    does_not_start(host, &["33 ports are too many", "at most 32"]);
    host.mappings(&mappings(32)).start();
    for port in [2000, 2031] {
        assert_eq!(host.open(port).greeting(), "pod", "port {port}");
    }
    host.mappings(&mappings(33));
    assert!(!host.reload().status.success());
    assert!(host.is_refused(2032));
    assert_eq!(host.open(2000).greeting(), "pod");
}

#[test]
fn an_ordinary_user_takes_no_privileged_port() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    let capabilities = ["bpf", "net_admin"];
    let low = "80:30000:9:false\n2000:30000:9:false\n";
    host.conf("CLUSTERPORTS", "22,80,1024-29999")
        .conf("UNMAPPED", "refuse")
        .mappings(low)
        .as_user(USER, &capabilities);
    does_not_start(host, &["port 80", "CAP_NET_BIND_SERVICE"]);

    host.mappings("2000:30000:9:false\n").start();
    assert_eq!(host.open(2000).greeting(), "pod");
    assert_eq!(
        (host.action(22), host.action(2001)),
        ("pass".into(), "refuse".into())
    );
    host.mappings(low);
    assert!(!host.reload().status.success());
    let found = host.status()["reload"]["diagnostics"].to_string();
    assert!(found.contains("CAP_NET_BIND_SERVICE"), "{found}");
    assert_eq!(host.action(80), "pass");
    host.stop();

    host.as_user(USER, &[&capabilities[..], &["net_bind_service"]].concat())
        .start();
    assert_eq!(host.open(80).greeting(), "pod");
    holds_no_capability(&host.snproxy());
}

#[test]
fn conflict_steal_needs_root() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings(&mappings(1))
        .conf("CONFLICT", "steal")
        .as_user(USER, &["bpf", "net_admin"]);
    does_not_start(host, &["CONFLICT steal", "as root"]);

    host.conf("CONFLICT", "yield").start();
    host.conf("CONFLICT", "steal");
    assert!(!host.reload().status.success());
    assert_eq!(host.open(2000).greeting(), "pod");
}
