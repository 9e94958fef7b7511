//! Addresses of names, and how long they are good for: /etc/hosts, then the servers of /etc/resolv.conf.
//!
//! `getaddrinfo` does not tell for how long.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

use domain::base::iana::{Class, Rcode};
use domain::base::{Message, Name, Rtype};
use domain::rdata::{A, Aaaa};
use domain::resolv::StubResolver;
use domain::resolv::stub::conf::ResolvConf;
use futures_util::future::join;
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};

/// Longest wait for the answer of one server, whatever resolv.conf says: the next one may be well.
const SERVER_LIMIT: Duration = Duration::from_millis(1500);
/// Longest wait for the addresses of one name.
const NAME_LIMIT: Duration = Duration::from_secs(5);
/// Names that are asked for at once.
const AT_ONCE: usize = 32;
/// Servers that are asked. Source: `MAXNS`, resolv.h.
const MAX_SERVERS: usize = 3;
/// For how long what /etc/hosts says is good: the file says nothing of it.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// What a name stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// At least one.
    pub addrs: Vec<IpAddr>,
    /// For how long they are good, as the servers say it.
    pub ttl: Duration,
    /// False: for one of the two families no server had an answer.
    pub is_whole: bool,
}

/// Looks up names, all of them within `limit`; what is found comes in their order.
///
/// Errors: `NotFound` where the name has no address; others where nobody could tell.
pub async fn look_up(names: &[&str], limit: Duration) -> Vec<io::Result<Found>> {
    let hosts = hosts(&fs::read_to_string("/etc/hosts").unwrap_or_default());
    let resolver = Resolver::new(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    all(&hosts, &resolver, names, limit).await
}

async fn all(
    hosts: &HashMap<String, Vec<IpAddr>>,
    resolver: &Resolver,
    names: &[&str],
    limit: Duration,
) -> Vec<io::Result<Found>> {
    let deadline = Instant::now() + limit;
    // Made beforehand: with a closure in it the stream could not be part of a task.
    let mut asked = Vec::with_capacity(names.len());
    for name in names {
        asked.push(one_by(deadline, hosts, resolver, name));
    }
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

async fn one_by(
    deadline: Instant,
    hosts: &HashMap<String, Vec<IpAddr>>,
    resolver: &Resolver,
    name: &str,
) -> io::Result<Found> {
    // Those whose turn comes too late may still stand in /etc/hosts.
    timeout_at(deadline, one(hosts, resolver, name))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn one(
    hosts: &HashMap<String, Vec<IpAddr>>,
    resolver: &Resolver,
    name: &str,
) -> io::Result<Found> {
    let plain = name.trim_end_matches('.').to_ascii_lowercase();
    let known = hosts.get(&plain).cloned().or_else(|| loopback(&plain));
    if let Some(addrs) = known {
        return Ok(Found {
            addrs,
            ttl: HOSTS_TTL,
            is_whole: true,
        });
    }
    timeout(NAME_LIMIT, resolver.search(name))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Names that never leave the host. Source: RFC 6761 section 6.3.
fn loopback(name: &str) -> Option<Vec<IpAddr>> {
    let is_local = name == "localhost" || name.ends_with(".localhost");
    is_local.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// Names in /etc/hosts, in lower case, and all of their addresses. Source: hosts(5).
fn hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_whitespace();
        let Some(ip) = words.next().and_then(|ip| ip.parse::<IpAddr>().ok()) else {
            continue;
        };
        for name in words {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            hosts.entry(name).or_default().push(ip.to_canonical());
        }
    }
    hosts
}

/// The servers of /etc/resolv.conf, in order.
struct Resolver {
    servers: Vec<StubResolver>,
    /// Without the root.
    search: Vec<String>,
    ndots: usize,
}

/// What the servers said of one name and family.
type Answer = io::Result<(Vec<IpAddr>, Option<u32>)>;

impl Resolver {
    fn new(text: &str) -> Self {
        let mut conf = ResolvConf::new();
        for line in text.lines() {
            // One at a time: a line that is not understood must not hide those after it.
            let _ = conf.parse(&mut line.as_bytes());
        }
        conf.finalize();
        let options = &conf.options;
        let suffixes = options.search.as_slice().iter();
        let suffixes = suffixes.filter(|suffix| !suffix.is_root());
        // One for each: by itself a resolver of many takes the first refusal for an answer.
        let servers = conf.servers.iter().take(MAX_SERVERS).map(|server| {
            StubResolver::from_conf(ResolvConf {
                servers: vec![server.clone()],
                options: options.clone(),
            })
        });
        Self {
            servers: servers.collect(),
            search: suffixes.map(ToString::to_string).collect(),
            ndots: options.ndots,
        }
    }

    /// The names that may be meant, the likeliest first. Source: resolv.conf(5), `search` and `ndots`.
    fn candidates(&self, name: &str) -> Vec<String> {
        let with_suffix = self.search.iter().map(|suffix| format!("{name}.{suffix}"));
        let mut candidates: Vec<String> = if name.ends_with('.') {
            Vec::new()
        } else {
            with_suffix.collect()
        };
        let dots = name.matches('.').count();
        let at = if dots >= self.ndots {
            0
        } else {
            candidates.len()
        };
        candidates.insert(at, name.to_owned());
        candidates
    }

    async fn search(&self, name: &str) -> io::Result<Found> {
        for candidate in self.candidates(name) {
            // A suffix may make it too long for a name.
            let Ok(name) = Name::<Vec<u8>>::from_str(&candidate) else {
                continue;
            };
            let answers = join(self.ask(&name, Rtype::A), self.ask(&name, Rtype::AAAA)).await;
            let (is_whole, (mut addrs, ttl), (more, other_ttl)) = match answers {
                (Ok(v4), Ok(v6)) => (true, v4, v6),
                (Ok(some), Err(_)) | (Err(_), Ok(some)) if !some.0.is_empty() => {
                    (false, some, (Vec::new(), None))
                }
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            addrs.extend(more);
            if !addrs.is_empty() {
                let ttl = ttl.into_iter().chain(other_ttl).min().unwrap_or(0);
                return Ok(Found {
                    addrs,
                    ttl: Duration::from_secs(ttl.into()),
                    is_whole,
                });
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no such name"))
    }

    /// Asks one server after the other until one has an answer; `no such name` is one.
    async fn ask(&self, name: &Name<Vec<u8>>, family: Rtype) -> Answer {
        let mut failed = io::Error::from(io::ErrorKind::TimedOut);
        for server in &self.servers {
            let answer = timeout(SERVER_LIMIT, server.query((name, family, Class::IN))).await;
            match answer {
                Ok(Ok(answer)) => match answer.header().rcode() {
                    Rcode::NOERROR => return addresses(answer.as_ref(), family),
                    Rcode::NXDOMAIN => return Ok((Vec::new(), None)),
                    rcode => failed = io::Error::other(format!("the name server says {rcode}")),
                },
                Ok(Err(error)) => failed = error,
                Err(_) => {}
            }
        }
        Err(failed)
    }
}

/// The addresses of an answer, and the shortest time that one of its records is good for; aliases are followed by who
/// answers.
fn addresses<Octets: domain::dep::octseq::Octets>(
    answer: &Message<Octets>,
    family: Rtype,
) -> Answer {
    let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut addrs = Vec::new();
    let mut ttl = None;
    for record in answer.answer().map_err(wrong)? {
        let record = record.map_err(wrong)?;
        let seconds = record.ttl().as_secs();
        if ![Rtype::A, Rtype::AAAA, Rtype::CNAME].contains(&record.rtype()) {
            continue;
        }
        ttl = ttl.into_iter().chain([seconds]).min();
        if record.rtype() != family {
            continue;
        }
        let addr = match family {
            Rtype::A => record
                .into_record::<A>()
                .map_err(wrong)?
                .map(|record| IpAddr::V4(record.data().addr())),
            _ => record
                .into_record::<Aaaa>()
                .map_err(wrong)?
                .map(|record| IpAddr::V6(record.data().addr())),
        };
        addrs.extend(addr.map(|addr| addr.to_canonical()));
    }
    Ok((addrs, ttl))
}

#[cfg(test)]
mod tests {
    use domain::resolv::stub::conf::{ResolvOptions, ServerConf, Transport};

    use super::*;

    #[test]
    fn the_hosts_file_is_read_as_its_manual_says() {
        let hosts = hosts(
            "127.0.0.1 localhost\n# 10.0.0.9 old\n10.0.0.1\tA.example. a # note b\n::ffff:10.0.0.2 a\nx y\n",
        );
        let found = |name: &str| {
            let addrs = hosts.get(name).into_iter().flatten();
            addrs.map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("a.example"), ["10.0.0.1"]);
        assert_eq!(found("a"), ["10.0.0.1", "10.0.0.2"]);
        for none in ["old", "b", "y"] {
            assert_eq!(found(none), [""; 0], "{none}");
        }
    }

    #[tokio::test]
    async fn a_silent_server_holds_all_names_together_up_for_the_limit_only() {
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = ServerConf::new(silent.local_addr().unwrap(), Transport::UdpTcp);
        let resolver = Resolver {
            servers: vec![StubResolver::from_conf(ResolvConf {
                servers: vec![server],
                options: ResolvOptions::default(),
            })],
            search: Vec::new(),
            ndots: 1,
        };
        let hosts = hosts("10.0.0.1 known");
        let mut names = vec!["away.example"; 40 * AT_ONCE];
        names.push("known");
        let began = Instant::now();
        let answers = all(&hosts, &resolver, &names, Duration::from_millis(300)).await;
        let took = began.elapsed();
        assert!(took < NAME_LIMIT, "{took:?}");
        let (known, away) = answers.split_last().unwrap();
        assert!(known.is_ok());
        assert_eq!(away.len(), 40 * AT_ONCE);
        assert!(away.iter().all(Result::is_err));
    }

    #[test]
    fn names_with_few_dots_are_tried_with_the_suffixes_first() {
        let text = "family inet\nnameserver 192.0.2.1\nnonsense\nsearch one.test two.test\noptions ndots:2\n";
        let resolver = Resolver::new(text);
        assert_eq!(resolver.servers.len(), 1);
        assert_eq!(
            resolver.candidates("a.b"),
            ["a.b.one.test", "a.b.two.test", "a.b"]
        );
        assert_eq!(
            resolver.candidates("a.b.c"),
            ["a.b.c", "a.b.c.one.test", "a.b.c.two.test"]
        );
        assert_eq!(resolver.candidates("a."), ["a."]);
        // Without a file: this host, as the C library has it.
        assert_eq!(Resolver::new("").servers.len(), 1);
        assert_eq!(Resolver::new("").candidates("a"), ["a"]);
    }
}
