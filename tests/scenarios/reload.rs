//! Files change while connections come and go.

use rustix::process::Signal;
use snproxy_tests::{Attempt, Ended, Ending, Figure, Host, Net, Pod, eventually, print_figure};
use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const FILE: &str = "portmappings.conf";

/// A host that maps 1024 to a pod that answers `a` and ends.
fn one_pod(net: &Net) -> (&Host, Pod) {
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering_once("a"));
    host.mappings("1024:30000:900:false\n");
    (host, pod)
}

fn is_served(host: &Host, port: u16) -> bool {
    matches!(host.attempt(port), Attempt::Connected(conn) if conn.rest(SOON) == (b"a\n".to_vec(), Ended::Eof))
}

#[test]
fn no_connection_of_an_untouched_mapping_fails_in_sixty_reloads() {
    const RELOADS: u16 = 60;
    const PER_SECOND: u32 = 200;
    let net = Net::one();
    let (host, pod) = one_pod(&net);
    host.start();

    let over = AtomicBool::new(false);
    let load = || {
        let start = Instant::now();
        let mut served = 0;
        while !over.load(Relaxed) {
            assert!(is_served(host, 1024), "connection {served}");
            served += 1;
            // Two threads share the rate; who is late does not wait.
            let due = Duration::from_secs(2) * served / PER_SECOND;
            sleep(due.saturating_sub(start.elapsed()));
        }
        served as usize
    };
    let mut slowest = Duration::ZERO;
    let served: usize = thread::scope(|scope| {
        let ending = Ending(&over);
        let loads = [(), ()].map(|()| scope.spawn(load));
        for reload in 0..RELOADS {
            let added = 2000 + reload;
            let text = format!("1024:30000:900:false\n{added}:30000:9:false\n");
            let start = Instant::now();
            match reload % 3 {
                0 => host.replace(FILE, &text),
                1 => host.overwrite(FILE, &text),
                _ => host.swap(FILE, &text),
            };
            eventually(SOON, &format!("{added} is served"), || {
                is_served(host, added)
            });
            slowest = slowest.max(start.elapsed());
        }
        drop(ending);
        loads.map(|load| load.join().expect("a load")).iter().sum()
    });

    print_figure(
        "longest of 60 from a change to its first connection",
        Figure::Time(slowest),
        Figure::Time(Duration::from_millis(500)),
    );
    assert!(served >= 60, "only {served} connections under load");
    assert_eq!(pod.accepted(), served + usize::from(RELOADS));
    assert!(host.count("/generation") > u64::from(RELOADS));
    assert!(host.steered() >= served as u64);
    assert!(host.is_refused(2000) && host.is_refused(2000 + RELOADS - 2));
}

#[test]
fn an_added_port_works_a_removed_one_is_refused_and_its_connection_goes_on() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::echo());
    host.mappings("1024:30000:9:false\n").start();
    assert!(host.is_refused(1025));
    let open = host.open(1024);
    assert_eq!(open.send("before\n").line(), "before");

    host.mappings("1025:30000:9:false\n");
    let added = eventually(SOON, "the added port works", || {
        host.attempt(1025).connected().is_some()
    });
    let changes = r#"added="ports 1025" removed="ports 1024""#;
    eventually(SOON, "the log names both", || host.log().contains(changes));
    let removed = added
        + eventually(SOON, "the removed port is refused", || {
            host.is_refused(1024)
        });
    print_figure(
        "from mv to an added port",
        Figure::Time(added),
        Figure::Time(Duration::from_millis(500)),
    );
    print_figure(
        "from mv to a removed port",
        Figure::Time(removed),
        Figure::Time(Duration::from_millis(500)),
    );
    // By the kernel: no lookup reaches us any more.
    let before = host.steered();
    assert!(host.is_refused(1024));
    assert_eq!(host.steered(), before);
    assert_eq!(host.action(1024), "pass");

    assert_eq!(open.send("after\n").line(), "after");
    assert_eq!(open.half_close().ended(), Ended::Eof);
}

/// Files that are no configuration: which, its text, and the finding without the folder.
const WRONG: &[(&str, &str, &str)] = &[
    (
        FILE,
        "1024:30000:900:false\n1025:30000:9:fal",
        "portmappings.conf:2:14: error: `fal` is not a sendProxy",
    ),
    (
        FILE,
        "1024:30000:900:false\n  1025:300",
        "portmappings.conf:2:3: error: expected clusterPort:",
    ),
    (
        FILE,
        "1024:30000:900:false 1025:0:9:true\n",
        "portmappings.conf:1:27: error: `0` is not a host port",
    ),
    (FILE, "\0\x01\x02", "portmappings.conf:1:1: error: NUL byte"),
    (
        "proxy.conf",
        "HOST 10.77.0.1\nBALANCE best\n",
        "proxy.conf:2:9: error: expected p2c, rr, wrr, random, ordered",
    ),
    (
        "proxy.conf",
        "HOST 10.77.0.1\nCLUSTERPORTS 2000-1000\n",
        "proxy.conf:2:14: error: range runs backwards",
    ),
    (
        "hosts.conf",
        "10.77.0.1:32767\n10.77.0.2:\n",
        "hosts.conf:2:",
    ),
];

#[test]
fn wrong_files_change_nothing_are_named_and_are_taken_once_mended() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.start();

    for (file, text, finding) in WRONG {
        let path = host.folder().join(file);
        let (good, generation) = (
            fs::read_to_string(&path).expect(file),
            host.count("/generation"),
        );
        let ports = host.ports();
        if *file == FILE {
            host.overwrite(file, text);
        } else {
            // The control socket is where it was: the words that ask need to know it.
            let admin = format!(
                "{text}ADMIN unix:{}\n",
                host.folder().join("admin.sock").display()
            );
            host.replace(file, if *file == "proxy.conf" { &admin } else { text });
        }
        let place = format!("{}/{finding}", host.folder().display());
        eventually(SOON, finding, || host.log().contains(&place));
        // `status` of a set that is no configuration is asked where its ADMIN says.
        let named = |status: &serde_json::Value| {
            let found = status["reload"]["diagnostics"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            found.iter().any(|found| {
                found
                    .as_str()
                    .is_some_and(|found| found.starts_with(&place))
            })
        };
        let status = host.status();
        assert!(
            status["reload"]["ok"] == false && named(&status),
            "{finding}: {status:#}"
        );
        assert_eq!(status["generation"], generation, "{finding}");
        assert_eq!(actions(&host.ports()), actions(&ports), "{finding}");
        assert!(is_served(host, 1024), "{finding}");

        host.replace(file, &good);
        eventually(SOON, "mended", || host.status()["reload"]["ok"] == true);
        assert_eq!(
            host.status()["reload"]["diagnostics"]
                .as_array()
                .map(Vec::len),
            Some(0)
        );
    }
    let kept = "configuration not used: the last good one stays in force";
    assert_eq!(
        host.log().matches(kept).count(),
        WRONG.len(),
        "each is told once"
    );
}

/// What becomes of the ports, without the counts.
fn actions(ports: &serde_json::Value) -> Vec<String> {
    let ranges = ports["ranges"].as_array().expect("ranges");
    let show = |range: &serde_json::Value| {
        format!("{}-{} {}", range["first"], range["last"], range["action"])
    };
    ranges.iter().map(show).collect()
}

#[test]
fn files_that_are_gone_change_nothing_until_they_are_back() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.start();

    for (file, finding) in [(FILE, "the file is gone"), ("proxy.conf", "no such file")] {
        let path = host.folder().join(file);
        let good = fs::read_to_string(&path).expect(file);
        fs::remove_file(&path).expect(file);
        eventually(SOON, finding, || {
            host.log()
                .contains(&format!("{}: error: {finding}", path.display()))
        });
        assert!(is_served(host, 1024));
        // The very same text counts as mended too.
        host.replace(file, &good);
        eventually(SOON, "it is back", || host.status()["reload"]["ok"] == true);
        assert!(is_served(host, 1024));
    }
}

#[test]
fn hangup_and_the_reload_command_read_the_files_again() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.start();
    assert_eq!(host.count("/generation"), 1);

    // Nothing has changed: only being asked makes a new generation.
    host.reloaded_after(|host| host.signal(Signal::HUP));
    assert_eq!(host.count("/generation"), 2);
    let output = host.reload();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "generation 3 in force\n"
    );

    host.mappings("1024:30000:900:false\n1025:30000:9:false\n")
        .signal(Signal::HUP);
    eventually(SOON, "the added port works", || is_served(host, 1025));

    host.mappings("1024:30000:900:maybe\n");
    let output = host.reload();
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("portmappings.conf:1:16: error: `maybe` is not a sendProxy"),
        "{told}"
    );
    assert!(
        told.contains("still in force: the files were not used"),
        "{told}"
    );
    assert!(is_served(host, 1025));
    // A hangup says it again in the log only if it is news.
    host.signal(Signal::HUP);
    assert!(is_served(host, 1024));
}

#[test]
fn keys_of_proxy_conf_apply_without_a_restart() {
    let net = Net::one();
    let host = net.host("host");
    let pods = [30000, 30001].map(|port| host.pod(port, Pod::answering("a")));
    host.mappings("1024:30000:900:false\n1024:30001:900:false\n3000:30000:900:false\n")
        .start();

    host.reloaded_after(|host| host.conf("BALANCE", "ordered"));
    let before = pods.each_ref().map(Pod::accepted);
    for _ in 0..10 {
        assert_eq!(host.open(1024).greeting(), "a");
    }
    assert_eq!(
        pods.each_ref().map(Pod::accepted),
        [before[0] + 10, before[1]]
    );

    // A port that is no cluster port any more is nobody's: the kernel looks on.
    assert_eq!(host.open(3000).greeting(), "a");
    assert_eq!(host.action(3000), "steer");
    host.reloaded_after(|host| {
        host.mappings("1024:30000:900:false\n")
            .conf("CLUSTERPORTS", "1024-2000,4000")
    });
    let refused = host.count("/kernel/refused");
    assert_eq!(
        [2000, 2001, 3000, 4000].map(|port| host.action(port)),
        ["pass", "", "", "pass"]
    );
    assert!(host.is_refused(3000));
    assert_eq!(host.count("/kernel/refused"), refused, "not by us");

    let closed = |host: &Host| host.log().matches(" closed ").count();
    assert_eq!(closed(host), 0);
    host.reloaded_after(|host| host.conf("LOGLEVEL", "debug"));
    assert_eq!(host.open(1024).greeting(), "a");
    eventually(SOON, "a closing event", || closed(host) == 1);
    host.reloaded_after(|host| host.conf("IDLETIMEOUT", "200ms"));
    assert_eq!(host.open(1024).ended(), Ended::Reset);
    eventually(SOON, "it was idle", || host.ends("idle") == 1);

    // The mappings move to another file, which is watched from then on.
    host.replace("moved.conf", "1024:30000:9:false\n1025:30000:9:false\n");
    host.reloaded_after(|host| host.conf("PORTSCONF", "moved.conf"));
    assert_eq!(host.open(1025).greeting(), "a");
    host.replace("moved.conf", "1026:30000:9:false\n");
    eventually(SOON, "the moved file is watched", || {
        host.attempt(1026).connected().is_some()
    });
}

#[test]
fn host_and_port_wait_for_a_restart_and_say_so() {
    let net = Net::one();
    let host = net.host("host");
    // Where HOST was, and where it is not: pods stay where they were as well.
    host.pod_at(host.port(30000), Pod::answering("a"));
    host.mappings("1024:30000:900:false\n").start();

    for (key, value, was) in [
        ("PORT", "32000", None),
        ("HOST", "127.0.0.1", Some("10.77.0.1")),
    ] {
        host.reloaded_after(|host| host.conf(key, value));
        let warning =
            format!("proxy.conf: warning: {key} changed: in force after a restart of snproxy");
        assert!(host.log().contains(&warning), "{}", host.log());
        let status = host.status();
        assert!(
            status["reload"]["diagnostics"]
                .to_string()
                .contains(&warning),
            "{status:#}"
        );
        assert_eq!(
            (status["host"].as_str(), status["port"].as_u64()),
            (Some("10.77.0.1"), Some(32767))
        );
        assert_eq!(host.open(1024).greeting(), "a", "{key}");
        assert!(host.is_refused(32000));
        host.reloaded_after(|host| match was {
            Some(was) => host.conf(key, was),
            None => host.without(key),
        });
    }
    assert_eq!(
        host.status()["reload"]["diagnostics"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
}
