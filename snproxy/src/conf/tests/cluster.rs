//! Who is this host, who else there is, and who may use PORT.

use super::*;

/// A configuration of these hosts, whatever is found about it.
#[track_caller]
fn among(proxy: &str, hosts: &str) -> Conf {
    let parsed = parse(&sources(proxy, "", hosts), &world());
    assert!(!parsed.has_errors(), "{:?}", shorts(&parsed.diagnostics));
    parsed.value.unwrap()
}

fn others(conf: &Conf) -> Vec<String> {
    conf.other_hosts()
        .map(|host| format!("{} {}", host.name, host.addr().unwrap()))
        .collect()
}

fn allows(conf: &Conf, ip: &str) -> bool {
    conf.allows_peer(ip.parse().unwrap())
}

#[test]
fn a_name_keeps_all_addresses_ipv4_first() {
    let conf = among("HOST 10.0.0.1", "b.example:32767\n");
    let addrs: Vec<String> = conf.hosts[0].addrs.iter().map(IpAddr::to_string).collect();
    assert_eq!(addrs, ["10.0.0.2", "10.0.0.3", "2001:db8::2"]);
    assert_eq!(conf.hosts[0].ip().unwrap().to_string(), "10.0.0.2");
    assert!(conf.hosts[0].is_name());
}

#[test]
fn addresses_of_a_name_are_bounded() {
    let many = |_: &str| {
        let all = (0..=u8::MAX).map(|last| IpAddr::from([10, 0, 1, last]));
        Ok(all.collect())
    };
    let world = World {
        resolve_all: &|names, _| names.iter().copied().map(many).collect(),
        ..world()
    };
    let sources = sources("HOST 10.0.0.1", "", "many.example:32767\n");
    let conf = parse(&sources, &world).value.unwrap();
    assert_eq!(conf.hosts[0].addrs.len(), value::MAX_ADDRS);
}

#[test]
fn hosts_of_the_files_are_peers_at_all_of_their_addresses() {
    let hosts = "a.example:32767\nb.example:32767\n[2001:db8::9]:1\n";
    let conf = among("", hosts);
    for ip in [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "2001:db8::2",
        "::ffff:10.0.0.2",
        "2001:db8::9",
        "127.0.0.1",
        "127.8.9.1",
        "::1",
        "::ffff:127.0.0.1",
    ] {
        assert!(allows(&conf, ip), "{ip}");
    }
    for ip in ["10.0.0.4", "2001:db8::3", "::", "0.0.0.0"] {
        assert!(!allows(&conf, ip), "{ip}");
    }
}

#[test]
fn peers_are_whom_the_key_names() {
    let hosts = "10.0.0.1:32767\n10.0.0.2:32767\n";
    let networks = among("PEERS 192.0.2.0/24 2001:db8::7", hosts);
    assert!(allows(&networks, "192.0.2.77") && allows(&networks, "::ffff:192.0.2.77"));
    assert!(allows(&networks, "2001:db8::7") && allows(&networks, "::1"));
    // Without `hosts` those of hosts.conf are none.
    assert!(!allows(&networks, "10.0.0.2") && !allows(&networks, "2001:db8::8"));

    let both = among("PEERS hosts,192.0.2.0/24", hosts);
    assert!(allows(&both, "10.0.0.2") && allows(&both, "192.0.2.1"));
    assert!(!allows(&both, "10.0.0.3"));

    assert!(allows(&among("PEERS any", hosts), "203.0.113.1"));
}

#[test]
fn this_host_is_found_wherever_it_stands_and_is_no_other() {
    let shared = "10.0.0.2:32767\na.example:32767\n10.0.0.3:32767\n";
    let conf = among("HOST 0.0.0.0", shared);
    assert_eq!(conf.this_host, Some(1));
    assert_eq!(
        others(&conf),
        ["10.0.0.2 10.0.0.2:32767", "10.0.0.3 10.0.0.3:32767"]
    );
    assert_eq!(conf.dial_from.unwrap().to_string(), "10.0.0.1");
}

#[test]
fn of_several_local_lines_the_served_one_is_this_host() {
    let hosts = "10.0.0.2:32767\n127.0.0.1:32767\n10.0.0.1:32767\n10.0.0.1:31000\n";
    let served = among("HOST 10.0.0.1", hosts);
    assert_eq!(served.this_host, Some(2));
    // Nothing of ours is at 127.0.0.1, and another proxy may be at 31000.
    assert_eq!(
        others(&served),
        [
            "10.0.0.2 10.0.0.2:32767",
            "127.0.0.1 127.0.0.1:32767",
            "10.0.0.1 10.0.0.1:31000"
        ]
    );
    // A wildcard serves them all: the first of them.
    let all = among("HOST 0.0.0.0", hosts);
    assert_eq!(all.this_host, Some(1));
    assert_eq!(
        others(&all),
        ["10.0.0.2 10.0.0.2:32767", "10.0.0.1 10.0.0.1:31000"]
    );
    assert_eq!(all.dial_from, None, "from loopback no host is reached");
}

#[test]
fn first_line_is_this_host_only_if_nothing_else_tells() {
    let hosts = "10.0.0.2:32767\n10.0.0.3:32767\n";
    let both = ["10.0.0.2 10.0.0.2:32767", "10.0.0.3 10.0.0.3:32767"];
    for host in ["HOST 10.0.0.1", "HOST 0.0.0.0"] {
        let conf = among(host, hosts);
        assert_eq!((conf.this_host, conf.dial_from), (None, None), "{host}");
        assert_eq!(others(&conf), both, "{host}");
        let found = findings(host, "", hosts);
        let expected = "hosts.conf:1:1: warning: no line has an address of this host and port 32767: \
                        all 2 lines are peers";
        assert_eq!(found, [expected], "{host}");
    }
    let derived = among("", hosts);
    assert_eq!(derived.this_host, Some(0));
    assert_eq!(others(&derived), both[1..]);
    // A later line with a local address and PORT goes before a local line 1 of another port.
    let conf = among("", "10.0.0.1:31000\n10.0.0.2:32767\n10.0.0.1:32767\n");
    assert_eq!(conf.this_host, Some(2));
}

#[test]
fn others_are_each_address_once_and_none_without_one() {
    let hosts = "a.example:32767\nb.example:32767\n10.0.0.2:32767\n10.0.0.2:1\n\
                 missing.example:32767\n0.0.0.0:32767\n[::]:1\n";
    let conf = among("", hosts);
    assert_eq!(
        others(&conf),
        ["b.example 10.0.0.2:32767", "10.0.0.2 10.0.0.2:1"]
    );
}

#[test]
fn a_port_that_waits_for_a_restart_makes_nobody_another_host() {
    let mut conf = among(
        "PORT 40000",
        "10.0.0.1:40000\n10.0.0.2:40000\n10.0.0.1:32767\n",
    );
    assert_eq!(
        others(&conf),
        ["10.0.0.2 10.0.0.2:40000", "10.0.0.1 10.0.0.1:32767"]
    );
    conf.port = 32767;
    conf.place_hosts();
    assert_eq!(conf.this_host, Some(2));
    assert_eq!(
        others(&conf),
        ["10.0.0.2 10.0.0.2:40000"],
        "40000 is one of its cluster ports until then"
    );
}

#[test]
fn a_cluster_port_of_this_host_is_no_other_host() {
    let hosts = "10.0.0.1:32767\n10.0.0.1:8080\n10.0.0.2:8080\na.example:9000\n127.0.0.1:9000\n";
    for (host, expected) in [
        // Nothing of ours is at 127.0.0.1.
        (
            "10.0.0.1",
            &["10.0.0.2 10.0.0.2:8080", "127.0.0.1 127.0.0.1:9000"][..],
        ),
        ("0.0.0.0", &["10.0.0.2 10.0.0.2:8080"][..]),
    ] {
        let conf = among(&format!("HOST {host}"), hosts);
        assert_eq!(others(&conf), expected, "{host}");
    }
    let parsed = parse(&sources("HOST 10.0.0.1", "", hosts), &world());
    let said = shorts(&parsed.diagnostics).concat();
    assert!(
        said.contains("port 8080 of this host is one of its cluster ports"),
        "{said}"
    );
}

#[test]
fn a_host_alone_has_no_others() {
    for hosts in ["10.0.0.1:32767\n", ""] {
        let conf = among("HOST 10.0.0.1", hosts);
        assert_eq!(others(&conf), [""; 0], "{hosts:?}");
        assert!(allows(&conf, "127.0.0.1"));
    }
}
