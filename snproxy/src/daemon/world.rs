//! What a parse asks of the host: names, own addresses, the kernel's port ranges.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::addr::PortSet;
use crate::conf::{self, Conf, Family, Sources, World};
use crate::diag::{Diagnostic, Parsed, Severity, Source};
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
    /// Whether unknown keys and fields are warnings.
    ignore_unknown: bool,
}

impl Names {
    /// Nothing is known yet. If `ignore_unknown` is set, unknown keys and fields are warnings at
    /// each look at the files.
    pub fn new(ignore_unknown: bool) -> Self {
        Self {
            ignore_unknown,
            ..Self::default()
        }
    }
}

/// Parses a set of files as this host sees it. May block on name resolution.
pub fn parse(sources: &Sources, names: &Names) -> Parsed<Option<Conf>> {
    parse_with(sources, names, None)
}

/// The same for `snproxy check`: what keeps a start from serving is an error.
pub fn parse_to_check(sources: &Sources, names: &Names) -> Parsed<Option<Conf>> {
    let can_bind = |ip: IpAddr| TcpListener::bind((ip, 0)).map(drop);
    parse_with(sources, names, Some(&can_bind))
}

fn parse_with(
    sources: &Sources,
    names: &Names,
    can_bind: Option<&dyn Fn(IpAddr) -> io::Result<()>>,
) -> Parsed<Option<Conf>> {
    let sysctl = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let world = World {
        resolve: &|name| names.addresses.resolve_pinned(name),
        resolve_all: &|asked, family| names.addresses.resolve(asked, families(family)),
        discovered: &|etcd, keys| names.services.nodes(etcd, keys, &names.certs),
        is_local: &is_own,
        ephemeral: sysctl("ip_local_port_range").and_then(|text| pair(&text)),
        reserved: sysctl("ip_local_reserved_ports").map_or_else(PortSet::new, |text| ports(&text)),
        ignore_unknown: names.ignore_unknown,
        can_bind,
    };
    conf::parse(sources, &world)
}

/// Path of the control socket of the proxy that runs with this proxy.conf, whatever else is wrong with the file; `None`:
/// it has none. Resolves no names.
///
/// # Errors
/// Returns what is wrong with PORT or ADMIN: another process may have the default.
pub fn control_socket_of(proxy: &Source) -> Result<Option<PathBuf>, Vec<Diagnostic>> {
    let world = World {
        resolve: &|_| Ok(vec![Ipv4Addr::LOCALHOST.into()]),
        resolve_all: &|names, _| names.iter().map(|_| Ok(Vec::new())).collect(),
        discovered: &|_, keys| vec![Err(String::new()); keys.len()],
        is_local: &|_| true,
        ephemeral: None,
        reserved: PortSet::new(),
        ignore_unknown: false,
        can_bind: None,
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
    let parsed = conf::parse(&sources, &world);
    let is_about_socket = |found: &Diagnostic| {
        let nth = usize::try_from(found.line).unwrap_or(0).checked_sub(1);
        let line = nth.and_then(|nth| proxy.text.lines().nth(nth));
        let name = line.and_then(|line| line.trim_start().split(['=', ':', ' ', '\t']).next());
        let key = name.and_then(conf::nearest_key);
        found.file == proxy.path && matches!(key, Some("PORT" | "ADMIN"))
    };
    let is_error = |found: &Diagnostic| found.severity == Severity::Error;
    let wrong: Vec<Diagnostic> = (parsed.diagnostics.into_iter())
        .filter(|found| is_error(found) && is_about_socket(found))
        .collect();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(parsed.value.and_then(|conf| control_socket(&conf)))
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
