//! Replies of one server.

use domain::base::iana::Rcode;

use super::{BASE, Case, V4, V6, both, nothing, servfail, silent};
use crate::net::dns::tests::scripted::{Act, Asked};

pub(super) const CASES: &[Case] = &[
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
];
