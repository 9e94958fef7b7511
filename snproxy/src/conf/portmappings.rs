//! portmappings.conf: items `clusterPort:hostPort:maxConn:sendProxy`, one or many per line.
//!
//! The Simplenetes daemon writes it, with repeated items and `### EOF` at the end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::text::{Field, Findings, Lines, is_blank, is_text, without_comma};
use super::value::{by_name, hint_of, names, number};
use super::{Mapping, SendProxy};
use crate::addr::{ClusterPort, HostPort};
use crate::diag::{Severity, Source};

/// Largest portmappings.conf, in bytes. It may be one line.
pub const MAX_FILE: usize = 8 * 1024 * 1024;

/// Most mappings: four pods for every port there is.
pub const MAX_ITEMS: usize = 4 * 65536;

/// Reads all mappings: the bad ones are findings, the good ones the value.
pub(super) fn read(source: &Source, findings: &mut Findings<'_>) -> Vec<Mapping> {
    if source.text.len() > MAX_FILE {
        findings.whole(
            Severity::Error,
            format_args!("file is larger than {MAX_FILE} bytes"),
        );
        return Vec::new();
    }
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut known: HashMap<(ClusterPort, HostPort), usize> = HashMap::new();
    let mut lines = Lines::new(source, MAX_FILE);
    while let Some(line) = lines.next(findings) {
        let line = line.part(0, line.text.find('#').unwrap_or(line.text.len()));
        for item in line.split(is_blank) {
            let item = without_comma(item, findings);
            let mapping = match mapping(item) {
                Ok(mapping) => mapping,
                Err((place, message)) => {
                    if is_text(item, findings) {
                        findings.error(place.place, message);
                    }
                    continue;
                }
            };
            match known.entry((mapping.cluster_port, mapping.host_port)) {
                Entry::Occupied(entry) => {
                    if let Some(before) = mappings.get_mut(*entry.get()) {
                        again(before, mapping, item, findings);
                    }
                }
                Entry::Vacant(entry) if mappings.len() < MAX_ITEMS => {
                    entry.insert(mappings.len());
                    mappings.push(mapping);
                }
                Entry::Vacant(_) => {
                    findings.error(item.place, format_args!("more than {MAX_ITEMS} mappings"));
                    return mappings;
                }
            }
        }
    }
    for busy in mappings.iter().filter(|mapping| mapping.max_conn == 0) {
        let message = "maxConn 0 allows no connection: always busy";
        findings.at(Severity::Warning, busy.line, busy.col, message);
    }
    mappings.shrink_to_fit();
    mappings
}

/// An item for a pod that is already mapped. Exact repeats are how the daemon writes them.
fn again(before: &mut Mapping, now: Mapping, item: Field<'_>, findings: &mut Findings<'_>) {
    if (before.max_conn, before.send_proxy) == (now.max_conn, now.send_proxy) {
        return;
    }
    let Mapping {
        cluster_port,
        host_port,
        line,
        ..
    } = *before;
    let message = format_args!(
        "{cluster_port}:{host_port} has another maxConn or sendProxy in line {line}: this item counts"
    );
    findings.warning(item.place, message);
    *before = now;
}

/// One item, or what is wrong with which part of it.
fn mapping(item: Field<'_>) -> Result<Mapping, (Field<'_>, String)> {
    let mut parts = item.text.split(':');
    let (Some(cluster), Some(host), Some(max), Some(send), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        let expected = "expected clusterPort:hostPort:maxConn:sendProxy";
        return Err((item, format!("{expected}, found {item}")));
    };
    let at_host = cluster.len() + 1;
    let at_max = at_host + host.len() + 1;
    let at_send = at_max + max.len() + 1;

    let cluster_port = number(cluster).and_then(ClusterPort::new).ok_or_else(|| {
        let part = item.part(0, cluster.len());
        (part, format!("{part} is not a cluster port (1-65535)"))
    })?;
    let host_port = number(host).and_then(HostPort::new).ok_or_else(|| {
        let part = item.part(at_host, host.len());
        (part, format!("{part} is not a host port (1-65535)"))
    })?;
    let max_conn = number(max).ok_or_else(|| {
        let part = item.part(at_max, max.len());
        (part, format!("{part} is not a maxConn (0-{})", u32::MAX))
    })?;
    let send_proxy = by_name(send).ok_or_else(|| {
        let part = item.part(at_send, send.len());
        (
            part,
            format!(
                "{part} is not a sendProxy: expected {}{}",
                names::<SendProxy>(),
                hint_of::<SendProxy>(send)
            ),
        )
    })?;
    Ok(Mapping {
        cluster_port,
        host_port,
        max_conn,
        send_proxy,
        line: item.place.line,
        col: item.place.col,
    })
}
