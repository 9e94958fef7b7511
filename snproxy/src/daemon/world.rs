//! What a parse asks of the host: names, own addresses, the kernel's port ranges.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::addr::PortSet;
use crate::conf::{self, Conf, Family, Sources, World};
use crate::diag::{Parsed, Source};
use crate::discovery::Writers;
use crate::discovery::certs::Store;
use crate::net::dns::Families;
use crate::net::own::is_own;

use super::addresses::Addresses;
use super::control_socket;
use super::services::Services;

/// What is known of things that the files only name: while their source is away, what was known stays true.
#[derive(Debug, Default)]
pub struct Names {
    /// Of all names.
    pub(super) addresses: Addresses,
    /// Certificates as they last were where they come from.
    pub(super) certs: Store,
    /// The services of the apps file.
    pub(super) services: Services,
    /// Programs that write the files, once these are watched.
    pub(super) writers: OnceLock<Writers>,
}

/// Parses a set of files as this host sees it. May block on name resolution.
pub fn parse(sources: &Sources, names: &Names) -> Parsed<Option<Conf>> {
    let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let world = World {
        resolve: &|name| names.addresses.resolve_pinned(name),
        resolve_all: &|asked, family| names.addresses.resolve(asked, families(family)),
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
        resolve_all: &|names, _| names.iter().map(|_| Ok(Vec::new())).collect(),
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

/// The questions that FAMILY leaves.
fn families(family: Family) -> Families {
    Families {
        v4: family != Family::V6,
        v6: family != Family::V4,
    }
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
