//! The apps file: `{"Apps":[{"Name":"echo","Ports":[5001,"5300-5399"],"Targets":["echo.example:5001"]}]}`.
//!
//! Names of fields are found in any case of letters, as Go's encoding/json does, for which these files were written.

mod fields;
mod json;
mod read;
mod srv;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;

use super::text::Findings;
use super::value::{NO_ADDRESS, kept};
use super::{Conf, Family, SendProxy, World};
use crate::addr::PortSet;
use crate::diag::{Severity, printable};

pub(super) use read::read;
pub(super) use srv::discover;
pub use srv::{MAX_NODES, Srv};

/// Largest apps file, in bytes.
pub const MAX_FILE: usize = 4 * 1024 * 1024;

/// Most apps of one file.
pub(in crate::conf) const MAX_APPS: usize = 1024;

/// Most items in the port list of one app.
pub(in crate::conf) const MAX_PORT_ITEMS: usize = 65_535;

/// Most targets of one app.
pub(in crate::conf) const MAX_TARGETS: usize = 1024;

/// Most targets of one file.
pub(in crate::conf) const MAX_ALL_TARGETS: usize = 4096;

/// Longest name of an app, in bytes.
pub(in crate::conf) const MAX_NAME: usize = 255;

/// Highest weight. Source: HAProxy's `weight`, which is what most lists of targets were made for.
pub(in crate::conf) const MAX_WEIGHT: u32 = 256;

/// Ports and the targets that every one of them reaches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct App {
    /// No two apps have the same.
    pub name: Box<str>,
    /// At least one; no port is in two of them, of whichever app.
    pub ports: Vec<PortRange>,
    /// At least one, unless `srv` names them; no two with the same address as written.
    pub targets: Vec<Target>,
    /// The service whose nodes the targets are; `None`: they stand in the file.
    pub srv: Option<Srv>,
    pub line: u32,
    pub col: u32,
}

/// Adjacent ports of an app, and where they were said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    pub first: u16,
    /// Included.
    pub last: u16,
    pub line: u32,
    pub col: u32,
}

/// Where connections of an app go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// As written, without brackets: a name or an address.
    pub host: Box<str>,
    /// Where it is dialled; none for a name that does not resolve now.
    pub addrs: Box<[IpAddr]>,
    pub port: u16,
    /// Share of new connections beside the other targets; 0 takes none.
    pub weight: u32,
    /// Connections at once, at each address; 0: always busy.
    pub max_conn: u32,
    pub send_proxy: SendProxy,
    pub line: u32,
    pub col: u32,
}

impl App {
    /// All of its ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.iter().flat_map(|range| range.first..=range.last)
    }
}

impl Target {
    /// Whether it is written as a name.
    pub fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

/// As it is written: `host:port`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Finds the addresses of all targets that are written as names. One without any is a warning: the others serve.
pub(super) fn resolve(conf: &mut Conf, world: &World<'_>, findings: &mut Findings<'_>) {
    let (nets, family) = (conf.target_nets.clone(), conf.family);
    let apps = &mut conf.apps;
    let targets = apps.iter().flat_map(|app| &app.targets);
    let mut names: Vec<Box<str>> = targets
        .filter(|target| target.is_name())
        .map(|target| target.host.clone())
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return;
    }
    let asked: Vec<&str> = names.iter().map(|name| &**name).collect();
    let answers = (world.resolve_all)(&asked, family);
    let answers: HashMap<&str, _> = asked.into_iter().zip(answers).collect();
    for target in apps.iter_mut().flat_map(|app| &mut app.targets) {
        let Some(answer) = answers.get(&*target.host) else {
            continue;
        };
        let why = match answer {
            Ok(found) => {
                // Before the limit: what is left out must not crowd out the others.
                let dialled = found.iter().filter(|ip| nets.left_out(**ip).is_none());
                target.addrs = kept(&dialled.copied().collect::<Vec<_>>());
                let mut left_out = found
                    .iter()
                    .filter_map(|ip| Some((ip, nets.left_out(*ip)?)));
                match left_out.next() {
                    None => NO_ADDRESS.to_owned(),
                    Some((ip, why)) => {
                        let why = format!("resolves to {ip}, {why}");
                        if !target.addrs.is_empty() {
                            let message =
                                format_args!("`{}` {why}: the address is left out", target.host);
                            findings.at(Severity::Warning, target.line, target.col, message);
                        }
                        why
                    }
                }
            }
            Err(error) => format!("does not resolve: {error}"),
        };
        if target.addrs.is_empty() {
            let message = format_args!("`{}` {why}", target.host);
            findings.at(Severity::Warning, target.line, target.col, message);
        }
    }
}

/// Leaves the addresses of another family out; a target that has no others, once for each place in the file.
pub(super) fn keep_family(apps: &mut [App], family: Family, findings: &mut Findings<'_>) {
    let mut said = None;
    for target in apps.iter_mut().flat_map(|app| &mut app.targets) {
        let kept = target.addrs.iter().copied().filter(|ip| family.has(*ip));
        let kept: Box<[IpAddr]> = kept.collect();
        if kept.len() == target.addrs.len() {
            continue;
        }
        let place = (target.line, target.col);
        if kept.is_empty() && said.replace(place) != Some(place) {
            let message = format_args!("`{}` has no address of FAMILY {family}", target.host);
            findings.at(Severity::Warning, target.line, target.col, message);
        }
        target.addrs = kept;
    }
}

/// Ports of apps that belong to somebody else already: PORT, or a pod.
pub(super) fn claimed_elsewhere(conf: &Conf, findings: &mut Findings<'_>) {
    let ranges = conf.apps.iter().flat_map(|app| &app.ports);
    if conf.apps.is_empty() {
        return;
    }
    let mut mapped = vec![None; 65_536];
    for mapping in &conf.mappings {
        mapped[usize::from(mapping.cluster_port.get())].get_or_insert((mapping.line, mapping.col));
    }
    for range in ranges {
        let twice = |port: u16| {
            if port == conf.port {
                let said = conf.origins.iter().find(|origin| origin.key == "PORT");
                let said = said.map_or("its default", |origin| &origin.place);
                return Some(format!("port {port} is claimed twice: it is PORT ({said})"));
            }
            let (line, col) = mapped[usize::from(port)]?;
            let file = conf.files.mappings.to_string_lossy();
            Some(format!(
                "port {port} is claimed twice: a pod is mapped to it at {}:{line}:{col}",
                printable(&file)
            ))
        };
        if let Some(message) = (range.first..=range.last).find_map(twice) {
            findings.at(Severity::Error, range.line, range.col, message);
        }
    }
}

/// Targets whose connections would come back to us: an error where the address is written, and where a name has it or
/// etcd names it, an address that is left out.
pub(super) fn loops(conf: &mut Conf, steered: &PortSet, findings: &mut Findings<'_>) {
    let targets = conf.apps.iter().flat_map(|app| &app.targets);
    let addrs = targets.flat_map(|target| target.addrs.iter().map(|ip| (*ip, target.port)));
    let returning: HashSet<(IpAddr, u16)> = addrs
        .filter(|(ip, port)| conf.comes_back(*ip, *port))
        .collect();
    let proxy_port = conf.port;
    let targets = conf.apps.iter_mut().flat_map(|app| {
        let is_discovered = app.srv.is_some();
        let targets = app.targets.iter_mut();
        targets.map(move |target| (is_discovered, target))
    });
    for (is_discovered, target) in targets {
        let port = target.port;
        let what = if port == proxy_port {
            "PORT"
        } else if steered.contains(port) {
            "a port served here"
        } else {
            continue;
        };
        let comes_back = |ip: &IpAddr| returning.contains(&(*ip, port));
        let Some(ip) = target.addrs.iter().copied().find(comes_back) else {
            continue;
        };
        let back = "its connections would come back to this proxy";
        if is_discovered || target.is_name() {
            let message = if is_discovered {
                format!("port {port} at {ip} is {what}: {back}; the node is left out")
            } else {
                format!(
                    "`{}` resolves to {ip}, and port {port} there is {what}: {back}; the address is left out",
                    target.host
                )
            };
            findings.at(Severity::Warning, target.line, target.col, message);
            target.addrs = target
                .addrs
                .iter()
                .copied()
                .filter(|ip| !comes_back(ip))
                .collect();
        } else {
            let message = format_args!("port {port} at {ip} is {what}: {back}");
            findings.at(Severity::Error, target.line, target.col, message);
        }
    }
}
