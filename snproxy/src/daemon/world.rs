//! What a parse asks of the host: names, own addresses, the kernel's port ranges.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::addr::PortSet;
use crate::conf::{self, Conf, Sources, World};
use crate::diag::{Parsed, Source};
use crate::discovery::Writers;
use crate::discovery::certs::Store;
use crate::net::own::is_own;
use crate::sys::privileges;

use super::control_socket;
use super::services::Services;
use super::targets::Targets;

/// Longest wait for the addresses of one name.
const NAME_LIMIT: Duration = Duration::from_secs(2);
/// How long the name service is not asked again after it did not answer: hosts.conf may hold thousands of names.
const NAME_REST: Duration = Duration::from_secs(10);

/// Addresses of names as they last resolved: while the name service is away, what was known stays true.
#[derive(Debug, Default)]
pub struct Names {
    /// Of proxy.conf and hosts.conf.
    hosts: Mutex<Known>,
    /// Of the apps file.
    pub(super) targets: Targets,
    /// Certificates as they last were where they come from.
    pub(super) certs: Store,
    /// The services of the apps file.
    pub(super) services: Services,
    /// Programs that write the files, once these are watched.
    pub(super) writers: OnceLock<Writers>,
}

#[derive(Debug, Default)]
struct Known {
    addrs: HashMap<String, Vec<IpAddr>>,
    /// When the name service last failed to answer in time.
    silent: Option<Instant>,
}

impl Names {
    /// The addresses that a name last had, asked for only where there were none.
    fn known(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addrs) = known.addrs.get(name) {
            return Ok(addrs.clone());
        }
        drop(known);
        self.resolve(name)
    }

    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let resting = known.silent.is_some_and(|at| at.elapsed() < NAME_REST);
        let answer = if resting {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            ask(name)
        };
        match answer {
            Ok(addrs) => {
                known.silent = None;
                let kept = known.addrs.entry(name.to_owned()).or_default();
                if !same_addresses(kept, &addrs) {
                    *kept = addrs;
                }
                Ok(kept.clone())
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::TimedOut && !resting {
                    known.silent = Some(Instant::now());
                }
                known.addrs.get(name).cloned().ok_or(error)
            }
        }
    }
}

/// Whether two answers differ in their order at most: name services turn it with each answer.
pub(super) fn same_addresses(before: &[IpAddr], now: &[IpAddr]) -> bool {
    let sorted = |addrs: &[IpAddr]| {
        let mut addrs = addrs.to_vec();
        addrs.sort_unstable();
        addrs.dedup();
        addrs
    };
    sorted(before) == sorted(now)
}

/// Asks the name service. The call itself knows no limit, so it is left behind on a thread of its own.
fn ask(name: &str) -> io::Result<Vec<IpAddr>> {
    let (reply, answer) = mpsc::channel();
    let asked = name.to_owned();
    std::thread::Builder::new().spawn(move || {
        // At the start this thread has what the process was started with, and may outlast the giving up.
        let _ = privileges::drop_all(&[]);
        let addrs = (asked.as_str(), 0).to_socket_addrs();
        // Nobody waits any more where it took too long.
        let _ = reply.send(addrs.map(|addrs| addrs.map(|addr| addr.ip().to_canonical()).collect()));
    })?;
    answer
        .recv_timeout(NAME_LIMIT)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Parses a set of files as this host sees it. May block on name resolution.
pub fn parse(sources: &Sources, names: &Names) -> Parsed<Option<Conf>> {
    parse_with(sources, names, &|name| names.resolve(name))
}

/// The same with the addresses that names of hosts had before: nodes of services come and go many times a second.
pub(super) fn parse_again(sources: &Sources, names: &Names) -> Parsed<Option<Conf>> {
    parse_with(sources, names, &|name| names.known(name))
}

fn parse_with(
    sources: &Sources,
    names: &Names,
    resolve: &dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
) -> Parsed<Option<Conf>> {
    let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let world = World {
        resolve,
        resolve_targets: &|asked| names.targets.resolve(asked),
        discovered: &|etcd, keys| names.services.nodes(etcd, keys, &names.certs),
        is_local: &is_own,
        ephemeral: sysctl("ip_local_port_range").and_then(|text| pair(&text)),
        reserved: sysctl("ip_local_reserved_ports").map_or_else(PortSet::new, |text| ports(&text)),
    };
    conf::parse(sources, &world)
}

/// Where the proxy of this proxy.conf is asked, whatever else is wrong with it. Asks nobody for names.
pub fn control_socket_of(proxy: &Source) -> Option<PathBuf> {
    let world = World {
        resolve: &|_| Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        resolve_targets: &|names| names.iter().map(|_| Ok(Vec::new())).collect(),
        discovered: &|_, keys| vec![Err(String::new()); keys.len()],
        is_local: &|_| true,
        ephemeral: None,
        reserved: PortSet::new(),
    };
    let host = Source {
        path: "hosts.conf".into(),
        text: "127.0.0.1:1\n".to_owned(),
    };
    let sources = Sources {
        proxy: proxy.clone(),
        mappings: None,
        hosts: Some(host),
        apps: None,
    };
    conf::parse(&sources, &world)
        .value
        .and_then(|conf| control_socket(&conf))
}

fn pair(text: &str) -> Option<(u16, u16)> {
    let mut ends = text.split_whitespace().map(str::parse);
    Some((ends.next()?.ok()?, ends.next()?.ok()?))
}

/// The kernel's own list form: `8080,9000-9010`.
fn ports(text: &str) -> PortSet {
    let mut set = PortSet::new();
    for item in text.trim().split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            (first..=last).for_each(|port| set.insert(port));
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        assert_eq!(ports("8080,9000-9002\n").to_string(), "8080,9000-9002");
        assert_eq!(ports("\n").to_string(), "");
        assert_eq!(pair("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(pair("x"), None);
    }
}
