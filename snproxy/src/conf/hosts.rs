//! hosts.conf: the proxies of the cluster, `host:port` per line, this host first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};

use super::text::{Field, Findings, Lines, MAX_LINE, is_text, uncomment, without_comma};
use super::value::{NO_ADDRESS, host_name, kept, number};
use super::{Family, HostAddr, World};
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
    let mut fields = Vec::new();
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
        fields.push(line.part(0, line.text.rfind(':').unwrap_or(0)));
        hosts.push(HostAddr {
            name: host.into(),
            addrs: Box::default(),
            is_local: false,
            port,
            line: line.place.line,
            col: line.place.col,
        });
    }
    resolve(&mut hosts, &fields, world, findings);
    hosts
}

/// Finds the addresses of all hosts. One without any is a warning: it may get one later.
fn resolve(
    hosts: &mut [HostAddr],
    fields: &[Field<'_>],
    world: &World<'_>,
    findings: &mut Findings<'_>,
) {
    let names = hosts.iter().filter(|host| host.is_name());
    let mut names: Vec<Box<str>> = names.map(|host| host.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let asked: Vec<&str> = names.iter().map(|name| &**name).collect();
    let answers = (world.resolve_all)(&asked, Family::Any);
    let answers: HashMap<&str, _> = asked.into_iter().zip(answers).collect();
    for (at, (host, field)) in hosts.iter_mut().zip(fields).enumerate() {
        let why = match answers.get(&*host.name) {
            Some(Ok(found)) => {
                host.addrs = kept(found);
                NO_ADDRESS.to_owned()
            }
            Some(Err(error)) => format!("does not resolve: {error}"),
            None => {
                let ip = host.name.parse::<IpAddr>().ok();
                host.addrs = ip.iter().map(IpAddr::to_canonical).collect();
                NO_ADDRESS.to_owned()
            }
        };
        let mut warn = |why: &str| findings.warning(field.place, format_args!("{field} {why}"));
        match host.addrs.first() {
            None => warn(&why),
            Some(ip) if at > 0 && ip.is_unspecified() => warn("is no address of another host"),
            Some(_) => {}
        }
        let ip = host.addrs.first().copied();
        host.is_local = ip.is_some_and(|ip| world.owns(ip));
    }
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
