//! Names of targets whose answers are partial, turn, or point where no target may be.

use super::fixture::{Act, NXDOMAIN, NameServer, Question, SERVFAIL, numbered, with_resolv_conf};
use snproxy_tests::{Host, Net, Pod, Process, eventually, snproxy_binary};
use std::{
    net::IpAddr,
    process::Command,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::Duration,
};

const SOON: Duration = Duration::from_secs(20);
const FILE: &str = r#"{"Apps":[{"Name":"web","Ports":[5001],"Targets":["web.test:6001"]}]}"#;

/// Starts snproxy with the app of `FILE`.
#[track_caller]
fn start(proxy: &Host, server: &Host) {
    let resolv_conf = format!("nameserver {}\n", server.v4());
    proxy
        .replace("config.json", FILE)
        .conf("APPSCONF", "config.json")
        .binary(&with_resolv_conf(proxy, &resolv_conf))
        .start();
}

#[test]
fn ipv4_is_followed_while_ipv6_fails() {
    for failure in [|| SERVFAIL, || Act::Silence] {
        let net = Net::hosts(["proxy", "one", "two"]);
        let [proxy, one, two] = ["proxy", "one", "two"].map(|name| net.host(name));
        one.pod(6001, Pod::answering("one"));
        two.pod(6001, Pod::answering("two"));
        let only = |ip: IpAddr| {
            move |question: &Question| {
                if question.is_v6 {
                    failure()
                } else {
                    Act::Addresses(vec![ip])
                }
            }
        };
        let server = NameServer::start(two, only(one.v4()));
        start(proxy, two);
        eventually(SOON, "the first address serves", || {
            proxy.is_greeted(5001, "one")
        });
        server.set(only(two.v4()));
        eventually(SOON, "the new address serves", || {
            proxy.is_greeted(5001, "two")
        });
        assert_eq!(proxy.count("/generation"), 2);
    }
}

#[test]
fn family_ipv4_sends_no_question_for_ipv6() {
    let net = Net::hosts(["proxy", "one"]);
    let [proxy, one] = ["proxy", "one"].map(|name| net.host(name));
    one.pod(6001, Pod::answering("one"));
    let ip = one.v4();
    let server = NameServer::start(one, move |_| Act::Addresses(vec![ip]));
    proxy.conf("FAMILY", "ipv4");
    start(proxy, one);
    eventually(SOON, "the name is asked for again", || {
        server.questions().len() > 2
    });
    assert!(server.questions().iter().all(|question| !question.is_v6));
    assert!(proxy.is_greeted(5001, "one"));
}

#[test]
fn ambassador_keeps_connections_of_a_turning_name() {
    let net = Net::hosts(["proxy", "web"]);
    let [proxy, web] = ["proxy", "web"].map(|name| net.host(name));
    for last in 1..=6 {
        let ip = numbered(last);
        web.namespace().ip(&format!("addr add {ip}/32 dev eth0"));
        proxy
            .namespace()
            .ip(&format!("route add {ip}/32 via {}", web.v4()));
    }
    web.pod_at(
        std::net::SocketAddr::new([0, 0, 0, 0].into(), 6001),
        Pod::echo(),
    );
    // Two of six, the next two with each answer for IPv4.
    let turn = AtomicU8::new(0);
    let server = NameServer::start(web, move |question| {
        if question.name != "web.test" {
            return NXDOMAIN;
        }
        let turn = if question.is_v6 {
            0
        } else {
            turn.fetch_add(1, Relaxed) % 3
        };
        Act::Addresses(vec![numbered(turn * 2 + 1), numbered(turn * 2 + 2)])
    });
    let script = with_resolv_conf(proxy, &format!("nameserver {}\n", web.v4()));
    let admin = format!("unix:{}", proxy.folder().join("a.sock").display());
    let mut command = Command::new(script);
    command
        .args(["ambassador", "--src", ":5001", "--dst", "web.test:6001"])
        .args(["--balance", "rr", "--admin", &admin]);
    let process = Process::spawn(proxy.namespace(), "ambassador", &mut command);
    process.wait_for_line(SOON, " ready: ");
    let held: Vec<_> = (0..4).map(|_| proxy.open(5001)).collect();
    let targets = || {
        let mut routes = Command::new(snproxy_binary());
        routes.args(["routes", "--admin", &admin]);
        let output = proxy.namespace().output(&mut routes);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (1..=6)
            .filter(|last| text.contains(&numbered(*last).to_string()))
            .count()
    };
    eventually(SOON, "all addresses are targets", || targets() == 6);
    let asked = server.questions().len();
    eventually(SOON, "the answer turns further", || {
        server.questions().len() > asked + 8
    });
    assert_eq!(targets(), 6);
    for conn in &held {
        conn.send(b"still here\n");
        assert_eq!(conn.line(), "still here");
    }
}

#[test]
fn discovered_addresses_are_bounded() {
    let net = Net::hosts(["proxy", "one"]);
    let [proxy, one] = ["proxy", "one"].map(|name| net.host(name));
    one.pod(6001, Pod::answering("one"));
    let metadata: IpAddr = "169.254.169.254".parse().expect("an address");
    for host in [proxy, one] {
        host.namespace().ip("route add 169.254.0.0/16 dev eth0");
    }
    one.namespace().ip("addr add 169.254.169.254/32 dev eth0");
    let ip = one.v4();
    let server = NameServer::start(one, move |_| Act::Addresses(vec![metadata]));
    start(proxy, one);
    assert!(proxy.is_refused(5001), "no target has an address");
    let found = || proxy.status()["reload"]["diagnostics"].to_string();
    let why = "`web.test` resolves to 169.254.169.254, which is outside TARGETNETS";
    assert!(found().contains(why), "{}", found());

    server.set(move |_| Act::Addresses(vec![metadata, ip]));
    eventually(SOON, "the other address serves", || {
        proxy.is_greeted(5001, "one")
    });
    assert_eq!(
        proxy.log().matches(why).count(),
        2,
        "with and without another address"
    );
    proxy.conf("TARGETNETS", "any");
    proxy.reload();
    eventually(SOON, "both are targets", || found() == "[]");
}
