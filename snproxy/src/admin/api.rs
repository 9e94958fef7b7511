//! What the control socket says, as JSON; the commands read the same types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `GET /configuration`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Configuration {
    /// The proxy.conf or apps file that the process runs with, absolute; none without a file.
    pub file: Option<String>,
}

/// `GET /status`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// `running` or `draining`.
    pub state: String,
    pub pid: u32,
    pub version: String,
    pub uptime_seconds: u64,
    /// Accepted configurations so far.
    pub generation: u64,
    /// `ebpf` or `listeners`.
    pub steering: String,
    pub host: String,
    pub port: u16,
    pub ports: PortCounts,
    pub hosts: HostCounts,
    /// None without ETCD.
    pub directory: Option<Directory>,
    pub connections: Connections,
    /// Ended connections by end.
    pub ends: BTreeMap<String, u64>,
    /// Outcomes counted in the kernel; none without eBPF.
    pub kernel: Option<Kernel>,
    pub reload: Reload,
    /// Why the kernel's ports are not as they should be; retried all the time.
    pub pending: Option<String>,
    /// Ports without an upstream that is up: `1024,2000-2009`; empty: none.
    pub all_out: String,
    /// Cluster ports on which other programs listen.
    #[serde(default)]
    pub conflicts: Conflicts,
    pub pods: Vec<PodStatus>,
    pub apps: Vec<App>,
    /// Configurations that were refused so far.
    #[serde(default)]
    pub refusals: u64,
    /// Those in use, by file.
    pub certificates: Vec<Certificate>,
    /// Where these come from.
    #[serde(default)]
    pub certificate_sources: Vec<CertificateSource>,
    /// What etcd said of the services of the apps.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Those in which somebody waits.
    pub queues: Vec<Queue>,
    /// Ports whose silent clients wait for PROXYWAIT, and PROXY headers delayed by that so far.
    #[serde(default)]
    pub header_delays: BTreeMap<u16, u64>,
    #[serde(default)]
    pub limits: Limits,
}

/// Mapped ports on which other programs listen, as in CLUSTERPORTS; empty: none.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Conflicts {
    /// The program listened before the mapping came into force, and has the port.
    pub held: String,
    pub held_ports: usize,
    /// The port is steered or refused: the program gets no connections.
    pub shadowed: String,
    pub shadowed_ports: usize,
}

/// What the whole process may have.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Limits {
    /// MAXCONN, also where it is `auto`; none: no limit.
    pub connections: Option<u32>,
    /// Open now; none where the kernel does not tell.
    pub descriptors_open: Option<u64>,
    /// None: there is no limit.
    pub descriptors: Option<u64>,
}

/// A certificate of this host, or of those whom it believes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Certificate {
    pub file: String,
    pub subject: String,
    /// Where it was said: a folder, `s3://bucket/prefix`, or files.
    #[serde(default)]
    pub source: String,
    /// The keys that ask for it: CLIENTTLS, UPSTREAMTLS, ETCD, PEERTLS.
    #[serde(default)]
    pub uses: Vec<String>,
    /// The last day on which it is good: `2026-11-21`, in UTC.
    pub expires: String,
    /// Its last second, in seconds since 1970.
    #[serde(default)]
    pub expires_at: i64,
    /// Negative: it has expired.
    pub seconds_left: i64,
}

/// A set of certificates, as CLIENTTLS and the like name one.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CertificateSource {
    pub source: String,
    /// What is wrong with what is there now, so that the last good ones stay in use.
    pub problem: Option<String>,
}

/// A service of etcd.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Service {
    pub key: String,
    /// None: etcd never answered.
    pub nodes: Option<usize>,
    /// Keys that are no `ip:port`.
    pub ignored: usize,
    /// etcd's, of the last change.
    pub revision: i64,
    /// Time since etcd last answered, where it does not.
    pub stale_ms: Option<u64>,
    pub why_stale: Option<String>,
}

/// Connections that wait for a place.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Queue {
    /// The limit that holds them up: `MAXCONN`, `PORTMAXCONN` or `maxConn`.
    #[serde(default)]
    pub limit: String,
    /// What they wait for, in words.
    pub what: String,
    /// In the order in which they will have one.
    pub waiting: Vec<Waiting>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Waiting {
    pub client: String,
    pub waited_ms: u64,
}

/// Cluster ports by what becomes of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PortCounts {
    pub steer: usize,
    /// They are to be steered, and their listeners could not be opened.
    #[serde(default)]
    pub closed: usize,
    pub refuse: usize,
    pub pass: usize,
    /// Of those that are refused: every pod of them is down.
    #[serde(default)]
    pub all_out: usize,
}

/// The other hosts by whether their proxies are reached.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HostCounts {
    pub up: usize,
    /// They said that they are about to end: they get no new connections.
    #[serde(default)]
    pub draining: usize,
    pub down: usize,
}

/// The cluster directory.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Directory {
    /// `current`, `stale` where etcd is not reached, `unread` where it never was.
    pub state: String,
    /// Time since etcd was last reached, where it is not.
    pub lost_ms: Option<u64>,
    pub cluster: String,
    /// The member of etcd that is asked.
    pub etcd: String,
    /// Other hosts that publish what they serve.
    pub hosts: usize,
    /// Ports that these serve.
    pub ports: usize,
    /// Hosts that publish at addresses outside TARGETNETS.
    #[serde(default)]
    pub left_out: usize,
    /// Nobody but those can serve a port: one that nobody publishes is refused.
    pub complete: bool,
    /// Where this host is reached, as it tells the others; none: it tells nothing.
    pub published_as: Option<String>,
    /// Whether all that it serves is there.
    pub published: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Connections {
    pub live: u64,
    /// Other proxies' connections that have not asked for anything yet.
    pub waiting: u64,
    /// Both, and those that have ended.
    pub total: u64,
}

/// The program's counters: lookups, of which one connection can take several.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Kernel {
    pub steered: u64,
    pub refused: u64,
    pub no_listener: u64,
    pub failed: u64,
    /// Refused because there were more than PORTRATE allows.
    pub limited: u64,
}

/// `POST /reload`, and how the last reload went in [`Status`].
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Reload {
    /// Whether the files as they are now are in force.
    pub ok: bool,
    /// They are good, and wait: for the kernel to take them, or for what else runs on the host.
    pub waiting: bool,
    pub generation: u64,
    /// Findings, one line each: `file:line:col: severity: message`.
    pub diagnostics: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PodStatus {
    pub cluster_port: u16,
    pub host_port: u16,
    pub upstream: String,
    pub active: u32,
    pub max_conn: u32,
    /// `false`, `v1` or `v2`.
    pub send_proxy: String,
    pub up: bool,
    pub health: Health,
}

/// What is known of an upstream besides whether it is up.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Health {
    /// HEALTH of its ports.
    pub check: String,
    /// Time since it went up or down; none: it never did.
    pub since_ms: Option<u64>,
    /// The last failure, or `passed its check`; none: neither was there.
    pub last: Option<String>,
    /// Time since then.
    pub last_ms: Option<u64>,
    /// Time until the next check; none: it listens on this host, where that is seen without one, or HEALTH is `passive`.
    pub next_check_ms: Option<u64>,
}

/// An app and its targets, in the order of the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct App {
    pub name: String,
    /// As in CLUSTERPORTS.
    pub ports: String,
    pub targets: Vec<Target>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Target {
    /// As written: `host:port`.
    pub target: String,
    pub weight: u32,
    /// Connections at once, at each address.
    pub max_conn: u32,
    /// `false`, `v1` or `v2`.
    pub send_proxy: String,
    /// None for a name that does not resolve, or only to this proxy.
    pub addresses: Vec<TargetAddress>,
}

/// An address of a target.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TargetAddress {
    pub upstream: String,
    pub active: u32,
    pub up: bool,
}

/// `GET /ports`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ports {
    pub ranges: Vec<Range>,
    /// Why no port is taken.
    #[serde(default)]
    pub note: Option<String>,
}

/// Adjacent ports with one lot, and of one app; a port with an owner stands alone.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Range {
    pub first: u16,
    pub last: u16,
    /// `steer`, `refuse` or `pass`.
    pub action: String,
    pub reason: String,
    /// Name of the app that has them.
    pub app: Option<String>,
    /// Lookups in the kernel since the start.
    pub lookups: u64,
    /// Refused because there were more than PORTRATE allows: lookups, or connections without eBPF.
    pub limited: u64,
    pub owner: Option<Owner>,
    /// What holds beside the action: that it is not in the kernel yet, that the port has no
    /// listener, or one of its own.
    #[serde(default)]
    pub state: Option<String>,
}

/// Who else listens on a port.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Owner {
    pub address: String,
    pub uid: u32,
    pub inode: u32,
    /// The port is steered or refused: the program gets no connections.
    #[serde(default)]
    pub shadowed: bool,
    /// Looked up by the command, with its caller's rights.
    pub pid: Option<u32>,
    pub name: Option<String>,
}

/// `GET /explain?port=N&from=ADDRESS`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Explain {
    pub port: u16,
    pub from: Option<String>,
    /// `steer`, `refuse` or `pass`.
    pub action: String,
    pub reason: String,
    /// In the form of proxy.conf.
    pub balance: String,
    /// The order is one of several that chance may give.
    pub by_chance: bool,
    /// What holds of the port beside its action, in words.
    #[serde(default)]
    pub states: Vec<String>,
    pub limits: Vec<String>,
    /// What holds for PROXY headers of the client, in words.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Those that would be tried, in order, then the others.
    pub candidates: Vec<Candidate>,
    /// How it would end if all of them failed.
    pub verdict: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Candidate {
    /// From 1; none: it would not be tried.
    pub place: Option<usize>,
    /// `pod` or `host`.
    pub kind: String,
    pub address: String,
    pub why: String,
}

/// `GET /routes`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Routes {
    /// What the pods of this host are dialled at, by address.
    pub upstreams: Vec<Upstream>,
    /// The other hosts, in the order of hosts.conf, then those that only the cluster directory names.
    pub hosts: Vec<Host>,
    /// What they answered, or published, by port and host; what is too old to be used is left out.
    pub routes: Vec<Route>,
    pub apps: Vec<App>,
}

/// One address under one HEALTH; pods may share it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Upstream {
    pub address: String,
    pub up: bool,
    pub health: Health,
}

/// Another host's proxy.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of a JSON object")]
pub struct Host {
    pub name: String,
    pub address: String,
    pub up: bool,
    #[serde(default)]
    pub draining: bool,
    /// Of one that is down: time until it is tried again.
    pub retry_ms: Option<u64>,
    /// Whether it says how many pods it has; one that does not counts as one pod.
    pub counts_pods: bool,
    /// Whether the cluster directory says what it serves.
    pub published: bool,
}

/// What one host answered for one port.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Route {
    pub port: u16,
    /// Name of the host.
    pub host: String,
    /// `serves`, `busy`, `silent`, `not here`; `unknown` where connections live on past their answer.
    pub answer: String,
    /// Pods that take connections there, as far as known.
    pub pods: u16,
    /// Pods that count, where these are more than 8 times what the others have; none: all of them.
    #[serde(default)]
    pub pods_counted: Option<u16>,
    /// Time since the answer; none: it is from the cluster directory.
    pub age_ms: Option<u64>,
    /// Live connections of this host's clients by way of that host.
    pub live: u32,
}
