//! proxy.conf: one `KEY value` per line.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::keys::{Draft, KEYS, Unset, nearest};
use super::text::{Field, Findings, Lines, MAX_LINE, is_blank, is_text, uncomment, without_comma};
use super::{
    Admin, BpfLog, ClientProxy, Conf, Conflict, Files, Locality, LogFormat, LogLevel, Mechanism,
    Origin, Peers, Policy, ProxyMode, Steering, Unmapped, Workers,
};
use crate::addr::PortSet;
use crate::diag::{Place, Severity, Source, printable};

/// Largest proxy.conf, in bytes.
pub const MAX_FILE: usize = 64 * 1024;

/// Reads proxy.conf. The two addresses stay as written; everything else is a value.
pub(super) fn read<'a>(source: &'a Source, findings: &mut Findings<'_>) -> Draft<'a> {
    let mut draft = unset(source);
    if source.text.len() > MAX_FILE {
        findings.whole(
            Severity::Error,
            format_args!("file is larger than {MAX_FILE} bytes"),
        );
        return draft;
    }
    let mut values = vec![None; KEYS.len()];
    let mut seen = vec![0; KEYS.len()];
    let mut lines = Lines::new(source, MAX_LINE);
    while let Some(line) = lines.next(findings) {
        let len = line.text.find(is_blank).unwrap_or(line.text.len());
        let name = line.part(0, len);
        let known = KEYS
            .iter()
            .position(|key| key.name.eq_ignore_ascii_case(name.text));
        let Some(at) = known else {
            unknown(name, findings);
            continue;
        };
        let (Some(slot), Some(before)) = (values.get_mut(at), seen.get_mut(at)) else {
            continue;
        };
        if *before > 0 {
            let message = format_args!(
                "{} is already set in line {before}: this line counts",
                name.text
            );
            findings.warning(name.place, message);
        }
        *before = line.place.line;
        *slot = value(name, line.tail(len).trim(), findings);
    }
    for (key, value) in KEYS.iter().zip(values) {
        if let Some(value) = value {
            (key.apply)(&mut draft, value, findings);
            let place = format!(
                "{}:{}",
                printable(&source.path.to_string_lossy()),
                value.place.line
            );
            draft.conf.origins.push(Origin {
                key: key.name,
                place,
            });
        }
    }
    draft
}

fn unknown(name: Field<'_>, findings: &mut Findings<'_>) {
    if !is_text(name, findings) {
        return;
    }
    let (word, joined) = match name.text.split_once(['=', ':']) {
        Some((word, _)) => (word, "a space separates key and value; "),
        None => (name.text.trim_end_matches(','), ""),
    };
    match nearest(word) {
        Some(near) => {
            let message =
                format_args!("unknown key {name} ignored: {joined}did you mean `{near}`?");
            findings.warning(name.place, message);
        }
        None => findings.warning(name.place, format_args!("unknown key {name} ignored")),
    }
}

/// The value in the rest of a line: quotes, comment and trailing comma off; `None` leaves the key unset.
fn value<'a>(name: Field<'a>, rest: Field<'a>, findings: &mut Findings<'_>) -> Option<Field<'a>> {
    let (value, quoted) = match rest.text.chars().next() {
        Some(quote @ ('"' | '\'')) => (unquote(rest, quote, findings)?, true),
        _ => (uncomment(rest), false),
    };
    if !is_text(value, findings) {
        return None;
    }
    let value = without_comma(value, findings).trim();
    if value.text.is_empty() && !quoted {
        let message = format_args!("{} has no value: write `\"\"` for the default", name.text);
        findings.error(name.place, message);
    }
    (!value.text.is_empty()).then_some(value)
}

fn unquote<'a>(rest: Field<'a>, quote: char, findings: &mut Findings<'_>) -> Option<Field<'a>> {
    let inner = rest.tail(1);
    let Some(len) = inner.text.find(quote) else {
        findings.error(rest.part(0, 1).place, "quote is never closed");
        return None;
    };
    let after = without_comma(uncomment(inner.tail(len + 1).trim()), findings);
    if !after.text.is_empty() {
        findings.error(
            after.place,
            format_args!("unexpected {after} after the closing quote"),
        );
        return None;
    }
    Some(inner.part(0, len))
}

/// The configuration of an empty proxy.conf.
fn unset(source: &Source) -> Draft<'_> {
    let files = Files {
        proxy: source.path.clone(),
        mappings: source.path.clone(),
        hosts: source.path.clone(),
    };
    // Stand-ins: the table below says what unset keys mean.
    let conf = Conf {
        files,
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        pod_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        cluster_ports: PortSet::new(),
        mappings: Vec::new(),
        hosts: Vec::new(),
        this_host: None,
        others: Vec::new(),
        host_ips: Box::default(),
        dial_from: None,
        steering: Steering::Auto,
        workers: Workers::PerCpu,
        pump: Mechanism::Adaptive,
        conflict: Conflict::Yield,
        balance: Policy::P2c,
        locality: Locality::Balance,
        unmapped: Unmapped::Auto,
        connect_timeout: Duration::ZERO,
        peer_timeout: Duration::ZERO,
        proxy_wait: Duration::ZERO,
        idle_timeout: None,
        drain_timeout: Duration::ZERO,
        keepalive: None,
        client_proxy: ClientProxy {
            mode: ProxyMode::Never,
            networks: Vec::new(),
        },
        peers: Peers {
            hosts: false,
            any: false,
            networks: Vec::new(),
        },
        admin: Admin::default(),
        log_level: LogLevel::Info,
        log_format: LogFormat::Text,
        bpf_log: BpfLog::Off,
        origins: Vec::new(),
    };
    let mut draft = Draft {
        conf,
        host: None,
        pod_host: None,
    };
    let place = Place {
        line: 0,
        col: 0,
        start: 0,
        end: 0,
    };
    let mut none = Findings::new(source);
    for key in KEYS {
        if let Unset::Text(text) = key.unset {
            (key.apply)(&mut draft, Field { text, place }, &mut none);
        }
    }
    debug_assert!(
        none.finish().is_empty(),
        "a default that its own key refuses"
    );
    draft
}
