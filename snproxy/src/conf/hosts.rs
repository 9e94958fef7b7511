//! hosts.conf: the proxies of the cluster, `host:port` per line, this host first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv6Addr;

use super::text::{Field, Findings, Lines, MAX_LINE, is_text, uncomment, without_comma};
use super::value::{addresses, host_name, number};
use super::{HostAddr, World};
use crate::diag::{Severity, Source};

/// Largest hosts.conf, in bytes.
pub const MAX_FILE: usize = 1024 * 1024;

/// Most hosts of a cluster.
pub const MAX_HOSTS: usize = 4096;

/// Reads all hosts: the bad lines are findings, the good ones the value.
pub(super) fn read(
    source: &Source,
    world: &World<'_>,
    findings: &mut Findings<'_>,
) -> Vec<HostAddr> {
    if source.text.len() > MAX_FILE {
        findings.whole(
            Severity::Error,
            format_args!("file is larger than {MAX_FILE} bytes"),
        );
        return Vec::new();
    }
    let mut hosts: Vec<HostAddr> = Vec::new();
    let mut known = HashMap::new();
    let mut lines = Lines::new(source, MAX_LINE);
    while let Some(line) = lines.next(findings) {
        let line = without_comma(uncomment(line), findings);
        if !is_text(line, findings) {
            continue;
        }
        let Some((host, port)) = endpoint(line, findings) else {
            continue;
        };
        let name = line.part(0, line.text.rfind(':').unwrap_or(0));
        match known.entry((host.to_ascii_lowercase(), port)) {
            Entry::Occupied(before) => {
                let message = format_args!("{line} is already in line {}", before.get());
                findings.warning(line.place, message);
                continue;
            }
            Entry::Vacant(entry) => entry.insert(line.place.line),
        };
        if hosts.len() == MAX_HOSTS {
            findings.error(line.place, format_args!("more than {MAX_HOSTS} hosts"));
            break;
        }
        let addrs = addresses(host, world).unwrap_or_else(|why| {
            findings.warning(name.place, format_args!("{name} {why}"));
            Box::default()
        });
        let ip = addrs.first().copied();
        if !hosts.is_empty() && ip.is_some_and(|ip| ip.is_unspecified()) {
            let message = format_args!("{name} is no address of another host");
            findings.warning(name.place, message);
        }
        hosts.push(HostAddr {
            name: host.into(),
            addrs,
            is_local: ip.is_some_and(|ip| world.owns(ip)),
            port,
            line: line.place.line,
            col: line.place.col,
        });
    }
    hosts
}

/// `host:port`: a name, an IPv4 address or one of IPv6 in brackets; what is wrong with it is a finding.
pub(super) fn endpoint<'a>(
    field: Field<'a>,
    findings: &mut Findings<'_>,
) -> Option<(&'a str, u16)> {
    let Some((name, port)) = field.text.rsplit_once(':') else {
        findings.error(
            field.place,
            format_args!("expected host:port, found {field}"),
        );
        return None;
    };
    let name = field.part(0, name.len());
    let digits = field.tail(name.text.len() + 1);
    let Some(port) = number(port).filter(|port: &u16| *port > 0) else {
        let message =
            format_args!("expected a port (1-65535) after the last colon, found {digits}");
        findings.error(digits.place, message);
        return None;
    };
    if name.text.parse::<Ipv6Addr>().is_ok() {
        let name = name.text;
        let message = format_args!("an IPv6 address is written in brackets: `[{name}]:{port}`");
        findings.error(field.place, message);
        return None;
    }
    match host_name(name.text) {
        Ok(host) => Some((host, port)),
        Err(expected) => {
            findings.error(
                name.place,
                format_args!("expected {expected}, found {name}"),
            );
            None
        }
    }
}
