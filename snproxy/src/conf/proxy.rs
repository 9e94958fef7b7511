//! proxy.conf: one `KEY value` per line.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{self, Draft, Key, Scope, Unset, by_name, key_hint};
use super::port::{Balance, Fate, MAX_KINDS, OverLimit, PortConf, PortConfs};
use super::port_value::unchecked;
use super::text::{Field, Findings, Lines, MAX_LINE, is_blank, is_text, uncomment, without_comma};
use super::value::ports;
use super::{
    Admin, BpfLog, ClientProxy, Conf, Conflict, Family, Files, Locality, LogFormat, LogLevel,
    MaxConn, Mechanism, Origin, Peers, Policy, ProxyMode, Steering, TargetNets, Unmapped, Workers,
};
use crate::addr::PortSet;
use crate::diag::{Place, Severity, Source, printable, shown_of};

/// Largest proxy.conf, in bytes.
pub const MAX_FILE: usize = 64 * 1024;

/// Most settings of one file.
const MAX_LINES: usize = 1024;

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
    let mut said: Vec<Said<'_>> = Vec::new();
    let mut lines = Lines::new(source, MAX_LINE);
    while let Some(line) = lines.next(findings) {
        if line
            .text
            .split(is_blank)
            .any(|word| shown_of(word) < word.len())
        {
            findings.hide(line.place.line);
        }
        let len = line.text.find(is_blank).unwrap_or(line.text.len());
        let name = line.part(0, len);
        let Some(key) = by_name(name.text) else {
            unknown(name, findings);
            continue;
        };
        let rest = line.tail(len).trim();
        let scope = match key.scope {
            Scope::Whole { .. } => None,
            Scope::Ports { .. } => scope(rest),
        };
        let (ports, rest) = match scope {
            None => (None, rest),
            Some((list, rest)) => match ports(list, findings) {
                None => continue,
                ports => (ports, rest),
            },
        };
        let same = |other: &&Said<'_>| other.key.name == key.name && other.ports == ports;
        if let Some(before) = said.iter().find(same) {
            let message = format_args!(
                "{} is already set in line {}: this line counts",
                name.text, before.line
            );
            findings.warning(name.place, message);
        }
        said.retain(|other| !same(&other));
        if ports.is_some() && said.len() >= MAX_LINES {
            let message = format_args!("more than {MAX_LINES} settings");
            findings.error(name.place, message);
            break;
        }
        said.push(Said {
            key,
            line: line.place.line,
            value: value(name, rest, findings),
            ports,
        });
    }
    take(said, &mut draft, findings);
    draft
}

/// One line that sets something.
struct Said<'a> {
    key: &'static Key,
    line: u32,
    /// `None`: the default.
    value: Option<Field<'a>>,
    /// `None`: all.
    ports: Option<PortSet>,
}

/// The ports that a value is for, and the value: the first of two words, if it is made of nothing else.
fn scope(rest: Field<'_>) -> Option<(Field<'_>, Field<'_>)> {
    let len = ports_word(rest.text)?.len();
    Some((rest.part(0, len), rest.tail(len).trim()))
}

/// The ports that the value of this key is for, as they are written; `None`: for all.
pub(crate) fn ports_of_value<'a>(key: &str, value: &'a str) -> Option<&'a str> {
    let is_of_port = by_name(key).is_some_and(|key| matches!(key.scope, Scope::Ports { .. }));
    ports_word(value.trim_start_matches(is_blank)).filter(|_| is_of_port)
}

fn ports_word(rest: &str) -> Option<&str> {
    let (ports, value) = rest.split_once(is_blank)?;
    let value = value.trim_matches(is_blank);
    let is_list = |c: char| c.is_ascii_digit() || c == ',' || c == '-';
    // `SOURCEMAXCONN 100 /24`: a number of connections, but `CLIENTTLS 100 /certs`; `MAXLIFETIME 0 10%`: off, for 0 is no port.
    let is_network = |value: &str| {
        let word = value.split(is_blank).next().unwrap_or(value);
        word.starts_with('/') && !word.contains(|c: char| !c.is_ascii_digit() && !",/".contains(c))
    };
    let is_value = !value.is_empty() && !value.starts_with('#') && !is_network(value);
    (is_value && ports != "0" && ports.chars().all(is_list)).then_some(ports)
}

/// Puts what was said into force: what is for all ports, then what is for some, the most ports first.
fn take<'a>(mut said: Vec<Said<'a>>, draft: &mut Draft<'a>, findings: &mut Findings<'_>) {
    said.sort_by_key(|said| {
        let ports = said.ports.as_ref().map(PortSet::len);
        // Stable: of equal ones the later line wins.
        (ports.is_some(), Reverse(ports))
    });
    for Said {
        key, value, ports, ..
    } in said
    {
        let Some(value) = value else { continue };
        let mut shown = None;
        match (&key.scope, &ports) {
            (Scope::Whole { apply, .. }, _) => apply(draft, value, findings),
            (Scope::Ports { apply, .. }, None) => {
                apply(draft.conf.ports.common_mut(), value, findings);
            }
            (Scope::Ports { apply, show }, Some(ports)) => {
                // Once for what is wrong with it, and for how it is shown.
                let mut conf = draft.conf.ports.common().clone();
                apply(&mut conf, value, findings);
                shown = Some(format!("{ports} {}", show(&conf)));
                let refined = draft.conf.ports.refine(ports, |conf| {
                    apply(conf, value, &mut Findings::new(&NOWHERE));
                });
                if !refined {
                    let message = format_args!("more than {MAX_KINDS} different kinds of ports");
                    findings.error(value.place, message);
                    return;
                }
            }
        }
        let file = printable(&draft.conf.files.proxy.to_string_lossy()).into_owned();
        draft.conf.origins.push(Origin {
            key: key.name,
            place: format!("{file}:{}", value.place.line),
            ports: shown,
        });
    }
}

/// For findings that are known already.
pub(super) static NOWHERE: Source = Source {
    path: PathBuf::new(),
    text: String::new(),
};

fn unknown(name: Field<'_>, findings: &mut Findings<'_>) {
    if !is_text(name, findings) {
        return;
    }
    let what = format_args!("unknown key {name}");
    let (word, joined) = match name.text.split_once(['=', ':']) {
        Some((word, _)) => (word, ": a space separates key and value"),
        None => (name.text.trim_end_matches(','), ""),
    };
    findings.unknown(name.place, what, format_args!("{joined}{}", key_hint(word)));
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
        apps: None,
    };
    // Stand-ins: the table below says what unset keys mean.
    let conf = Conf {
        files,
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        pod_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        cluster_ports: PortSet::new(),
        mappings: Vec::new(),
        apps: Vec::new(),
        own: Box::default(),
        hosts: Vec::new(),
        host_is_derived: false,
        this_host: None,
        others: Vec::new(),
        host_ips: Box::default(),
        dial_from: None,
        steering: Steering::Auto,
        workers: Workers::PerCpu,
        pump: Mechanism::Adaptive,
        conflict: Conflict::Yield,
        unmapped: Unmapped::Auto,
        family: Family::Any,
        max_conn: MaxConn::Auto,
        drain_timeout: Duration::ZERO,
        keepalive: None,
        peers: Peers {
            hosts: false,
            any: false,
            local: false,
            networks: Vec::new(),
        },
        target_nets: TargetNets::default(),
        peer_tls: None,
        ports: PortConfs::new(stand_in()),
        etcd: None,
        cluster: None,
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
    for key in keys::all() {
        if let Unset::Text(text) = key.unset {
            let value = Field { text, place };
            match key.scope {
                Scope::Whole { apply, .. } => apply(&mut draft, value, &mut none),
                Scope::Ports { apply, .. } => {
                    apply(draft.conf.ports.common_mut(), value, &mut none);
                }
            }
        }
    }
    debug_assert!(
        none.finish().is_empty(),
        "a default that its own key refuses"
    );
    draft
}

/// Filled by the defaults of the keys.
fn stand_in() -> PortConf {
    PortConf {
        bind: None,
        balance: Balance {
            policy: Policy::P2c,
            port: false,
            strict: false,
        },
        locality: Locality::Balance,
        persist: None,
        slow_start: None,
        health: unchecked(),
        on_remove: Fate::Keep,
        on_down: Fate::Keep,
        max_conn: None,
        reopen: 100,
        eject_max: 50,
        queue: 0,
        queue_timeout: None,
        over_limit: OverLimit::Refuse,
        source_max_conn: None,
        source_rate: None,
        port_rate: None,
        connect_timeout: Duration::ZERO,
        peer_timeout: Duration::ZERO,
        client_proxy: ClientProxy {
            mode: ProxyMode::Never,
            private: false,
            networks: Vec::new(),
        },
        proxy_wait: Duration::ZERO,
        first_byte_timeout: None,
        idle_timeout: None,
        client_idle_timeout: None,
        upstream_idle_timeout: None,
        linger_timeout: None,
        max_lifetime: None,
        client_tls: None,
        upstream_tls: None,
        tls_timeout: Duration::ZERO,
    }
}

/// The settings of a port of which nothing is said.
impl Default for PortConf {
    fn default() -> Self {
        unset(&NOWHERE).conf.ports.common().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::ports_of_value as ports;

    #[test]
    fn a_folder_may_be_the_value_of_some_ports_and_a_network_is_none() {
        assert_eq!(ports("CLIENTTLS", "5001 /certs"), Some("5001"));
        assert_eq!(
            ports("clienttls", "5001-5009,6000 none"),
            Some("5001-5009,6000")
        );
        assert_eq!(ports("CLIENTTLS", "/certs"), None);
        assert_eq!(ports("SOURCEMAXCONN", "100 /24 /64"), None);
        assert_eq!(ports("SOURCEMAXCONN", "100 5 /24"), Some("100"));
        assert_eq!(ports("MAXLIFETIME", "0 10%"), None);
        assert_eq!(ports("WORKERS", "4 5"), None);
    }
}
