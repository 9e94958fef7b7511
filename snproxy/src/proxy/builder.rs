//! From services to the two texts that the proxy is started with: there is no second way of configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use super::service::{EXPECTED, Listen, Service, Upstream, parse};
use super::tls::{ClientTls, UpstreamTls};
use crate::addr::PortSet;
use crate::conf::{self, KeyDoc, SendProxy};
use crate::diag::{Diagnostic, Source};
use crate::discovery::Root;

/// Ports of one proxy from which on they are steered rather than opened one by one, where that is possible.
const MANY_PORTS: usize = 16;

/// Ranges of ports in one line: far from what a line may have.
const MAX_RANGES: usize = 64;

/// What a proxy is to serve, and how; [`start`](Self::start) starts it.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    /// Stands for the file that nobody wrote, in what is said of it.
    called: String,
    services: Vec<Service>,
    keys: Vec<(String, String)>,
    etcd: Vec<String>,
    etcd_words: Vec<String>,
}

/// Why a proxy cannot be built or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("`{address}` is no address to listen on: expected {EXPECTED}")]
    #[non_exhaustive]
    Listen { address: String },
    #[error(
        "port {port} is to be served at {first} and at {second}: a port is served at one address"
    )]
    #[non_exhaustive]
    TwoAddresses {
        port: u16,
        first: IpAddr,
        second: IpAddr,
    },
    #[error("service `{service}` has no address to listen on")]
    #[non_exhaustive]
    NoListen { service: String },
    #[error("service `{service}` has no upstream")]
    #[non_exhaustive]
    NoUpstream { service: String },
    #[error("service `{service}` has upstreams of its own and is to be discovered: one of the two")]
    #[non_exhaustive]
    TwoSources { service: String },
    #[error("no service")]
    NoService,
    #[error("options for etcd, and no member of it")]
    NoEtcd,
    #[error("{key} is for a cluster: a proxy of services takes it from them, or has no use for it")]
    #[non_exhaustive]
    ClusterKey { key: String },
    #[error("{key} is for a program of its own: the host program decides that")]
    #[non_exhaustive]
    ProgramKey { key: String },
    #[error("{key} is no key{}{}", kind(*.of_port), hint(key, *.of_port))]
    #[non_exhaustive]
    UnknownKey {
        key: String,
        /// For one service only.
        of_port: bool,
    },
    #[error("{key} {value:?}: the value cannot be said in one line")]
    #[non_exhaustive]
    Value { key: String, value: String },
    #[error(
        "TLS of service `{service}`: blanks, commas, quotes and # cannot be part of a path or name"
    )]
    #[non_exhaustive]
    Certificates { service: String },
    #[error("find a free port at {ip}")]
    #[non_exhaustive]
    FreePort { ip: IpAddr, source: io::Error },
    /// What is wrong, one finding each.
    #[error("the configuration is refused: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// Listening, steering, or anything else that the kernel was asked for: with its causes, an [`io::Error`] for one.
    #[error("{}", Chain(.0.as_ref()))]
    Start(Box<dyn std::error::Error + Send + Sync>),
    /// The new configuration is in force, but for this, which is tried again.
    #[error("in force, but for what is tried again: {0}")]
    Pending(String),
    #[error("start a thread")]
    Thread(#[source] io::Error),
    #[error("the proxy has ended")]
    Ended,
}

/// An error and its causes.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        let mut error = self.0;
        while let Some(cause) = error.source() {
            write!(out, ": {cause}")?;
            error = cause;
        }
        Ok(())
    }
}

fn kind(of_port: bool) -> &'static str {
    if of_port { " of a port" } else { "" }
}

/// The key that an unknown one probably means.
fn hint(key: &str, of_port: bool) -> String {
    let keys =
        conf::key_docs().filter(|known| !is_of_cluster(known) && (known.of_port || !of_port));
    let near = conf::nearest(keys.map(|known| known.name), key);
    near.map_or_else(String::new, |near| format!(": did you mean `{near}`?"))
}

impl Error {
    pub(super) fn refused(findings: &[Diagnostic]) -> Self {
        Self::Refused(findings.iter().map(ToString::to_string).collect())
    }
}

impl Builder {
    /// `called` stands for the name of the file in findings.
    pub(crate) fn new(called: &str) -> Self {
        Self {
            called: called.to_owned(),
            ..Self::default()
        }
    }

    /// One more service.
    #[must_use]
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// A key of proxy.conf, as README.md lists them: of the process, or of a port, which is for all services then.
    /// Of a key that is set twice the second value counts; a value for some ports, `5000-5099 5m`, leaves the others theirs.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        let ports = conf::ports_of_value(key, &value);
        self.keys.retain(|(before, said)| {
            !before.eq_ignore_ascii_case(key) || conf::ports_of_value(before, said) != ports
        });
        self.keys.push((key.to_owned(), value));
        self
    }

    /// Whether this is said for all that nothing else is said of.
    pub(crate) fn is_said(&self, key: &str) -> bool {
        self.said(key).is_some()
    }

    fn said(&self, key: &str) -> Option<&str> {
        let of_all = |(said, value): &&(String, String)| {
            said.eq_ignore_ascii_case(key) && conf::ports_of_value(said, value).is_none()
        };
        self.keys
            .iter()
            .find(of_all)
            .map(|(_, value)| value.as_str())
    }

    /// The etcd in which services are discovered, by the addresses of its members: `http://10.0.0.1:2379`.
    #[must_use]
    pub fn etcd(mut self, members: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let members = members.into_iter().map(|member| member.as_ref().to_owned());
        self.etcd.extend(members);
        self
    }

    /// What the key ETCD takes behind the members of an etcd that asks who is there: `user=NAME`, `password-file=/path`, and
    /// for `https://` where certificates are.
    #[must_use]
    pub fn etcd_options(mut self, words: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        self.etcd_words.extend(words);
        self
    }

    /// The first port that is listened on, if that is said.
    pub(crate) fn first_port(&self) -> Option<u16> {
        let listen = parse(self.services.first()?.listen.first()?)?;
        Some(*listen.ports.start())
    }

    /// What the proxy is started with, where no port has to be found.
    pub(crate) fn root(&self) -> Result<Root, Error> {
        let plan = self.plan()?;
        plan.root(self, &plan.base(self)?)
    }

    /// Reads the addresses, and finds a port where one is asked for.
    pub(super) fn plan(&self) -> Result<Plan, Error> {
        if self.services.is_empty() {
            return Err(Error::NoService);
        }
        let mut plan = Plan::default();
        for service in &self.services {
            let name = || service.name.clone();
            let mut listens = Vec::new();
            for address in &service.listen {
                let address = || address.clone();
                let mut listen =
                    parse(&address()).ok_or_else(|| Error::Listen { address: address() })?;
                if *listen.ports.start() == 0 {
                    let (held, port) = free_port(listen.ip).map_err(|source| Error::FreePort {
                        ip: listen.ip,
                        source,
                    })?;
                    listen.ports = port..=port;
                    plan.held.push(held);
                }
                plan.claim(&listen)?;
                listens.push(listen);
            }
            match (service.upstreams.is_empty(), &service.discovered) {
                _ if listens.is_empty() => return Err(Error::NoListen { service: name() }),
                (true, None) => return Err(Error::NoUpstream { service: name() }),
                (false, Some(_)) => return Err(Error::TwoSources { service: name() }),
                _ => plan.services.push(listens),
            }
        }
        Ok(plan)
    }
}

/// What stays as it was at the start for as long as a proxy runs.
#[derive(Clone, Debug)]
pub(super) struct Base {
    host: IpAddr,
    steering: String,
}

/// Where each service listens.
#[derive(Default)]
pub(super) struct Plan {
    services: Vec<Vec<Listen>>,
    by_port: BTreeMap<u16, IpAddr>,
    /// Keep ports from other programs until they are listened on.
    held: Vec<Socket>,
}

impl Plan {
    /// The addresses in the order in which they were said; of a range the first.
    pub(super) fn addrs(&self) -> Vec<SocketAddr> {
        self.services.iter().flatten().map(Listen::addr).collect()
    }

    fn claim(&mut self, listen: &Listen) -> Result<(), Error> {
        for port in listen.ports.clone() {
            let first = *self.by_port.entry(port).or_insert(listen.ip);
            if first != listen.ip {
                let second = listen.ip;
                return Err(Error::TwoAddresses {
                    port,
                    first,
                    second,
                });
            }
        }
        Ok(())
    }

    /// What a proxy begins with that serves this.
    pub(super) fn base(&self, builder: &Builder) -> Result<Base, Error> {
        // Steered ports, and most of those that are opened one by one, are of one address.
        let host = self.by_port.values().next().copied();
        let host = host.ok_or(Error::NoService)?;
        let is_apart = self.by_port.values().any(|ip| *ip != host);
        let one_by_one = is_apart || self.by_port.len() < MANY_PORTS;
        let steering = if one_by_one { "listeners" } else { "auto" };
        Ok(Base {
            host,
            steering: builder.said("STEERING").unwrap_or(steering).to_owned(),
        })
    }

    /// The ports that are not at `host`, as values of BIND.
    fn apart(&self, host: IpAddr) -> Vec<String> {
        let mut apart: BTreeMap<IpAddr, PortSet> = BTreeMap::new();
        for (port, ip) in self.by_port.iter().filter(|(_, ip)| **ip != host) {
            apart.entry(*ip).or_default().insert(*port);
        }
        let mut values = Vec::new();
        for (ip, ports) in apart {
            for ranges in ports.ranges().chunks(MAX_RANGES) {
                let mut part = PortSet::new();
                for (first, last) in ranges {
                    part.insert_range(*first, *last);
                }
                values.push(format!("{part} {ip}"));
            }
        }
        values
    }

    /// The configuration of `builder`, as texts, for a proxy that began with `base`.
    pub(super) fn root(&self, builder: &Builder, base: &Base) -> Result<Root, Error> {
        let called = if builder.called.is_empty() {
            "builder"
        } else {
            &builder.called
        };
        let apps: Result<Vec<Value>, Error> = builder
            .services
            .iter()
            .zip(&self.services)
            .map(|(service, listens)| app(service, listens))
            .collect();
        let apps = json!({ "Apps": apps? });
        Ok(Root::Said {
            conf: Source {
                path: PathBuf::from(called),
                text: self.conf(builder, base)?,
            },
            apps: Source {
                path: PathBuf::from(format!("{called}: services")),
                text: format!("{apps:#}\n"),
            },
        })
    }

    fn conf(&self, builder: &Builder, base: &Base) -> Result<String, Error> {
        // What a proxy of services alone is: no other hosts, no pods, and blind to what it carries.
        let mut lines = vec![
            ("HOST".to_owned(), base.host.to_string()),
            ("PORT".to_owned(), "none".to_owned()),
            ("CLUSTERPORTS".to_owned(), "none".to_owned()),
            ("CLUSTER".to_owned(), "none".to_owned()),
        ];
        let own = [
            ("ADMIN", "none"),
            ("CLIENTPROXY", "never"),
            ("CONFLICT", "fail"),
            ("STEERING", base.steering.as_str()),
        ];
        for (key, value) in own.into_iter().filter(|(key, _)| !builder.is_said(key)) {
            lines.push((key.to_owned(), value.to_owned()));
        }
        for value in self.apart(base.host) {
            lines.push(("BIND".to_owned(), value));
        }
        if builder.etcd.is_empty() && !builder.etcd_words.is_empty() {
            return Err(Error::NoEtcd);
        }
        if !builder.etcd.is_empty() {
            let mut etcd = builder.etcd.join(",");
            for word in &builder.etcd_words {
                etcd.push(' ');
                etcd.push_str(word);
            }
            lines.push(("ETCD".to_owned(), etcd));
        }
        for (key, value) in &builder.keys {
            let known = conf::key_docs().find(|known| known.name.eq_ignore_ascii_case(key));
            let said = || key.clone();
            match known {
                None => {
                    return Err(Error::UnknownKey {
                        key: said(),
                        of_port: false,
                    });
                }
                Some(known) if is_of_cluster(&known) => {
                    return Err(Error::ClusterKey { key: said() });
                }
                Some(known) if builder.called.is_empty() && is_of_program(&known) => {
                    return Err(Error::ProgramKey { key: said() });
                }
                Some(_) => {}
            }
            let value = value_in_line(value).ok_or_else(|| Error::Value {
                key: key.clone(),
                value: value.clone(),
            })?;
            lines.push((key.clone(), value));
        }
        let lines = lines.into_iter().flat_map(|(key, value)| [key, value]);
        let ends = [" ", "\n"].into_iter().cycle();
        Ok(lines
            .zip(ends)
            .flat_map(|(word, end)| [word, end.to_owned()])
            .collect())
    }
}

/// Whether a key follows from the services, or has no meaning where there is no cluster.
fn is_of_cluster(key: &KeyDoc) -> bool {
    matches!(
        key.name,
        "APPSCONF"
            | "BIND"
            | "CLUSTER"
            | "CLUSTERPORTS"
            | "HOST"
            | "HOSTSCONF"
            | "LOCALITY"
            | "PEERS"
            | "PEERTIMEOUT"
            | "PEERTLS"
            | "PODHOST"
            | "PORT"
            | "PORTSCONF"
            | "UNMAPPED"
    )
}

/// Whether a key says where the log goes.
fn is_of_program(key: &KeyDoc) -> bool {
    matches!(key.name, "LOGFORMAT" | "LOGLEVEL")
}

fn app(service: &Service, listens: &[Listen]) -> Result<Value, Error> {
    let mut app = Map::new();
    app.insert("Name".to_owned(), json!(service.name));
    let ports = listens.iter().map(|listen| {
        let (first, last) = listen.ports.clone().into_inner();
        if first == last {
            json!(first)
        } else {
            json!(format!("{first}-{last}"))
        }
    });
    app.insert("Ports".to_owned(), ports.collect());
    if let Some(key) = &service.discovered {
        let send_proxy = service.send_proxy.unwrap_or(SendProxy::No);
        let srv = json!({ "Key": key, "SendProxy": send_proxy.to_string() });
        app.insert("Srv".to_owned(), srv);
    } else {
        let targets = service.upstreams.iter();
        let targets = targets.map(|upstream| target(upstream, service.send_proxy));
        app.insert("Targets".to_owned(), targets.collect());
    }
    let tls = [
        (
            "CLIENTTLS",
            service.client_tls.as_ref().map(ClientTls::value),
        ),
        (
            "UPSTREAMTLS",
            service.upstream_tls.as_ref().map(UpstreamTls::value),
        ),
    ];
    for (key, value) in tls {
        let Some(value) = value else { continue };
        let value = value.ok_or_else(|| Error::Certificates {
            service: service.name.clone(),
        })?;
        app.insert(key.to_owned(), json!(value));
    }
    for (key, value) in &service.keys {
        let mut known = conf::key_docs().filter(|known| known.of_port && !is_of_cluster(known));
        let Some(known) = known.find(|known| known.name.eq_ignore_ascii_case(key)) else {
            return Err(Error::UnknownKey {
                key: key.clone(),
                of_port: true,
            });
        };
        app.insert(known.name.to_owned(), json!(value));
    }
    Ok(app.into())
}

fn target(upstream: &Upstream, send_proxy: Option<SendProxy>) -> Value {
    let mut target = Map::new();
    target.insert("Addr".to_owned(), json!(upstream.address));
    if let Some(weight) = upstream.weight {
        target.insert("Weight".to_owned(), json!(weight));
    }
    if let Some(max_conn) = upstream.max_conn {
        target.insert("MaxConn".to_owned(), json!(max_conn));
    }
    if let Some(version) = upstream.send_proxy.or(send_proxy) {
        target.insert("SendProxy".to_owned(), json!(version.to_string()));
    }
    target.into()
}

/// A value as a line of proxy.conf takes it; `None` where none does.
fn value_in_line(value: &str) -> Option<String> {
    let value = value.trim();
    if value.contains(char::is_control) || value.is_empty() {
        return None;
    }
    let is_plain = !value.starts_with(['"', '\'']) && !value.contains('#') && !value.ends_with(',');
    if is_plain {
        return Some(value.to_owned());
    }
    let quote = ['"', '\'']
        .into_iter()
        .find(|quote| !value.contains(*quote))?;
    Some(format!("{quote}{value}{quote}"))
}

/// A port that no other program gets while the socket is there; snproxy's own listener may have it beside that.
fn free_port(ip: IpAddr) -> io::Result<(Socket, u16)> {
    let addr = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    let bound = socket.local_addr()?.as_socket();
    let port = bound.ok_or(io::ErrorKind::AddrNotAvailable)?.port();
    Ok((socket, port))
}

#[cfg(test)]
mod tests;
