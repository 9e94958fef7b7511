//! /etc/hosts and /etc/resolv.conf as texts.

use std::time::Duration;

use crate::net::dns::config::Config;
use crate::net::dns::hosts::find;
use crate::net::dns::resolver::Resolver;
use crate::net::dns::{Answer, Families, IpVersion};

#[test]
fn hosts_file_is_read_as_its_manual_says() {
    let text = "127.0.0.1 localhost\n# 10.0.0.9 old\n10.0.0.1\tA.example. a # note b\n\
                ::ffff:10.0.0.2 a\nx y\nfd00::1 a six\n10.0.0.1 a\n";
    let found = |name: &str, families| match find(text, &[(name, families)]).remove(0) {
        None => "none".to_owned(),
        Some(addrs) => addrs
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    };
    let v4 = Families {
        v4: true,
        v6: false,
    };
    for (name, families, expected) in [
        ("a.example", Families::BOTH, "10.0.0.1"),
        ("A.EXAMPLE.", Families::BOTH, "10.0.0.1"),
        ("a", Families::BOTH, "10.0.0.1 10.0.0.2 fd00::1"),
        ("a", v4, "10.0.0.1 10.0.0.2"),
        ("six", Families::BOTH, "fd00::1"),
        // The C library asks name servers for a family that the file does not have.
        ("six", v4, "none"),
        ("old", Families::BOTH, "none"),
        ("b", Families::BOTH, "none"),
        ("y", Families::BOTH, "none"),
        ("localhost", v4, "127.0.0.1"),
        ("some.localhost", Families::BOTH, "127.0.0.1 ::1"),
    ] {
        assert_eq!(found(name, families), expected, "{name}");
    }
}

#[test]
fn resolv_conf_is_read_as_its_manual_says() {
    let text = "; note\n# note\nnameserver 192.0.2.1\nnonsense\nnameserver 2001:db8::1\n\
                nameserver fe80::1%2\nnameserver 192.0.2.4\ndomain first.test\n\
                search one.test. two.test .\n\
                options ndots:2 timeout:3 attempts:4 rotate unknown use-vc no-aaaa\n";
    let config = Config::parse(text, "host.own.test");
    let servers: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
    assert_eq!(
        servers,
        ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%2]:53"]
    );
    assert_eq!(config.search, ["one.test", "two.test", ""]);
    assert_eq!((config.ndots, config.attempts), (2, 4));
    assert_eq!(config.timeout, Duration::from_secs(3));
    assert!(config.rotate && config.use_tcp && config.no_aaaa);

    let plain = Config::parse("", "host.own.test");
    assert_eq!(plain.servers, ["127.0.0.1:53".parse().unwrap()]);
    assert_eq!(plain.search, ["own.test"]);
    assert_eq!((plain.ndots, plain.attempts), (1, 2));
    let last = Config::parse("search a b\ndomain c\n", "host.own.test");
    assert_eq!(last.search, ["c"]);
    let bounded = Config::parse("options timeout:0 attempts:99 ndots:99x\n", "host");
    assert_eq!((bounded.ndots, bounded.attempts), (15, 5));
    assert_eq!(bounded.timeout, Duration::from_secs(1));
    assert!(bounded.search.is_empty());
}

#[test]
fn search_list_is_walked_by_ndots() {
    let text = "search one.test two.test\noptions ndots:2\n";
    let resolver = Resolver::with(Config::parse(text, "host"));
    for (name, expected) in [
        ("a.b", &["a.b.one.test", "a.b.two.test", "a.b"][..]),
        ("a.b.c", &["a.b.c", "a.b.c.one.test", "a.b.c.two.test"]),
        ("a.", &["a."]),
    ] {
        assert_eq!(resolver.candidates(name), expected);
    }
    let root = Resolver::with(Config::parse("search one.test . two.test\n", "host"));
    assert_eq!(root.candidates("a"), ["a.one.test", "a", "a.two.test"]);
}

#[tokio::test]
async fn no_aaaa_sends_no_question_for_ipv6() {
    let config = Config::parse("nameserver 127.0.0.1\noptions no-aaaa\n", "host");
    let resolver = Resolver::with(config);
    let only = Families {
        v4: false,
        v6: true,
    };
    let mut noted = Vec::new();
    let mut note = |version, answer| noted.push((version, answer));
    let look_up = resolver.look_up("a.example", only, Duration::ZERO, &mut note);
    look_up.await;
    assert!(matches!(noted[..], [(IpVersion::V6, Answer::Empty)]));
}
