//! Names of hosts.conf by name servers of which some are of no use.

use super::fixture::{Act, FORMERR, NXDOMAIN, NameServer, Question, SERVFAIL, with_resolv_conf};
use snproxy_tests::{Host, Net, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Starts snproxy with one other host in hosts.conf, `b`, and waits until it resolves.
#[track_caller]
fn resolves(proxy: &Host, resolv_conf: &str) {
    proxy.hosts(&format!("{}\nb:32767\n", proxy.port(32767)));
    proxy.binary(&with_resolv_conf(proxy, resolv_conf)).start();
    eventually(SOON, "the name of the other host resolves", || {
        proxy.action(2000) == "steer"
    });
    let found = proxy.status()["reload"]["diagnostics"].to_string();
    assert_eq!(found, "[]");
}

#[test]
fn silent_first_server_delays_no_name() {
    let net = Net::hosts(["proxy", "silent", "there"]);
    let [proxy, silent, there] = ["proxy", "silent", "there"].map(|name| net.host(name));
    let first = NameServer::start(silent, |_| Act::Silence);
    let ip = there.v4();
    let _second = NameServer::start(there, move |_| Act::Addresses(vec![ip]));
    let conf = format!("nameserver {}\nnameserver {ip}\n", silent.v4());
    resolves(proxy, &conf);
    assert!(!first.questions().is_empty());
}

#[test]
fn failing_suffix_and_edns_are_passed_over() {
    let net = Net::hosts(["proxy", "there"]);
    let [proxy, there] = ["proxy", "there"].map(|name| net.host(name));
    let ip = there.v4();
    let script = move |question: &Question| match question.name.as_str() {
        _ if question.has_edns => FORMERR,
        "b.one.test" => SERVFAIL,
        "b.two.test" => Act::Addresses(vec![ip]),
        _ => NXDOMAIN,
    };
    let server = NameServer::start(there, script);
    resolves(
        proxy,
        &format!("search one.test two.test\nnameserver {ip}\n"),
    );
    let questions = server.questions();
    assert!(questions.iter().any(|question| question.has_edns));
    assert!(questions.iter().all(|question| question.name != "b"));
}

#[test]
fn changed_resolv_conf_is_used_at_once() {
    let net = Net::hosts(["proxy", "there"]);
    let [proxy, there] = ["proxy", "there"].map(|name| net.host(name));
    let ip = there.v4();
    let _server = NameServer::start(there, move |_| Act::Addresses(vec![ip]));
    proxy.hosts(&format!("{}\nb:32767\n", proxy.port(32767)));
    let closed = "nameserver 127.0.0.1\n";
    proxy.binary(&with_resolv_conf(proxy, closed)).start();
    assert_eq!(proxy.action(2000), "pass", "the other host has no address");
    proxy.overwrite("resolv.conf", &format!("nameserver {ip}\n"));
    eventually(SOON, "the name resolves", || proxy.action(2000) == "steer");
}
