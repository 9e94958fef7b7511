//! Signals while snproxy starts, as process 1 of a PID namespace.

use rustix::process::{Pid, Signal, kill_process};
use snproxy_tests::{Host, Net, Pod, eventually, snproxy_binary};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    thread::sleep,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
/// Less than an etcd that does not answer holds up the start.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A start that waits for an etcd that takes connections and never answers.
fn wait_for_etcd(host: &Host) {
    let members = (2379..2384).map(|port| {
        host.pod(port, Pod::silent());
        format!("http://{}", host.port(port))
    });
    let members: Vec<String> = members.collect();
    host.conf("ETCD", &members.join(","))
        .conf("APPSCONF", "apps.json");
    host.replace(
        "apps.json",
        r#"{"Apps":[{"Name":"a","Ports":[5001],"Srv":"/srv/a"}]}"#,
    );
}

#[test]
fn process_1_ends_on_a_signal_during_the_start() {
    let net = Net::one();
    let host = net.host("host");
    wait_for_etcd(host);
    let wrapper = host.folder().join("as-process-1");
    let binary = snproxy_binary();
    let script = format!(
        "#!/bin/sh\nexec unshare --pid --fork --kill-child {} \"$@\"\n",
        binary.display()
    );
    fs::write(&wrapper, script).expect("a script");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("its mode");
    host.binary(&wrapper);
    for signal in [Signal::TERM, Signal::INT] {
        let outer = host.launch();
        let children = format!("/proc/{0}/task/{0}/children", outer.pid());
        let child = || {
            let children = fs::read_to_string(&children).ok()?;
            let child: i32 = children.split_whitespace().next()?.parse().ok()?;
            let runs = fs::read_link(format!("/proc/{child}/exe")).ok()?;
            (runs == binary).then_some(child)
        };
        eventually(SOON, "snproxy runs", || child().is_some());
        sleep(Duration::from_millis(300));
        let child = Pid::from_raw(child().expect("a child")).expect("a process");
        assert!(!outer.log().contains(" ready: "), "it starts still");
        let start = Instant::now();
        kill_process(child, signal).expect("a signal");
        let code = outer.wait(SOON).code();
        assert_eq!(code, Some(0));
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }
}
