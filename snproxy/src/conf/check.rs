//! What only shows when the files are read together, and beside the host they are for.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::admin;
use super::apps;
use super::keys::Draft;
use super::text::{Field, Findings};
use super::value::{address, host_name, show_proxy_port};
use super::{Conf, HostAddr, Mapping, Origin, PortConf, ProxyMode, SendProxy, Steering, World};
use crate::addr::PortSet;
use crate::diag::{Place, Severity, printable};

/// Longest value the kernel takes in one write to `ip_local_reserved_ports`: it cuts at a page.
const MAX_RESERVED: usize = 4095;

/// The findings of each file, while the checks go across them.
pub(super) struct All<'a> {
    pub(super) proxy: Findings<'a>,
    pub(super) hosts: Findings<'a>,
    pub(super) mappings: Findings<'a>,
    pub(super) apps: Findings<'a>,
}

impl World<'_> {
    pub(super) fn owns(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || ip.is_unspecified() || (self.is_local)(ip)
    }
}

/// Settles HOST and PODHOST; `None` where there is no HOST to serve on.
pub(super) fn addresses(draft: Draft<'_>, world: &World<'_>, all: &mut All<'_>) -> Option<Conf> {
    let Draft {
        mut conf,
        host,
        pod_host,
    } = draft;
    let served = match host {
        Some(field) => written(field, world, &mut all.proxy),
        None => own_line(&mut conf, all),
    };
    conf.host_is_derived = host.is_none();
    let dialled = match pod_host {
        Some(field) => written(field, world, &mut all.proxy),
        None => served,
    };
    conf.host = served?;
    if !world.owns(conf.host) {
        let message = format!(
            "{} is no address of this host: nothing can be served on it",
            conf.host
        );
        // The kernel may allow a foreign address (ip_nonlocal_bind).
        let severity = match world.can_bind.map(|can_bind| can_bind(conf.host)) {
            Some(Err(_)) => Severity::Error,
            Some(Ok(())) | None => Severity::Warning,
        };
        match (host, conf.hosts.first()) {
            (Some(field), _) => {
                let Place { line, col, .. } = field.place;
                all.proxy.at(severity, line, col, message);
            }
            (None, Some(HostAddr { line, col, .. })) => {
                let message = format!(
                    "{message}; set HOST in {}",
                    printable(&conf.files.proxy.to_string_lossy())
                );
                all.hosts.at(severity, *line, *col, message);
            }
            (None, None) => {}
        }
    }
    conf.pod_host = default_pod_host(dialled.unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
    conf.place_hosts();
    apps::resolve(&mut conf, world, &mut all.apps);
    let is_wrong = said_at(&conf, "ETCD").is_some_and(|line| all.proxy.is_wrong(line));
    if conf.etcd.is_some() || !is_wrong {
        apps::discover(&mut conf, world, &mut all.apps);
    }
    apps::keep_family(&mut conf.apps, conf.family, &mut all.apps);
    conf.own = own(&conf, world);
    Some(conf)
}

/// Addresses of pods and targets that are this host's.
fn own(conf: &Conf, world: &World<'_>) -> Box<[IpAddr]> {
    let targets = conf.apps.iter().flat_map(|app| &app.targets);
    let targets = targets.flat_map(|target| target.addrs.iter().copied());
    let mut ips: Vec<IpAddr> = targets.chain([conf.pod_host]).collect();
    ips.sort_unstable();
    ips.dedup();
    ips.retain(|ip| world.owns(*ip));
    ips.into()
}

/// Where pods are dialled if PODHOST does not say: HOST, or loopback for a wildcard, which is no place to dial.
pub fn default_pod_host(host: IpAddr) -> IpAddr {
    // Also for `::`: pods listen on IPv4 unless told otherwise.
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if host.is_unspecified() {
        loopback
    } else {
        host
    }
}

fn written(field: Field<'_>, world: &World<'_>, findings: &mut Findings<'_>) -> Option<IpAddr> {
    let found = match host_name(field.text) {
        Ok(name) => address(name, world).map_err(|why| format!("{field} {why}")),
        Err(expected) => Err(format!("expected {expected}, found {field}")),
    };
    match found {
        Ok(ip) => Some(ip),
        Err(message) => {
            findings.error(field.place, message);
            None
        }
    }
}

/// HOST where it is not set: the line with a local address and PORT, of several line 1 first; else line 1, which is this
/// host as Simplenetes writes the file.
fn own_line(conf: &mut Conf, all: &mut All<'_>) -> Option<IpAddr> {
    let Some(first) = conf.hosts.first() else {
        let message = "no address to serve on: expected this host on line 1, or HOST in proxy.conf";
        all.hosts.whole(Severity::Error, message);
        return None;
    };
    let ours = |host: &&HostAddr| {
        let is_loopback = host.ip().is_some_and(|ip| ip.is_loopback());
        host.is_local && host.port == conf.port && !is_loopback
    };
    let own = if first.is_local && first.port == conf.port {
        first
    } else {
        conf.hosts.iter().find(ours).unwrap_or(first)
    };
    if own.ip().is_none() {
        let message = "no address to serve on: HOST is not set and this does not resolve";
        all.hosts.at(Severity::Error, own.line, own.col, message);
    }
    let place = format!(
        "{}:{}",
        printable(&conf.files.hosts.to_string_lossy()),
        own.line
    );
    conf.origins.push(Origin {
        key: "HOST",
        place,
        ports: None,
    });
    own.ip()
}

/// Findings that take the whole configuration, and what follows from them.
pub(super) fn across(conf: &mut Conf, world: &World<'_>, all: &mut All<'_>) {
    waits(conf, all);
    unlisted(conf, all);
    apart(conf, all);
    if let Some(this) = conf.this_host.and_then(|at| conf.hosts.get(at))
        && this.port != conf.port
    {
        let message = format_args!(
            "other hosts reach this one at port {}, but PORT is {}: set PORT, or put this host first",
            this.port,
            show_proxy_port(conf.port)
        );
        all.hosts
            .at(Severity::Warning, this.line, this.col, message);
    }
    no_own_line(conf, all);
    own_for_clients(conf, all);
    unreached(conf, all);
    behind_tls(conf, all);
    unpublished(conf, all);
    idle(conf, all);
    apps::claimed_elsewhere(conf, &mut all.apps);
    for port in conf.apps.iter().flat_map(apps::App::ports) {
        conf.cluster_ports.insert(port);
    }
    let steered = steered(conf);
    admin::clashes(conf, &steered, &mut all.proxy);
    metrics_addresses(conf, world, all);
    loops(conf, &steered, all);
    apps::loops(conf, &steered, &mut all.apps);
    ephemeral(conf, &steered, world, all);
}

/// Ports whose clients must send a header and have no time to.
fn waits(conf: &Conf, all: &mut All<'_>) {
    let in_vain =
        |kind: &PortConf| kind.client_proxy.mode == ProxyMode::Require && kind.proxy_wait.is_zero();
    let message =
        "CLIENTPROXY require needs a PROXYWAIT: with 0 no client has time to send its header";
    at_fault("CLIENTPROXY", in_vain, message, conf, all);
}

/// Ports with CLIENTTLS whose clients must send a header that is read from listed networks only.
fn unlisted(conf: &Conf, all: &mut All<'_>) {
    let is_unlisted = |kind: &PortConf| {
        let rule = &kind.client_proxy;
        let is_listed = !rule.private && !rule.networks.is_empty();
        rule.mode == ProxyMode::Require && !is_listed && kind.client_tls.is_some()
    };
    let message = "CLIENTPROXY require needs networks, without `private`, on a port with \
                   CLIENTTLS, such as `require 10.0.0.0/8`: a header ahead of TLS is read from \
                   listed networks only";
    at_fault("CLIENTPROXY", is_unlisted, message, conf, all);
    let is_in_vain = |kind: &PortConf| {
        let rule = &kind.client_proxy;
        rule.mode == ProxyMode::Detect && rule.is_for_all() && kind.client_tls.is_some()
    };
    let message = "CLIENTPROXY detect reads no header on a port with CLIENTTLS: a header ahead of \
                   TLS is read from listed networks only, such as `detect 10.0.0.0/8`";
    find_at(
        (Severity::Warning, "CLIENTPROXY"),
        is_in_vain,
        message,
        conf,
        all,
    );
}

/// Ports of an address of their own, which only ordinary sockets can have: what is steered is of HOST.
fn apart(conf: &Conf, all: &mut All<'_>) {
    if conf.steering == Steering::Listeners {
        return;
    }
    let is_apart = |kind: &PortConf| kind.bind.is_some_and(|ip| ip != conf.host);
    let message = "BIND needs `STEERING listeners`: steered ports are those of HOST";
    at_fault("BIND", is_apart, message, conf, all);
}

/// An error at each place where `key` was said for a kind of ports with which something is wrong.
fn at_fault(
    key: &str,
    is_wrong: impl Fn(&PortConf) -> bool,
    message: &str,
    conf: &Conf,
    all: &mut All<'_>,
) {
    find_at((Severity::Error, key), is_wrong, message, conf, all);
}

/// A finding at each of such places.
fn find_at(
    (severity, key): (Severity, &str),
    is_wrong: impl Fn(&PortConf) -> bool,
    message: &str,
    conf: &Conf,
    all: &mut All<'_>,
) {
    let mut said = HashSet::new();
    for (port, _) in conf.ports.kinds().filter(|(_, kind)| is_wrong(kind)) {
        // In the order in which they came into force.
        let origins = conf.origins.iter().rev();
        let mut origins = origins.filter(|origin| origin.holds_for(port));
        let Some(origin) = origins.find(|origin| origin.key == key) else {
            continue;
        };
        let Some((file, line)) = origin.place.rsplit_once(':') else {
            continue;
        };
        let line: u32 = line.parse().unwrap_or(1);
        let is_proxy = file == printable(&conf.files.proxy.to_string_lossy());
        let app = conf
            .apps
            .iter()
            .find(|app| app.ports().any(|it| it == port));
        let (findings, line, col) = match app {
            Some(app) if !is_proxy => (&mut all.apps, app.line, app.col),
            _ => (&mut all.proxy, line, 1),
        };
        if said.insert((is_proxy, line, col)) {
            findings.at(severity, line, col, message);
        }
    }
}

/// Ports of mappings and apps that are steered.
fn steered(conf: &Conf) -> PortSet {
    let mapped = conf
        .mappings
        .iter()
        .map(|mapping| mapping.cluster_port.get());
    mapped
        .chain(conf.apps.iter().flat_map(apps::App::ports))
        .filter(|port| *port != conf.port && conf.cluster_ports.contains(*port))
        .collect()
}

/// Mappings whose connections would come back to us.
fn loops(conf: &Conf, steered: &PortSet, all: &mut All<'_>) {
    let pod_host = conf.pod_host;
    for mapping in &conf.mappings {
        let port = mapping.host_port.get();
        if !conf.comes_back(pod_host, port) {
            continue;
        }
        let what = if port == conf.port {
            "PORT"
        } else if steered.contains(port) {
            "a cluster port served here"
        } else {
            continue;
        };
        let message = format_args!(
            "host port {port} at {pod_host} is {what}: its connections would come back to this proxy; use another host port or PODHOST"
        );
        all.mappings
            .at(Severity::Error, mapping.line, mapping.col, message);
    }
}

/// A host that the others cannot be told of.
fn unpublished(conf: &Conf, all: &mut All<'_>) {
    let is_alone = conf.port == 0 || conf.etcd.is_none() || conf.cluster.is_none();
    if is_alone || conf.mappings.is_empty() || conf.published_as().is_some() {
        return;
    }
    let line = said_at(conf, "ETCD");
    let message = "no other host is told what this one serves: HOST is no address at which it is reached, and hosts.conf \
                   does not name this host";
    all.proxy
        .at(Severity::Warning, line.unwrap_or(1), 1, message);
}

/// A hosts.conf that lists other hosts only.
fn no_own_line(conf: &Conf, all: &mut All<'_>) {
    let (None, Some(first)) = (conf.this_host, conf.hosts.first()) else {
        return;
    };
    let lines = match conf.hosts.len() {
        1 => "the line is a peer".to_owned(),
        lines => format!("all {lines} lines are peers"),
    };
    let message = format_args!(
        "no line has an address of this host and port {}: {lines}",
        show_proxy_port(conf.port)
    );
    all.hosts
        .at(Severity::Warning, first.line, first.col, message);
}

/// Hosts that would be this one, by way of a port that its clients open.
fn own_for_clients(conf: &Conf, all: &mut All<'_>) {
    for host in conf.own_for_clients() {
        let message = format_args!(
            "port {} of this host is one of its cluster ports: connections would come back to this proxy; ignored",
            host.port
        );
        all.hosts
            .at(Severity::Warning, host.line, host.col, message);
    }
}

/// The line of proxy.conf that says a key of the process.
fn said_at(conf: &Conf, key: &str) -> Option<u32> {
    let origin = conf.origins.iter().find(|origin| origin.key == key)?;
    origin.place.rsplit_once(':')?.1.parse().ok()
}

/// Addresses of metrics that no socket can have: with them the proxy does not start.
fn metrics_addresses(conf: &Conf, world: &World<'_>, all: &mut All<'_>) {
    let Some(can_bind) = world.can_bind else {
        return;
    };
    let line = said_at(conf, "ADMIN").unwrap_or(1);
    for addr in &conf.admin.addrs {
        if let Err(error) = can_bind(addr.ip()) {
            let message = format_args!("expected an address of this host, found {addr}: {error}");
            all.proxy.at(Severity::Error, line, 1, message);
        }
    }
}

/// Keys that do nothing, for want of another one.
fn idle(conf: &Conf, all: &mut All<'_>) {
    // The default may be written out.
    let is_unnamed = matches!(conf.cluster.as_deref(), None | Some("default"));
    let is_published = conf.etcd.is_some() || is_unnamed;
    let is_reached = conf.port != 0 || conf.peer_tls.is_none();
    for (key, does_something, message) in [
        ("CLUSTER", is_published, "CLUSTER does nothing without ETCD"),
        (
            "PEERTLS",
            is_reached,
            "PEERTLS does nothing where PORT is none",
        ),
    ] {
        if let Some(line) = said_at(conf, key).filter(|_| !does_something) {
            all.proxy.at(Severity::Warning, line, 1, message);
        }
    }
}

/// Mappings whose cluster port is never steered.
fn unreached(conf: &Conf, all: &mut All<'_>) {
    for mapping in &conf.mappings {
        let port = mapping.cluster_port;
        let why = if port.get() == conf.port {
            "is PORT"
        } else if conf.cluster_ports.contains(port.get()) {
            continue;
        } else {
            "is not in CLUSTERPORTS"
        };
        let message = format_args!("cluster port {port} {why}: no client reaches it");
        all.mappings
            .at(Severity::Warning, mapping.line, mapping.col, message);
    }
}

/// The first mapping whose pod hears of another host's clients before TLS, and so before their own bytes.
fn behind_tls(conf: &Conf, all: &mut All<'_>) {
    if conf.other_hosts().next().is_none() {
        return;
    }
    let is_behind = |mapping: &&Mapping| {
        let port = conf.of_port(mapping.cluster_port.get());
        port.upstream_tls.is_some() && mapping.send_proxy != SendProxy::No
    };
    if let Some(mapping) = conf.mappings.iter().find(is_behind) {
        let message = "UPSTREAMTLS: a PROXY header goes ahead of the handshake, so that for clients of other hosts it is \
             made here: of IPv4 addresses, or it names nobody; a header that the client sent is not passed on";
        all.mappings
            .at(Severity::Warning, mapping.line, mapping.col, message);
    }
}

/// One warning for all mapped ports that the kernel may also pick as source ports: a local client
/// whose connection gets the port it connects to is connected to itself.
fn ephemeral(conf: &Conf, steered: &PortSet, world: &World<'_>, all: &mut All<'_>) {
    let Some((first, last)) = world.ephemeral else {
        return;
    };
    // The kernel does not pick a port on which a socket listens.
    if conf.steering == Steering::Listeners {
        return;
    }
    let at_risk = |port: u16| {
        (first..=last).contains(&port) && steered.contains(port) && !world.reserved.contains(port)
    };
    let mut risky = conf
        .mappings
        .iter()
        .filter(|mapping| at_risk(mapping.cluster_port.get()));
    let mapping = risky.next();
    let mut ranges = conf.apps.iter().flat_map(|app| &app.ports);
    let app = ranges.find(|range| (range.first..=range.last).any(at_risk));
    if mapping.is_none() && app.is_none() {
        return;
    }
    let count = steered.iter().filter(|port| at_risk(*port)).count();
    let reserve: PortSet = steered
        .iter()
        .filter(|port| at_risk(*port))
        .chain(world.reserved.iter())
        .collect();
    let reserve = reserve.to_string();
    let message = if reserve.len() <= MAX_RESERVED {
        format!("reserve with `net.ipv4.ip_local_reserved_ports={reserve}`")
    } else {
        format!(
            "the list is too long for net.ipv4.ip_local_reserved_ports ({MAX_RESERVED} characters): use adjacent cluster ports"
        )
    };
    let ports = if count == 1 { "port is" } else { "ports are" };
    let message = format!(
        "{count} served cluster {ports} in net.ipv4.ip_local_port_range ({first}-{last}): local clients can connect to themselves; {message}"
    );
    match (mapping, app) {
        (Some(at), _) => all.mappings.at(Severity::Warning, at.line, at.col, message),
        (None, Some(at)) => all.apps.at(Severity::Warning, at.line, at.col, message),
        (None, None) => {}
    }
}
