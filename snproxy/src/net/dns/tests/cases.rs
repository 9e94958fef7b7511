//! Answers as name servers give them, and what the resolver makes of each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use domain::base::iana::Rcode;
use futures_util::future::join_all;

use super::scripted::{Act, Asked, Script, counts, start};
use crate::net::dns::config::Config;
use crate::net::dns::resolver::Resolver;
use crate::net::dns::{Answer, Families, IpVersion};

/// One look-up of `a.test`, or of another name.
struct Case {
    about: &'static str,
    servers: &'static [Script],
    name: &'static str,
    conf: &'static str,
    families: Families,
    /// IPv4, then IPv6: addresses and their TTL, `empty`, `none` (no such name), `failed`, or `-` (not asked).
    expected: &'static str,
}

const BASE: Case = Case {
    about: "",
    servers: &[],
    name: "a.test",
    conf: "options timeout:2 attempts:1",
    families: Families::BOTH,
    expected: "",
};

const V4: Families = Families {
    v4: true,
    v6: false,
};
const V6: Families = Families {
    v4: false,
    v6: true,
};

fn both(asked: &Asked) -> Vec<Act> {
    asked.ips(&["10.0.0.1", "fd00::1"])
}

fn silent(_: &Asked) -> Vec<Act> {
    vec![Act::Silence]
}

fn servfail(asked: &Asked) -> Vec<Act> {
    asked.rcode(Rcode::SERVFAIL)
}

fn nothing(asked: &Asked) -> Vec<Act> {
    asked.rcode(Rcode::NXDOMAIN)
}

/// Those for names under `one.test` by the first, all others by the second.
fn under_one(asked: &Asked, one: Script, others: Script) -> Vec<Act> {
    if asked.name.ends_with("one.test") {
        one(asked)
    } else {
        others(asked)
    }
}

const CASES: &[Case] = &[
    Case {
        about: "both families answer",
        servers: &[both],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "only IPv4 is asked for",
        servers: &[both],
        families: V4,
        expected: "10.0.0.1/60 -",
        ..BASE
    },
    Case {
        about: "only IPv6 is asked for",
        servers: &[both],
        families: V6,
        expected: "- fd00::1/60",
        ..BASE
    },
    Case {
        about: "no-aaaa leaves IPv6 out",
        servers: &[both],
        conf: "options no-aaaa",
        expected: "10.0.0.1/60 empty",
        ..BASE
    },
    Case {
        about: "AAAA fails",
        servers: &[|asked| {
            if asked.is_v6 {
                servfail(asked)
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 failed",
        ..BASE
    },
    Case {
        about: "AAAA has no answer",
        servers: &[|asked| {
            if asked.is_v6 {
                silent(asked)
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 failed",
        ..BASE
    },
    Case {
        about: "A has no answer",
        servers: &[|asked| {
            if asked.is_v6 {
                both(asked)
            } else {
                silent(asked)
            }
        }],
        expected: "failed fd00::1/60",
        ..BASE
    },
    Case {
        about: "no address of IPv6",
        servers: &[|asked| asked.ips(&["10.0.0.1"])],
        expected: "10.0.0.1/60 empty",
        ..BASE
    },
    Case {
        about: "NXDOMAIN for AAAA although A exists",
        servers: &[|asked| {
            if asked.is_v6 {
                nothing(asked)
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 empty",
        ..BASE
    },
    Case {
        about: "no address at all",
        servers: &[Asked::empty],
        expected: "none none",
        ..BASE
    },
    Case {
        about: "no such name",
        servers: &[nothing],
        expected: "none none",
        ..BASE
    },
    Case {
        about: "several addresses, one of them twice",
        servers: &[|asked| asked.ips(&["10.0.0.2", "10.0.0.1", "10.0.0.2"])],
        families: V4,
        expected: "10.0.0.2+10.0.0.1/60 -",
        ..BASE
    },
    Case {
        about: "a TTL of 0",
        servers: &[|asked| asked.reply().ips_for(0, "a.test", &["10.0.0.1"]).acts()],
        families: V4,
        expected: "10.0.0.1/0 -",
        ..BASE
    },
    Case {
        about: "the shortest TTL of several",
        servers: &[|asked| {
            let reply = asked.reply().ips("a.test", &["10.0.0.1"]);
            reply.ips_for(7, "a.test", &["10.0.0.2"]).acts()
        }],
        families: V4,
        expected: "10.0.0.1+10.0.0.2/7 -",
        ..BASE
    },
    Case {
        about: "an alias and its addresses",
        servers: &[|asked| {
            let reply = asked.reply().alias(9, "a.test", "b.test");
            reply.ips("b.test", &["10.0.0.1", "fd00::1"]).acts()
        }],
        expected: "10.0.0.1/9 fd00::1/9",
        ..BASE
    },
    Case {
        about: "a chain of aliases in any order",
        servers: &[|asked| {
            let reply = asked.reply().ips("d.test", &["10.0.0.1"]);
            let reply = reply.alias(60, "c.test", "D.test");
            reply
                .alias(60, "a.test", "b.test")
                .alias(60, "b.test", "c.test")
                .acts()
        }],
        families: V4,
        expected: "10.0.0.1/60 -",
        ..BASE
    },
    Case {
        about: "an alias whose name is not in the answer",
        servers: &[|asked| match asked.name.as_str() {
            "a.test" => asked.reply().alias(5, "a.test", "b.test").acts(),
            _ => asked.ips(&["10.0.0.1", "fd00::1"]),
        }],
        expected: "10.0.0.1/5 fd00::1/5",
        ..BASE
    },
    Case {
        about: "an alias to a name without addresses of IPv6",
        servers: &[|asked| match asked.name.as_str() {
            "a.test" => asked.reply().alias(60, "a.test", "b.test").acts(),
            _ => asked.ips(&["10.0.0.1"]),
        }],
        expected: "10.0.0.1/60 empty",
        ..BASE
    },
    Case {
        about: "an alias to a name that does not exist",
        servers: &[|asked| {
            let reply = asked.reply().alias(60, "a.test", "b.test");
            reply.rcode(Rcode::NXDOMAIN).acts()
        }],
        expected: "none none",
        ..BASE
    },
    Case {
        about: "aliases in a circle",
        servers: &[|asked| {
            let reply = asked.reply().alias(60, "a.test", "b.test");
            reply.alias(60, "b.test", "a.test").acts()
        }],
        expected: "none none",
        ..BASE
    },
    Case {
        about: "aliases in a circle, one per answer",
        servers: &[|asked| match asked.name.as_str() {
            "a.test" => asked.reply().alias(60, "a.test", "b.test").acts(),
            _ => asked.reply().alias(60, "b.test", "a.test").acts(),
        }],
        expected: "none none",
        ..BASE
    },
    Case {
        about: "records of other names",
        servers: &[|asked| {
            let reply = asked.reply().ips("evil.test", &["10.6.6.6"]);
            reply.ips("a.test", &["10.0.0.1"]).acts()
        }],
        families: V4,
        expected: "10.0.0.1/60 -",
        ..BASE
    },
    Case {
        about: "records of the other family",
        servers: &[|asked| asked.reply().any_ip("a.test", "10.0.0.1").acts()],
        families: V6,
        expected: "- none",
        ..BASE
    },
    Case {
        about: "a wrong identifier before the right one",
        servers: &[|asked| {
            let forged = asked.reply().ips("a.test", &["10.6.6.6"]).other_id();
            let mut acts = forged.acts();
            acts.push(Act::Wait(50));
            acts.extend(both(asked));
            acts
        }],
        families: V4,
        expected: "10.0.0.1/60 -",
        ..BASE
    },
    Case {
        about: "an answer to another question before the right one",
        servers: &[|asked| {
            let other = asked.reply().about(Some("b.test"));
            let mut acts = other.ips("b.test", &["10.6.6.6"]).acts();
            acts.push(Act::Send(b"\0\x01no message".to_vec()));
            acts.extend(both(asked));
            acts
        }],
        families: V4,
        expected: "10.0.0.1/60 -",
        ..BASE
    },
    Case {
        about: "a malformed answer, and another server",
        servers: &[
            |asked| {
                let mut bytes = asked.reply().ips("a.test", &["10.0.0.1"]).bytes();
                bytes.truncate(bytes.len() - 2);
                vec![Act::Send(bytes)]
            },
            both,
        ],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "TC, and the whole by TCP",
        servers: &[|asked| {
            if asked.is_tcp {
                both(asked)
            } else {
                asked.reply().ips("a.test", &["10.6.6.6"]).cut().acts()
            }
        }],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "TC and no TCP, and another server",
        servers: &[
            |asked| {
                if asked.is_tcp {
                    silent(asked)
                } else {
                    asked.reply().cut().acts()
                }
            },
            both,
        ],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "use-vc asks by TCP alone",
        servers: &[|asked| {
            if asked.is_tcp {
                both(asked)
            } else {
                servfail(asked)
            }
        }],
        conf: "options use-vc",
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "FORMERR to EDNS",
        servers: &[|asked| {
            if asked.has_edns {
                asked.rcode(Rcode::FORMERR)
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "FORMERR to EDNS without the question",
        servers: &[|asked| {
            if asked.has_edns {
                asked.reply().about(None).rcode(Rcode::FORMERR).acts()
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "NOTIMP to EDNS",
        servers: &[|asked| {
            if asked.has_edns {
                asked.rcode(Rcode::NOTIMP)
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "SERVFAIL to EDNS",
        servers: &[|asked| {
            if asked.has_edns {
                servfail(asked)
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "silence to EDNS",
        servers: &[|asked| {
            if asked.has_edns {
                silent(asked)
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "a lost question",
        servers: &[|asked| {
            if asked.before == 0 {
                silent(asked)
            } else {
                both(asked)
            }
        }],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "the first of two servers is silent",
        servers: &[silent, both],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "the second of two servers is silent",
        servers: &[both, silent],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "two of three servers are silent",
        servers: &[silent, silent, both],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "the first server fails",
        servers: &[servfail, both],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "the first server refuses, the second one refers to others",
        servers: &[
            |asked| asked.rcode(Rcode::REFUSED),
            |asked| asked.reply().not_recursive().acts(),
            both,
        ],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "no such name is an answer, and no other server is asked",
        servers: &[nothing, both],
        expected: "none none",
        ..BASE
    },
    Case {
        about: "a late answer of the first server, while the others are silent",
        servers: &[
            |asked| {
                let mut acts = vec![Act::Wait(1700)];
                acts.extend(both(asked));
                acts
            },
            silent,
        ],
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "all servers fail",
        servers: &[servfail, servfail],
        expected: "failed failed",
        ..BASE
    },
    Case {
        about: "all servers are silent",
        servers: &[silent, silent],
        expected: "failed failed",
        ..BASE
    },
    Case {
        about: "a name without dots takes the suffix first",
        servers: &[|asked| match asked.name.as_str() {
            "a.one.test" => asked.ips(&["10.0.0.1"]),
            _ => asked.ips(&["10.6.6.6"]),
        }],
        name: "a",
        conf: "search one.test two.test",
        expected: "10.0.0.1/60 empty",
        ..BASE
    },
    Case {
        about: "the second suffix",
        servers: &[|asked| under_one(asked, nothing, both)],
        name: "a",
        conf: "search one.test two.test",
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "the second suffix after an empty answer",
        servers: &[|asked| under_one(asked, Asked::empty, both)],
        name: "a",
        conf: "search one.test two.test",
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "the second suffix after SERVFAIL",
        servers: &[|asked| under_one(asked, servfail, both)],
        name: "a",
        conf: "search one.test two.test",
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "no suffix: the name as it is",
        servers: &[|asked| {
            if asked.name == "a" {
                both(asked)
            } else {
                nothing(asked)
            }
        }],
        name: "a",
        conf: "search one.test two.test",
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "a suffix that fails hides that there is no such name",
        servers: &[|asked| under_one(asked, servfail, nothing)],
        name: "a",
        conf: "search one.test two.test",
        expected: "failed failed",
        ..BASE
    },
    Case {
        about: "silence for the first suffix, then the name as it is",
        servers: &[|asked| match asked.name.as_str() {
            "a" => both(asked),
            "a.one.test" => silent(asked),
            _ => asked.ips(&["10.6.6.6"]),
        }],
        name: "a",
        conf: "search one.test two.test\noptions timeout:1 attempts:1",
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "a name with as many dots as ndots is tried as it is first",
        servers: &[|asked| match asked.name.as_str() {
            "a.b.c" => asked.ips(&["10.0.0.1"]),
            _ => asked.ips(&["10.6.6.6"]),
        }],
        name: "a.b.c",
        conf: "search one.test\noptions ndots:2",
        expected: "10.0.0.1/60 empty",
        ..BASE
    },
    Case {
        about: "a name with fewer dots than ndots takes the suffix first",
        servers: &[|asked| under_one(asked, both, |asked| asked.ips(&["10.6.6.6"]))],
        name: "a.b.c",
        conf: "search one.test\noptions ndots:5",
        expected: "10.0.0.1/60 fd00::1/60",
        ..BASE
    },
    Case {
        about: "a dot at the end: no suffix",
        servers: &[|asked| under_one(asked, both, nothing)],
        name: "a.",
        conf: "search one.test",
        expected: "none none",
        ..BASE
    },
    Case {
        about: "the families have one name: that of the first address",
        servers: &[|asked| match (asked.name.as_str(), asked.is_v6) {
            ("a.one.test", true) => asked.ips(&["fd00::1"]),
            ("a.one.test", false) => asked.empty(),
            _ => asked.ips(&["10.6.6.6"]),
        }],
        name: "a",
        conf: "search one.test two.test",
        expected: "empty fd00::1/60",
        ..BASE
    },
];

/// What a look-up found, in the form of [`Case::expected`].
async fn look_up(resolver: &Resolver, name: &str, families: Families) -> String {
    let mut found = ["-".to_owned(), "-".to_owned()];
    let mut note = |version, answer| {
        let said = match answer {
            Answer::Addresses { addrs, ttl } => {
                let addrs: Vec<String> = addrs.iter().map(IpAddr::to_string).collect();
                format!("{}/{}", addrs.join("+"), ttl.as_secs())
            }
            Answer::Empty => "empty".to_owned(),
            Answer::Failed(error) if error.kind() == std::io::ErrorKind::NotFound => {
                "none".to_owned()
            }
            Answer::Failed(_) => "failed".to_owned(),
        };
        let slot = &mut found[usize::from(version == IpVersion::V6)];
        assert_eq!(*slot, "-", "one answer for each family");
        *slot = said;
    };
    let grace = Duration::from_secs(1);
    resolver.look_up(name, families, grace, &mut note).await;
    found.join(" ")
}

fn resolver(conf: &str, servers: Vec<SocketAddr>) -> Resolver {
    let mut config = Config::parse(conf, "host");
    config.servers = servers;
    Resolver::with(config)
}

async fn resolver_of(conf: &str, scripts: &[Script]) -> Resolver {
    let servers = join_all(scripts.iter().map(|script| start(*script))).await;
    resolver(conf, servers.into_iter().map(|(addr, _)| addr).collect())
}

#[tokio::test]
async fn answers_become_addresses() {
    let run = async |case: &Case| {
        let resolver = resolver_of(case.conf, case.servers).await;
        let found = look_up(&resolver, case.name, case.families).await;
        (found != case.expected).then(|| format!("{}: {found}", case.about))
    };
    let wrong: Vec<String> = join_all(CASES.iter().map(run))
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(wrong, [""; 0]);
    assert!(CASES.len() >= 40);
}

#[tokio::test]
async fn server_with_a_closed_port_is_passed_over() {
    let closed = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gone = closed.local_addr().unwrap();
    drop(closed);
    let (there, _) = start(both).await;
    for servers in [[gone, there], [there, gone]] {
        let resolver = resolver("", servers.to_vec());
        let found = look_up(&resolver, "a.test", Families::BOTH).await;
        assert_eq!(found, "10.0.0.1/60 fd00::1/60");
    }
    let resolver = resolver("", vec![gone, gone]);
    assert_eq!(
        look_up(&resolver, "a.test", Families::BOTH).await,
        "failed failed"
    );
}

#[tokio::test]
async fn silent_server_delays_the_first_names_only() {
    let (silent, log) = start(silent).await;
    let (there, _) = start(both).await;
    let resolver = resolver("", vec![silent, there]);
    look_up(&resolver, "a.test", Families::BOTH).await;
    let names: Vec<String> = (0..100).map(|number| format!("n{number}.test")).collect();
    let found = join_all(
        names
            .iter()
            .map(|name| look_up(&resolver, name, Families::BOTH)),
    )
    .await;
    assert!(found.iter().all(|found| found == "10.0.0.1/60 fd00::1/60"));
    assert_eq!(
        counts(&log).len(),
        2,
        "the two questions for the first name"
    );
}

#[tokio::test]
async fn server_without_edns_is_asked_without_it_from_then_on() {
    let (server, log) = start(|asked| {
        if asked.has_edns {
            asked.rcode(Rcode::FORMERR)
        } else {
            both(asked)
        }
    })
    .await;
    let resolver = resolver("", vec![server]);
    for name in ["a.test", "b.test"] {
        look_up(&resolver, name, V4).await;
    }
    let counts = counts(&log);
    assert_eq!(counts[&("a.test".to_owned(), false)], 2);
    assert_eq!(counts[&("b.test".to_owned(), false)], 1);
}

#[tokio::test]
async fn rotate_asks_each_server_first_in_turn() {
    let (one, first) = start(both).await;
    let (two, second) = start(both).await;
    let resolver = resolver("options rotate", vec![one, two]);
    for name in ["a.test", "b.test", "c.test", "d.test"] {
        look_up(&resolver, name, V4).await;
    }
    assert_eq!((counts(&first).len(), counts(&second).len()), (2, 2));
}
