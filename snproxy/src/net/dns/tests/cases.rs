//! Answers as name servers give them, and what the resolver makes of each.

mod order;
mod replies;

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
    let cases = || replies::CASES.iter().chain(order::CASES);
    let run = async |case: &Case| {
        let resolver = resolver_of(case.conf, case.servers).await;
        let found = look_up(&resolver, case.name, case.families).await;
        (found != case.expected).then(|| format!("{}: {found}", case.about))
    };
    let wrong: Vec<String> = join_all(cases().map(run))
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(wrong, [""; 0]);
    assert!(cases().count() >= 40);
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
