//! Forms of values: ports, durations, names out of a closed set, addresses.

use std::fmt;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use ipnet::IpNet;

use super::suggest::{Hint, hint};
use super::text::{Field, Findings, is_blank};
use super::{
    BpfLog, Conflict, Family, Locality, LogFormat, LogLevel, MaxConn, Mechanism, OverLimit, Peers,
    Policy, ProxyMode, SendProxy, Steering, Unmapped, Workers, World,
};
use crate::addr::PortSet;

/// Networks of one list.
pub(super) const MAX_NETWORKS: usize = 256;

/// Most addresses kept of one name.
pub(super) const MAX_ADDRS: usize = 32;

/// Longest duration.
pub(super) const MAX_DURATION: Duration = Duration::from_hours(365 * 24);

/// Longest silence before a keepalive probe that the kernel takes. Source: `MAX_TCP_KEEPIDLE`,
/// include/net/tcp.h.
const MAX_KEEPALIVE: Duration = Duration::from_secs(32767);

/// Longest name of a cluster.
const MAX_CLUSTER: usize = 64;

/// Most worker threads.
const MAX_WORKERS: u16 = 1024;

/// What stands for the default where a number could.
const AUTO: &str = "auto";

/// What stands for no port, and for no file.
pub(super) const NONE: &str = "none";

/// Longest host name. Source: RFC 1035 section 2.3.4, less the length bytes.
const MAX_NAME: usize = 253;

/// A closed set whose members have names in the files.
pub(super) trait Named: Copy + PartialEq + 'static {
    /// The first name of a value is the one it is shown by.
    const NAMES: &'static [(&'static str, Self)];
}

macro_rules! named {
    ($($set:ident { $($name:literal $value:ident),+ $(,)? })+) => {$(
        impl Named for $set {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, $set::$value)),+];
        }

        /// The name it has in the files.
        impl fmt::Display for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let found = Self::NAMES.iter().find(|(_, value)| value == self);
                f.pad(found.map_or("", |(name, _)| name))
            }
        }
    )+};
}

named! {
    SendProxy { "false" No, "true" V1, "v1" V1, "v2" V2 }
    Steering { "auto" Auto, "ebpf" Ebpf, "listeners" Listeners }
    Mechanism { "adaptive" Adaptive, "splice" Splice, "copy" Copy }
    Conflict { "yield" Yield, "steal" Steal, "fail" Fail }
    Policy {
        "p2c" P2c, "rr" Rr, "wrr" Wrr, "random" Random, "ordered" Ordered, "lc" Lc, "wlc" Wlc,
        "sed" Sed, "nq" Nq, "fo" Fo, "ovf" Ovf, "twos" Twos, "sh" Sh, "mh" Mh,
    }
    Locality { "balance" Balance, "prefer" Prefer, "only" Only }
    Family { "any" Any, "ipv4" V4, "ipv6" V6 }
    Unmapped { "auto" Auto, "steer" Steer, "refuse" Refuse }
    OverLimit { "refuse" Refuse, "close" Close }
    ProxyMode { "detect" Detect, "require" Require, "never" Never }
    LogLevel { "error" Error, "warn" Warn, "info" Info, "debug" Debug, "trace" Trace }
    LogFormat { "text" Text, "json" Json }
    BpfLog { "off" Off, "error" Error, "warn" Warn, "info" Info, "debug" Debug }
}

/// The value of a name, in any case of letters.
pub(super) fn by_name<T: Named>(name: &str) -> Option<T> {
    T::NAMES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| *value)
}

/// The names as a message lists them: `a, b or c`.
pub(super) fn names<T: Named>() -> String {
    let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
    list(&names)
}

/// Words as a message lists them: `a, b or c`.
pub(super) fn list(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
        None => String::new(),
    }
}

/// The hint for a word that names no value.
pub(super) fn hint_of<T: Named>(word: &str) -> Hint {
    hint(T::NAMES.iter().map(|(name, _)| *name), word)
}

pub(super) fn choice<T: Named>(value: Field<'_>, findings: &mut Findings<'_>) -> Option<T> {
    let chosen = by_name(value.text);
    if chosen.is_none() {
        let names = names::<T>();
        let hint = hint_of::<T>(value.text);
        findings.error(
            value.place,
            format_args!("expected {names}, found {value}{hint}"),
        );
    }
    chosen
}

/// A number of digits alone: `parse` would also take a leading `+`.
pub(super) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// A port that can be reached: 1-65535.
pub(super) fn port(value: Field<'_>, findings: &mut Findings<'_>) -> Option<u16> {
    let port = number(value.text).filter(|port| *port > 0);
    if port.is_none() {
        let found = format_args!("expected a port (1-65535), found {value}");
        findings.error(value.place, found);
    }
    port
}

/// A port, or `none`, which is 0.
pub(super) fn proxy_port(value: Field<'_>, findings: &mut Findings<'_>) -> Option<u16> {
    if value.text.eq_ignore_ascii_case(NONE) {
        return Some(0);
    }
    port(value, findings)
}

pub(super) fn show_proxy_port(port: u16) -> String {
    match port {
        0 => NONE.to_owned(),
        port => port.to_string(),
    }
}

/// A list of [`ports`], or `none`.
pub(super) fn cluster_ports(value: Field<'_>, findings: &mut Findings<'_>) -> Option<PortSet> {
    if value.text.eq_ignore_ascii_case(NONE) {
        return Some(PortSet::new());
    }
    ports(value, findings)
}

pub(super) fn show_cluster_ports(ports: &PortSet) -> String {
    if ports.is_empty() {
        return NONE.to_owned();
    }
    ports.to_string()
}

/// A number of worker threads, or `auto`.
pub(super) fn workers(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Workers> {
    if value.text.eq_ignore_ascii_case(AUTO) {
        return Some(Workers::PerCpu);
    }
    let workers = number(value.text).filter(|workers: &NonZeroU16| workers.get() <= MAX_WORKERS);
    if workers.is_none() {
        let expected = format_args!("expected auto or a number of threads (1-{MAX_WORKERS})");
        findings.error(value.place, format_args!("{expected}, found {value}"));
    }
    workers.map(Workers::Count)
}

/// `auto`, a number of connections, or 0 for no limit.
pub(super) fn max_conn(value: Field<'_>, findings: &mut Findings<'_>) -> Option<MaxConn> {
    if value.text.eq_ignore_ascii_case(AUTO) {
        return Some(MaxConn::Auto);
    }
    let count = number::<u32>(value.text);
    if count.is_none() {
        let expected = "expected auto or a number of connections";
        findings.error(value.place, format_args!("{expected}, found {value}"));
    }
    count.map(|count| NonZeroU32::new(count).map_or(MaxConn::Unlimited, MaxConn::Count))
}

pub(super) fn show_max_conn(limit: MaxConn) -> String {
    match limit {
        MaxConn::Auto => AUTO.to_owned(),
        MaxConn::Unlimited => "0".to_owned(),
        MaxConn::Count(count) => count.to_string(),
    }
}

pub(super) fn show_workers(workers: Workers) -> String {
    match workers {
        Workers::PerCpu => AUTO.to_owned(),
        Workers::Count(workers) => workers.to_string(),
    }
}

/// A list of ports and ranges, both ends included.
pub(super) fn ports(value: Field<'_>, findings: &mut Findings<'_>) -> Option<PortSet> {
    let mut ports = PortSet::new();
    let mut good = true;
    for part in value.split(|c| c == ',' || is_blank(c)) {
        let (first, last) = part.text.split_once('-').unwrap_or((part.text, part.text));
        match (number::<u16>(first), number::<u16>(last)) {
            (Some(first), Some(last)) if first > last => {
                let turned = format_args!("range runs backwards: write `{last}-{first}`");
                findings.error(part.place, turned);
                good = false;
            }
            (Some(first @ 1..), Some(last)) => ports.insert_range(first, last),
            _ => {
                let expected = "expected a port (1-65535) or a range such as 1024-29999";
                findings.error(part.place, format_args!("{expected}, found {part}"));
                good = false;
            }
        }
    }
    good.then_some(ports)
}

/// `500ms`, `3s`, `5m`, `1h`, or 0.
pub(super) fn duration(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Duration> {
    let digits = value.text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = value.text.split_at_checked(digits)?;
    let unit = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "" if number(count) == Some(0_u64) => Some(0),
        _ => None,
    };
    let Some((unit, false)) = unit.map(|unit| (unit, count.is_empty())) else {
        let expected = "expected a duration such as 500ms, 3s or 5m";
        findings.error(value.place, format_args!("{expected}, found {value}"));
        return None;
    };
    let millis = number::<u64>(count).and_then(|count| count.checked_mul(unit));
    let duration = millis.map(Duration::from_millis);
    let short = duration.filter(|duration| *duration <= MAX_DURATION);
    if short.is_none() {
        let hours = MAX_DURATION.as_secs() / 3600;
        let message = format_args!("expected a duration of at most {hours}h, found {value}");
        findings.error(value.place, message);
    }
    short
}

/// A duration that is not 0.
pub(super) fn some_duration(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Duration> {
    let duration = duration(value, findings)?;
    if duration.is_zero() {
        let message = "0 is not off here: expected a duration such as 500ms, 3s or 5m";
        findings.error(value.place, message);
        return None;
    }
    Some(duration)
}

/// A [`duration`] in the range of the kernel's keepalive timer, which counts whole seconds.
pub(super) fn keepalive(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Duration> {
    let silence = duration(value, findings)?;
    if silence.is_zero() || (Duration::from_secs(1)..=MAX_KEEPALIVE).contains(&silence) {
        return Some(silence);
    }
    let most = MAX_KEEPALIVE.as_secs();
    let message = format_args!("expected 1s to {most}s, or 0 for none, found {value}");
    findings.error(value.place, message);
    None
}

/// The duration for the keys for which 0 is off.
pub(super) fn unless_off(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// A duration in the shortest form that [`duration`] takes.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        // 60s is said more often than 1m.
        _ if millis.is_multiple_of(60_000) && millis > 60_000 => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// `hosts`, `local`, `any`, networks: those who may use PORT.
pub(super) fn peers(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Peers> {
    let (mut hosts, mut local, mut any) = (false, false, false);
    let parts = value.split(|c| c == ',' || is_blank(c)).filter(|part| {
        let named = [
            ("hosts", &mut hosts),
            ("local", &mut local),
            ("any", &mut any),
        ];
        let named = named
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(part.text));
        named.map(|(_, said)| *said = true).is_none()
    });
    let expected = "hosts, local, any or a network such as 10.0.0.0/8";
    let named = ["hosts", "local", "any"];
    let networks = networks(parts, expected, &named, findings)?;
    if any && (hosts || local || !networks.is_empty()) {
        // A list of networks is written as protection.
        let message = "`any` allows every peer: hosts and networks have no effect beside it";
        findings.error(value.place, message);
        return None;
    }
    Some(Peers {
        hosts,
        any,
        local,
        networks,
    })
}

/// The networks of a list; `None` where one of them is wrong. `words` may stand beside them.
pub(super) fn networks<'a>(
    parts: impl Iterator<Item = Field<'a>>,
    expected: &str,
    words: &[&'static str],
    findings: &mut Findings<'_>,
) -> Option<Vec<IpNet>> {
    let mut networks = Vec::new();
    let mut good = true;
    for part in parts {
        let Some(network) = network(part.text) else {
            let hint = hint(words.iter().copied(), part.text);
            findings.error(
                part.place,
                format_args!("expected {expected}, found {part}{hint}"),
            );
            good = false;
            continue;
        };
        if network != network.trunc() {
            let meant = network.trunc();
            let message = format_args!("{part} has bits beyond its length: {meant} is used");
            findings.warning(part.place, message);
        }
        if networks.len() == MAX_NETWORKS {
            let message = format_args!("more than {MAX_NETWORKS} networks");
            findings.error(part.place, message);
            return None;
        }
        networks.push(network.trunc());
    }
    good.then_some(networks)
}

/// `10.0.0.0/8`, `fd00::/8`, `[fd00::]/8`, or an address.
fn network(text: &str) -> Option<IpNet> {
    let Some((ip, length)) = text.split_once('/') else {
        return ip(text).map(IpNet::from);
    };
    let inner = without_brackets(ip)?;
    format!("{inner}/{length}").parse().ok()
}

/// An address; one of IPv6 may be in brackets.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = without_brackets(text)?.parse().ok()?;
    Some(ip.to_canonical())
}

/// The address of IPv6 that is in brackets, or the text as it is; `None`: something else is in brackets.
fn without_brackets(text: &str) -> Option<&str> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(inner),
        None => Some(text),
    }
}

pub(super) fn show_peers(peers: &Peers) -> String {
    let named = [
        (peers.hosts, "hosts"),
        (peers.local, "local"),
        (peers.any, "any"),
    ];
    let named = named.into_iter().filter(|(said, _)| *said);
    let named = named.map(|(_, name)| name.to_owned());
    let networks = peers.networks.iter().map(ToString::to_string);
    named.chain(networks).collect::<Vec<_>>().join(",")
}

/// Name of a cluster: part of a key of etcd, in which a slash would make another folder.
#[expect(
    clippy::option_option,
    reason = "the outer `None` is a finding, the inner one is `none`"
)]
pub(super) fn cluster(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Option<Box<str>>> {
    if value.text.eq_ignore_ascii_case(NONE) {
        return Some(None);
    }
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if value.text.len() > MAX_CLUSTER || !value.text.chars().all(is_good) {
        let expected = format_args!(
            "expected a name of at most {MAX_CLUSTER} letters, digits, `-`, `.` and `_`, found {value}"
        );
        findings.error(value.place, expected);
        return None;
    }
    Some(Some(value.text.into()))
}

/// An address, or a name that may have one: brackets off, syntax checked.
///
/// Errors: what was expected, for a finding.
pub(super) fn host_name(text: &str) -> Result<&str, &'static str> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Some(inner) = inner {
        let ipv6 = inner.parse::<std::net::Ipv6Addr>().is_ok();
        return ipv6.then_some(inner).ok_or("an IPv6 address in brackets");
    }
    let numeric = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let named = !numeric
        && !text.is_empty()
        && text.len() <= MAX_NAME
        && !text.starts_with(['-', '.'])
        && !text.contains("..")
        && text.bytes().all(in_name);
    if text.parse::<IpAddr>().is_ok() || named {
        return Ok(text);
    }
    Err(if numeric {
        "an IPv4 address"
    } else {
        "a name or an address"
    })
}

/// The address of a [`host_name`]: the first IPv4 one, else the first IPv6 one.
///
/// Errors: why there is none, for a finding.
pub(super) fn address(name: &str, world: &World<'_>) -> Result<IpAddr, String> {
    let found = addresses(name, world)?;
    found.first().copied().ok_or_else(|| NO_ADDRESS.to_owned())
}

pub(super) const NO_ADDRESS: &str = "has no address";

/// The addresses of a [`host_name`], at least one: those of IPv4, then those of IPv6.
///
/// Errors: why there is none, for a finding.
pub(super) fn addresses(name: &str, world: &World<'_>) -> Result<Box<[IpAddr]>, String> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok([ip.to_canonical()].into());
    }
    let found = (world.resolve)(name).map_err(|error| format!("does not resolve: {error}"))?;
    let kept = kept(&found);
    if kept.is_empty() {
        return Err(NO_ADDRESS.to_owned());
    }
    Ok(kept)
}

/// The addresses of a name that are used: those of IPv4, then those of IPv6, each once.
pub(super) fn kept(found: &[IpAddr]) -> Box<[IpAddr]> {
    let mut kept: Vec<IpAddr> = Vec::new();
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        // Each has room of its own: what comes and goes in one family must not touch the other.
        let most = kept.len() + MAX_ADDRS;
        for ip in found.iter().map(IpAddr::to_canonical).filter(family) {
            if kept.len() < most && !kept.contains(&ip) {
                kept.push(ip);
            }
        }
    }
    kept.into()
}
