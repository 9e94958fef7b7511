//! /etc/resolv.conf, as the C library reads it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// Most servers that are used. Source: `MAXNS`, resolv.h.
pub(super) const MAX_SERVERS: usize = 3;
/// Most suffixes that are used; the C library has no limit since 2.26.
const MAX_SEARCH: usize = 32;
/// Upper limits of the options. Source: `RES_MAXNDOTS`, `RES_MAXRETRANS`, `RES_MAXRETRY`, resolv.h.
const MAX_NDOTS: usize = 15;
/// In seconds.
const MAX_TIMEOUT: u64 = 30;
const MAX_ATTEMPTS: u32 = 5;

/// Port of name servers.
const PORT: u16 = 53;

/// Contents of one resolv.conf.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Config {
    /// At least one.
    pub(super) servers: Vec<SocketAddr>,
    /// Suffixes, without a dot at either end; the root is empty.
    pub(super) search: Vec<String>,
    pub(super) ndots: usize,
    /// How long one server has for one answer.
    pub(super) timeout: Duration,
    pub(super) attempts: u32,
    pub(super) rotate: bool,
    pub(super) use_tcp: bool,
    /// Only questions for IPv4 addresses go out.
    pub(super) no_aaaa: bool,
}

impl Config {
    /// Reads a text. Nothing in it is an error: what is not understood is skipped, as resolv.conf(5) has it.
    pub(super) fn parse(text: &str, host_name: &str) -> Self {
        let mut config = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            use_tcp: false,
            no_aaaa: false,
        };
        // The domain of the host's own name, until a line says otherwise.
        let own = host_name.split_once('.').map(|(_, domain)| domain);
        let mut search: Vec<&str> = own.into_iter().collect();
        for line in text.lines() {
            // A comment begins a line; behind a value it would be part of it.
            if line.starts_with(['#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if config.servers.len() < MAX_SERVERS => {
                    config.servers.extend(words.next().and_then(server));
                }
                Some("domain") => search = words.take(1).collect(),
                // The last line of the two kinds counts.
                Some("search") => search = words.take(MAX_SEARCH).collect(),
                Some("options") => words.for_each(|option| config.set(option)),
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        let search = search.into_iter();
        config.search = search.map(|it| it.trim_matches('.').to_owned()).collect();
        config
    }

    fn set(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        // As atoi(3): digits count until the first other character.
        let digits = value.split(|c: char| !c.is_ascii_digit()).next();
        let number: Option<u64> = digits.and_then(|digits| digits.parse().ok());
        match (name, number) {
            ("ndots", Some(number)) => {
                self.ndots = usize::try_from(number).map_or(MAX_NDOTS, |n| n.min(MAX_NDOTS));
            }
            ("timeout", Some(seconds)) => {
                // 0 would give no server any time.
                self.timeout = Duration::from_secs(seconds.clamp(1, MAX_TIMEOUT));
            }
            ("attempts", Some(number)) => {
                let number = u32::try_from(number).unwrap_or(MAX_ATTEMPTS);
                self.attempts = number.clamp(1, MAX_ATTEMPTS);
            }
            ("rotate", _) => self.rotate = true,
            ("use-vc" | "usevc", _) => self.use_tcp = true,
            ("no-aaaa", _) => self.no_aaaa = true,
            _ => {}
        }
    }
}

/// An address of either family; one of IPv6 may name its interface: `fe80::1%eth0`.
fn server(word: &str) -> Option<SocketAddr> {
    let (ip, scope) = word.split_once('%').unwrap_or((word, ""));
    match ip.parse().ok()? {
        // `0.0.0.0` is this host to the kernel, and to the C library.
        IpAddr::V4(ip) => Some((ip, PORT).into()),
        IpAddr::V6(ip) => {
            let scope = match scope.parse() {
                Ok(index) => index,
                Err(_) if scope.is_empty() => 0,
                Err(_) => interface(scope)?,
            };
            Some(SocketAddrV6::new(ip, PORT, 0, scope).into())
        }
    }
}

fn interface(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?;
    index.trim().parse().ok()
}
