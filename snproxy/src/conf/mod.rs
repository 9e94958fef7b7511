//! What the files say, as values.
//!
//! Pure: texts come in as [`Sources`], everything else that is asked as a [`World`]; nothing is
//! read, resolved or waited for here. All findings of all files come out of one run, each with its
//! place. Who reads the files is `discovery`; what is made of a [`Conf`] is up to `route` and `daemon`.

mod admin;
mod apps;
mod check;
mod client_proxy;
mod cluster;
mod etcd;
#[cfg(test)]
pub(crate) mod fixture;
mod hosts;
mod keys;
mod peer_tls;
mod port;
mod port_keys;
mod port_value;
mod portmappings;
mod proxy;
mod suggest;
mod target_nets;
mod text;
mod tls;
mod value;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::addr::{ClusterPort, HostPort, PortSet};
use crate::diag::{Parsed, Severity, Source};

use check::All;
use text::Findings;

pub use admin::{Admin, AdminSocket, says_socket};
pub use apps::{App, MAX_FILE as MAX_APPS_FILE, MAX_NODES, PortRange, Srv, Target};
pub use check::default_pod_host;
pub use client_proxy::{ClientProxy, HeaderRule};
pub use etcd::{Endpoint, Etcd, MAX_ENDPOINTS, NoEndpoint, parse_duration};
pub use hosts::{MAX_FILE as MAX_HOSTS_FILE, MAX_HOSTS};
pub use keys::{KeyDoc, explain, key_docs, markdown_table, nearest_key};
pub use peer_tls::PeerTls;
pub use port::{
    Balance, Check, Fate, Lifetime, Network, OverLimit, Persist, PortConf, PortConfs, Rate,
    SourceMaxConn, SourceRate,
};
pub use portmappings::{MAX_FILE as MAX_MAPPINGS_FILE, MAX_ITEMS};
pub use proxy::MAX_FILE as MAX_PROXY_FILE;
pub(crate) use proxy::ports_of_value;
pub use suggest::nearest;
pub use target_nets::{LeftOut, TargetNets};
pub use tls::{CertSource, CertTexts, ClientTls, ClientVerify, UpstreamTls, UpstreamVerify};

/// The texts of one set of files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sources {
    pub proxy: Source,
    /// `None`: the file does not exist.
    pub mappings: Option<Source>,
    /// `None`: the file does not exist.
    pub hosts: Option<Source>,
    /// `None`: the file does not exist, or none is named.
    pub apps: Option<Source>,
}

/// The addresses of a name, or why there are none.
pub type Answer = io::Result<Vec<IpAddr>>;

/// Finds the addresses of many names.
pub type ResolveAll<'a> = dyn Fn(&[&str], Family) -> Vec<Answer> + 'a;

/// The nodes of a service, in the order of their keys; `Err`: why nobody knows yet.
pub type Nodes = Result<Arc<[SocketAddr]>, String>;

/// Who knows the nodes of services.
pub type Discovered<'a> = dyn Fn(&Etcd, &[&str]) -> Vec<Nodes> + 'a;

/// All of a parse that is not in the files: given, never fetched.
pub struct World<'a> {
    /// Addresses of a name, in order of preference. May block: parse outside the runtime.
    pub resolve: &'a dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
    /// Addresses of many names in the families that are used, in the same order: all at once, for there may be thousands.
    pub resolve_all: &'a ResolveAll<'a>,
    /// The nodes of services, by their keys in etcd and in the same order. May block.
    pub discovered: &'a Discovered<'a>,
    /// Whether an address belongs to this host; asked of no wildcard and no loopback address.
    pub is_local: &'a dyn Fn(IpAddr) -> bool,
    /// `net.ipv4.ip_local_port_range`, both ends included.
    pub ephemeral: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved: PortSet,
    /// Whether unknown keys and fields are warnings rather than errors.
    pub ignore_unknown: bool,
    /// `Some`: what keeps a start from serving is an error. Returns whether a socket can be bound to an address.
    pub can_bind: Option<&'a dyn Fn(IpAddr) -> io::Result<()>>,
}

/// One valid set of files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conf {
    pub files: Files,
    /// Address on which PORT and the cluster ports are served; may be a wildcard.
    pub host: IpAddr,
    /// Proxy port: where proxies reach each other. 0: no other proxy is served.
    pub port: u16,
    /// Address of the pods of this host; no wildcard.
    pub pod_host: IpAddr,
    /// With the ports of the apps.
    pub cluster_ports: PortSet,
    /// In file order; no two have the same pair of ports.
    pub mappings: Vec<Mapping>,
    /// In file order. No port of theirs is that of a mapping.
    pub apps: Vec<App>,
    /// Addresses of pods and targets that are this host's; sorted.
    pub own: Box<[IpAddr]>,
    /// In file order, this host among them.
    pub hosts: Vec<HostAddr>,
    /// Whether HOST comes from hosts.conf.
    pub host_is_derived: bool,
    /// Which of `hosts` this host is; `None`: `hosts` has no line of this host.
    pub this_host: Option<usize>,
    /// Those of `hosts` that are [`other_hosts`](Self::other_hosts).
    pub others: Vec<usize>,
    /// All addresses of `hosts`, sorted.
    pub host_ips: Box<[IpAddr]>,
    /// Source address towards other hosts of its family: the one by which they know this host. `None`: the kernel's choice.
    pub dial_from: Option<IpAddr>,
    pub steering: Steering,
    pub workers: Workers,
    pub pump: Mechanism,
    pub conflict: Conflict,
    pub unmapped: Unmapped,
    /// Of clients where HOST is `::`, and of the targets of apps.
    pub family: Family,
    /// Connections at once, those that other proxies bring among them.
    pub max_conn: MaxConn,
    pub drain_timeout: Duration,
    /// Silence before the first probe; `None`: off.
    pub keepalive: Option<Duration>,
    pub peers: Peers,
    /// Of targets and hosts that no file names.
    pub target_nets: TargetNets,
    /// `None`: what proxies say to each other is plain.
    pub peer_tls: Option<Arc<PeerTls>>,
    /// What holds for the connections of each port.
    pub ports: PortConfs,
    /// `None`: there is none.
    pub etcd: Option<Arc<Etcd>>,
    /// The hosts of one cluster directory; `None`: this proxy has to do with none.
    pub cluster: Option<Box<str>>,
    pub admin: Admin,
    pub log_level: LogLevel,
    pub log_format: LogFormat,
    pub bpf_log: BpfLog,
    /// Of the keys that are not at their default, in the order of the file.
    pub origins: Vec<Origin>,
}

/// Where a value was said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    pub key: &'static str,
    /// `file:line`.
    pub place: String,
    /// Ports and value, where it is for some ports only.
    pub ports: Option<String>,
}

impl Origin {
    /// Whether what was said there is for this port too.
    pub(crate) fn holds_for(&self, port: u16) -> bool {
        let Some(said) = &self.ports else { return true };
        let covered = said.split(' ').next().unwrap_or("");
        covered.split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let range = first.parse::<u16>().ok().zip(last.parse().ok());
            range.is_some_and(|(first, last)| (first..=last).contains(&port))
        })
    }
}

impl Conf {
    /// What holds for the connections of a port.
    pub fn of_port(&self, port: u16) -> &Arc<PortConf> {
        self.ports.of(port)
    }

    /// MAXCONN in the words of whoever set it.
    pub fn name_of_max_conn(&self) -> &'static str {
        if self.files.proxy == Path::new(APPS_COMMAND) {
            "--max-workers (MAXCONN)"
        } else {
            "MAXCONN"
        }
    }
}

/// Stands for the proxy.conf of the command of this name, which nobody wrote.
pub const APPS_COMMAND: &str = "snproxy apps";

/// Paths of the files of one set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    pub proxy: PathBuf,
    pub mappings: PathBuf,
    pub hosts: PathBuf,
    /// `None`: no apps.
    pub apps: Option<PathBuf>,
}

/// One item of portmappings.conf: a pod that serves a cluster port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mapping {
    pub cluster_port: ClusterPort,
    pub host_port: HostPort,
    /// Connections at once; 0: always busy.
    pub max_conn: u32,
    pub send_proxy: SendProxy,
    pub line: u32,
    pub col: u32,
}

// 61,744 of them are normal.
const _: () = assert!(size_of::<Mapping>() <= 20);

/// Which PROXY header a pod wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SendProxy {
    /// None.
    No,
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// One line of hosts.conf: where a host's proxy is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostAddr {
    /// As written, without brackets: a name or an address.
    pub name: Box<str>,
    /// In the order of preference: those of IPv4, then those of IPv6; none for a name that does not resolve now.
    pub addrs: Box<[IpAddr]>,
    /// Whether the first of them belongs to this host.
    pub is_local: bool,
    pub port: u16,
    pub line: u32,
    pub col: u32,
}

/// How cluster ports come to the listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Steering {
    /// eBPF where it can attach, else listeners.
    Auto,
    Ebpf,
    Listeners,
}

/// Threads that serve connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workers {
    /// One per CPU that the process may use.
    PerCpu,
    Count(NonZeroU16),
}

/// Limit on all connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MaxConn {
    /// As many as the descriptors and the memory of the process allow.
    Auto,
    Unlimited,
    Count(NonZeroU32),
}

/// How bytes are moved between the two ends of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mechanism {
    /// Messages by `Copy`, bulk by `Splice`.
    Adaptive,
    Splice,
    Copy,
}

/// What happens to a cluster port that another local process listens on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Conflict {
    Yield,
    Steal,
    Fail,
}

/// How an upstream is picked; those of IPVS by IPVS's names.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Policy {
    /// The less loaded of two random ones.
    P2c,
    /// One after the other.
    Rr,
    /// One after the other, each as often as its weight says.
    Wrr,
    /// Any of them.
    Random,
    /// The first one that can take it.
    Ordered,
    /// Fewest connections.
    Lc,
    /// Fewest connections per weight.
    Wlc,
    /// Shortest expected delay.
    Sed,
    /// Never queue: an idle one, else as `Sed`.
    Nq,
    /// The highest weight that can take it.
    Fo,
    /// The highest weight until it has as many connections, then the next.
    Ovf,
    /// The less loaded of two drawn by weight.
    Twos,
    /// By the client's address.
    Sh,
    /// By the client's address, Maglev.
    Mh,
}

impl Policy {
    pub const ALL: &'static [Self] = &[
        Self::P2c,
        Self::Rr,
        Self::Wrr,
        Self::Random,
        Self::Ordered,
        Self::Lc,
        Self::Wlc,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Twos,
        Self::Sh,
        Self::Mh,
    ];
}

/// Which hosts' pods a client is carried to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Locality {
    /// All hosts share the load.
    Balance,
    /// Pods of this host while one has room.
    Prefer,
    /// Pods of this host and no others.
    Only,
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    pub fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => ip.to_canonical().is_ipv4(),
            Self::V6 => ip.to_canonical().is_ipv6(),
        }
    }
}

/// What happens to a cluster port that no pod of this host is mapped to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unmapped {
    /// Steered where another host may serve it, else left alone.
    Auto,
    Steer,
    Refuse,
}

/// Who may use PORT, beside this host itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peers {
    /// The addresses of hosts.conf.
    pub hosts: bool,
    /// Everybody.
    pub any: bool,
    /// Every program of this host, whoever runs it.
    pub local: bool,
    pub networks: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxyMode {
    /// A header is recognised by its first bytes.
    Detect,
    /// A client without a header is closed.
    Require,
    /// What looks like a header is payload.
    Never,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What the steering program logs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BpfLog {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

/// Reads a set of files: every finding in one run.
///
/// Shape: `None` where there is no address to serve on. A value with errors beside it is for
/// showing only.
pub fn parse(sources: &Sources, world: &World<'_>) -> Parsed<Option<Conf>> {
    let new = |source| Findings::lenient(source, world.ignore_unknown);
    let mut findings = new(&sources.proxy);
    let mut draft = proxy::read(&sources.proxy, &mut findings);
    let missing = |path: &PathBuf| Source {
        path: path.clone(),
        text: String::new(),
    };
    let no_hosts = missing(&draft.conf.files.hosts);
    let no_apps = missing(
        draft
            .conf
            .files
            .apps
            .as_ref()
            .unwrap_or(&sources.proxy.path),
    );
    let no_mappings = missing(&draft.conf.files.mappings);
    let mut all = All {
        proxy: findings,
        hosts: new(sources.hosts.as_ref().unwrap_or(&no_hosts)),
        mappings: new(sources.mappings.as_ref().unwrap_or(&no_mappings)),
        apps: new(sources.apps.as_ref().unwrap_or(&no_apps)),
    };
    match &sources.hosts {
        Some(source) => draft.conf.hosts = hosts::read(source, world, &mut all.hosts),
        // Without HOST that is an error, found where HOST is needed.
        None if draft.host.is_none() => {}
        None => {
            let (severity, named) = missing_file(&draft.conf, "HOSTSCONF", world);
            let message = format_args!("no such file{named}: no other hosts");
            all.hosts.whole(severity, message);
        }
    }
    if let Some(source) = &sources.mappings {
        draft.conf.mappings = portmappings::read(source, &mut all.mappings);
    } else {
        let (severity, named) = missing_file(&draft.conf, "PORTSCONF", world);
        let message = format_args!("no such file{named}: no mappings yet");
        all.mappings.whole(severity, message);
    }
    match &sources.apps {
        Some(source) => {
            let Conf { ports, origins, .. } = &mut draft.conf;
            draft.conf.apps = apps::read(source, ports, origins, &mut all.apps);
        }
        None if draft.conf.files.apps.is_none() => {}
        None => all.apps.whole(Severity::Error, "no such file"),
    }
    let folder = draft.conf.files.proxy.parent();
    let folder = folder.unwrap_or(Path::new("")).to_owned();
    draft.conf.ports.place_certs(&folder);
    let mut conf = check::addresses(draft, world, &mut all);
    if let Some(conf) = &mut conf {
        check::across(conf, world, &mut all);
    }
    let files = [all.proxy, all.hosts, all.mappings, all.apps];
    Parsed {
        value: conf,
        diagnostics: files.into_iter().flat_map(Findings::finish).collect(),
    }
}

/// Severity of a missing file, and the line that names it. `check` refuses a missing file that a key names; a start
/// waits for the file.
fn missing_file(conf: &Conf, key: &str, world: &World<'_>) -> (Severity, String) {
    let origin = conf.origins.iter().find(|origin| origin.key == key);
    match origin {
        None => (Severity::Warning, String::new()),
        Some(origin) => {
            let severity = match world.can_bind {
                Some(_) => Severity::Error,
                None => Severity::Warning,
            };
            (severity, format!(" ({key} in {})", origin.place))
        }
    }
}

/// Paths of the files that a proxy.conf names, relative to its own folder. Never fails: where
/// proxy.conf is wrong, [`parse`] says so.
pub fn files(proxy: &Source) -> Files {
    proxy::read(proxy, &mut Findings::new(proxy)).conf.files
}

/// One key of proxy.conf, as in effect.
///
/// Shape: prints as `KEY value  # origin: doc`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explained {
    pub key: &'static str,
    /// In the form in which proxy.conf takes it.
    pub value: String,
    /// `default` or `file:line`.
    pub origin: String,
    pub doc: &'static str,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            value,
            origin,
            doc,
        } = self;
        write!(f, "{key} {value}  # {origin}: {doc}")
    }
}

#[cfg(test)]
mod tests;
