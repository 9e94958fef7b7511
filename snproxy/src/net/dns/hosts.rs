//! /etc/hosts, and names that stand for this host.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Families, HOSTS, IpVersion, text_of};

/// Most addresses of one name that are read.
const MAX_ADDRS: usize = 256;

/// Addresses that /etc/hosts has for names, in their order; `None`: name servers know. Reads the file.
pub fn from_hosts(names: &[(&str, Families)]) -> Vec<Option<Vec<IpAddr>>> {
    find(&text_of(HOSTS), names)
}

/// Layout: an address, then names, then a comment after `#`. Source: hosts(5).
pub(super) fn find(text: &str, names: &[(&str, Families)]) -> Vec<Option<Vec<IpAddr>>> {
    let plain: Vec<String> = names.iter().map(|(name, _)| plain(name)).collect();
    // Files that block advertisers have 100,000 lines: only the names that are wanted are kept.
    let mut found: HashMap<&str, Vec<IpAddr>> = plain
        .iter()
        .map(|name| (name.as_str(), Vec::new()))
        .collect();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_whitespace();
        let Some(ip) = words.next().and_then(|ip| ip.parse::<IpAddr>().ok()) else {
            continue;
        };
        let ip = ip.to_canonical();
        for word in words {
            let is_wanted = |addrs: &&mut Vec<IpAddr>| addrs.len() < MAX_ADDRS;
            let addrs = found.get_mut(self::plain(word).as_str());
            if let Some(addrs) = addrs.filter(is_wanted)
                && !addrs.contains(&ip)
            {
                addrs.push(ip);
            }
        }
    }
    let wanted = names.iter().zip(&plain);
    let of_name = wanted.map(|((_, families), name)| {
        let of_families = |addrs: &[IpAddr]| {
            let wanted = |ip: &&IpAddr| families.has(IpVersion::of(**ip));
            addrs.iter().filter(wanted).copied().collect::<Vec<_>>()
        };
        let known = of_families(found.get(name.as_str()).map_or(&[], |addrs| addrs));
        if !known.is_empty() {
            return Some(known);
        }
        loopback(name).map(|addrs| of_families(&addrs))
    });
    of_name.collect()
}

/// A name as names are compared.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Names that never leave the host. Source: RFC 6761 section 6.3.
fn loopback(name: &str) -> Option<[IpAddr; 2]> {
    let is_local = name == "localhost" || name.ends_with(".localhost");
    is_local.then(|| [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}
