//! PEERTLS: what proxies say to each other is encrypted, and each one shows who it is.

mod refusal;
mod rolling;

use snproxy_tests::{Ca, Figure, Host, Net, PROXY_PORT, Pod, Process, eventually, print_figure};
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(15);
/// The cluster port of these scenarios, and where its pods are.
const PORT: u16 = 1024;
const POD: u16 = 30000;
/// Calls for a figure.
const CALLS: u32 = 200;

/// The folder of a host's certificates.
fn folder(host: &Host) -> PathBuf {
    host.folder().join("tls")
}

/// Gives a host a certificate for its address, and PEERTLS with these options.
fn secure(host: &Host, ca: &Ca, options: &str) {
    ca.issue(&[&host.v4().to_string()])
        .write_folder(&folder(host));
    set(host, options);
}

/// Changes what a host makes of its certificates.
fn set(host: &Host, options: &str) {
    host.conf("PEERTLS", format!("tls {options}").trim());
}

/// A pod that greets with the name of its host.
fn serve(host: &Host) -> Pod {
    let pod = host.pod(POD, Pod::answering(host.name()));
    host.mappings(&format!("{PORT}:{POD}:10000:false\n"));
    pod
}

/// What passes on its way to a host's proxy is seen here, and written down as text.
fn tapped(at: &Host, to: &Host) -> Process {
    let mut socat = Command::new("socat");
    socat
        .arg("-v")
        .arg(format!("TCP-LISTEN:{PROXY_PORT},fork,reuseaddr"))
        .arg(format!("TCP:{}:{PROXY_PORT}", to.v4()));
    at.namespace().server("socat", &mut socat, PROXY_PORT)
}

#[test]
fn nobody_on_the_way_reads_what_hosts_say() {
    let net = Net::hosts(["a", "tap", "b"]);
    let (a, tap, b) = (net.host("a"), net.host("tap"), net.host("b"));
    let socat = tapped(tap, b);
    b.pod(POD, Pod::echo());
    b.mappings(&format!("{PORT}:{POD}:10000:false\n"))
        .conf("PEERS", "any");
    // b itself is not in it: all goes by way of the tap.
    a.hosts(&format!(
        "{}:{PROXY_PORT}\n{}:{PROXY_PORT}\n",
        a.v4(),
        tap.v4()
    ));
    let said = |what: &str| {
        let conn = a.open(PORT);
        assert_eq!(conn.send(format!("{what}\n")).line(), what);
    };
    for host in [a, b] {
        host.start();
    }
    eventually(SOON, "the host is up", || a.count("/hosts/up") == 1);
    said("in-the-open");
    eventually(SOON, "the tap has it", || {
        let log = socat.log();
        log.contains("in-the-open") && log.contains("SENDPROXY=false") && log.contains("PROXY TCP4")
    });

    let ca = Ca::new("proxies");
    for host in [a, b] {
        host.reloaded_after(|host| secure(host, &ca, ""));
    }
    eventually(SOON, "the host is up", || a.count("/hosts/up") == 1);
    said("from now on");
    let before = socat.log().len();
    for number in 0..20 {
        said(&format!("secret-{number}"));
    }
    let log = socat.log();
    let log = &log[before..];
    assert!(log.len() > 20 * 100, "it went by way of the tap: {log}");
    for word in ["secret-", "SENDPROXY", "PROXY TCP4", "PODS="] {
        assert!(!log.contains(word), "{word} in {log}");
    }
}

#[test]
fn spare_connections_serve_in_tls_as_well() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    serve(b);
    let took = |what: &str| {
        eventually(SOON, "b is found", || a.count("/hosts/up") == 1);
        for _ in 0..20 {
            a.open(PORT).greeting();
        }
        let start = Instant::now();
        for _ in 0..CALLS {
            assert_eq!(a.open(PORT).greeting(), "b");
        }
        let each = start.elapsed() / CALLS;
        print_figure(
            &format!("a call of another host, {what}"),
            Figure::Time(each),
            Figure::Time(SOON),
        );
    };
    for host in [a, b] {
        host.start();
    }
    took("plain");
    let ca = Ca::new("proxies");
    for host in [a, b] {
        host.reloaded_after(|host| secure(host, &ca, ""));
    }
    let ended = || (b.ends("request"), b.ends("tls_client"));
    // Those that waited when b did not know TLS yet are called anew.
    for _ in 0..20 {
        assert_eq!(a.open(PORT).greeting(), "b");
    }
    let before = ended();
    took("in TLS");
    let waiting = || b.count("/connections/waiting");
    eventually(SOON, "a spare connection waits", || {
        a.open(PORT).greeting();
        waiting() >= 2
    });
    assert_eq!(ended(), before, "no call had to be repeated");
}

#[test]
fn certificates_of_proxies_are_replaced_while_they_talk() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    serve(b);
    let ca = Ca::new("proxies");
    for host in [a, b] {
        secure(host, &ca, "");
        host.start();
    }
    eventually(SOON, "b is found", || a.count("/hosts/up") == 1);
    let old = a.open(PORT);
    assert_eq!(old.greeting(), "b");
    for round in 0..3 {
        for host in [a, b] {
            host.reloaded_after(|host| secure(host, &ca, ""));
            assert_eq!(a.open(PORT).greeting(), "b", "round {round}");
        }
    }
    // A folder with a mistake in it changes nothing.
    std::fs::write(folder(a).join("key.pem"), "no key").expect("key.pem");
    a.snproxy().wait_for_line(SOON, "key.pem");
    assert_eq!(a.open(PORT).greeting(), "b");
    assert!(old.stays_quiet(Duration::from_millis(100)));
}
