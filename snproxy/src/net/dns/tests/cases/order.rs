//! Which server is asked, and for which name.

use domain::base::iana::Rcode;

use super::{BASE, Case, both, nothing, servfail, silent, under_one};
use crate::net::dns::tests::scripted::{Act, Asked};

pub(super) const CASES: &[Case] = &[
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
