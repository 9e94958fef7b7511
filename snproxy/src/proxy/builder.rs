//! From services to the two texts that the proxy is started with: there is no second way of configuration.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use super::service::{EXPECTED, Listen, Service, Upstream, parse};
use super::tls::{ClientTls, UpstreamTls};
use crate::conf::{self, KeyDoc, SendProxy};
use crate::diag::{Diagnostic, Source};
use crate::discovery::Root;

/// Ports of one proxy from which on they are steered rather than opened one by one, where that is possible.
const MANY_PORTS: usize = 16;

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
    Listen { address: String },
    #[error(
        "port {port} is to be served at {first} and at {second}: a port is served at one address"
    )]
    TwoAddresses {
        port: u16,
        first: IpAddr,
        second: IpAddr,
    },
    #[error("service `{service}` has no address to listen on")]
    NoListen { service: String },
    #[error("service `{service}` has no upstream")]
    NoUpstream { service: String },
    #[error("service `{service}` has upstreams of its own and is to be discovered: one of the two")]
    TwoSources { service: String },
    #[error("no service")]
    NoService,
    #[error("{key} is no key{}", kind(*.of_port))]
    UnknownKey {
        key: String,
        /// For one service only.
        of_port: bool,
    },
    #[error("{key} {value:?}: the value cannot be said in one line")]
    Value { key: String, value: String },
    #[error(
        "TLS of service `{service}`: blanks, commas, quotes and # cannot be part of a path or name"
    )]
    Certificates { service: String },
    #[error("find a free port at {ip}")]
    FreePort { ip: IpAddr, source: io::Error },
    /// What is wrong, one finding each.
    #[error("the configuration is refused: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// Listening, steering, or anything else that the kernel was asked for.
    #[error("{0}")]
    Start(String),
    #[error("start a thread")]
    Thread(#[source] io::Error),
    #[error("the proxy has ended")]
    Ended,
}

fn kind(of_port: bool) -> &'static str {
    if of_port { " of a port" } else { "" }
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
    /// Of a key that is set twice the second value counts.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<String>) -> Self {
        self.keys
            .retain(|(before, _)| !before.eq_ignore_ascii_case(key));
        self.keys.push((key.to_owned(), value.into()));
        self
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
        self.plan()?.root(self)
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

    /// The configuration of `builder`, as texts.
    pub(super) fn root(&self, builder: &Builder) -> Result<Root, Error> {
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
                text: self.conf(builder)?,
            },
            apps: Source {
                path: PathBuf::from(format!("{called}: services")),
                text: format!("{apps:#}\n"),
            },
        })
    }

    fn conf(&self, builder: &Builder) -> Result<String, Error> {
        // Steered ports, and most of those that are opened one by one, are of one address.
        let host = self.by_port.values().next().copied();
        let host = host.ok_or(Error::NoService)?;
        let apart: Vec<_> = self.by_port.iter().filter(|(_, ip)| **ip != host).collect();
        let one_by_one = !apart.is_empty() || self.by_port.len() < MANY_PORTS;
        let steering = if one_by_one { "listeners" } else { "auto" };
        // What a proxy of services alone is: no other hosts, no pods, and blind to what it carries.
        let mut lines = vec![
            ("HOST".to_owned(), host.to_string()),
            ("PORT".to_owned(), "none".to_owned()),
            ("CLUSTERPORTS".to_owned(), "none".to_owned()),
        ];
        let own = [
            ("ADMIN", "none"),
            ("CLIENTPROXY", "never"),
            ("CLUSTER", "none"),
            ("CONFLICT", "fail"),
            ("STEERING", steering),
        ];
        let is_said = |key: &str| {
            builder
                .keys
                .iter()
                .any(|(said, _)| said.eq_ignore_ascii_case(key))
        };
        for (key, value) in own.into_iter().filter(|(key, _)| !is_said(key)) {
            lines.push((key.to_owned(), value.to_owned()));
        }
        for (port, ip) in apart {
            lines.push(("BIND".to_owned(), format!("{port} {ip}")));
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
            if known.is_none_or(|known| is_ours(&known)) {
                return Err(Error::UnknownKey {
                    key: key.clone(),
                    of_port: false,
                });
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

/// Whether a key follows from the services.
fn is_ours(key: &KeyDoc) -> bool {
    matches!(
        key.name,
        "APPSCONF" | "BIND" | "CLUSTERPORTS" | "HOST" | "HOSTSCONF" | "PORT" | "PORTSCONF"
    )
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
        let targets = service.upstreams.iter().map(target);
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
        let mut known = conf::key_docs().filter(|known| known.of_port && !is_ours(known));
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

fn target(upstream: &Upstream) -> Value {
    let mut target = Map::new();
    target.insert("Addr".to_owned(), json!(upstream.address));
    if let Some(weight) = upstream.weight {
        target.insert("Weight".to_owned(), json!(weight));
    }
    if let Some(max_conn) = upstream.max_conn {
        target.insert("MaxConn".to_owned(), json!(max_conn));
    }
    if let Some(version) = upstream.send_proxy {
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
mod tests {
    use super::*;
    use crate::proxy::Policy;

    fn texts(builder: &Builder) -> (String, String) {
        match builder.root().unwrap() {
            Root::Said { conf, apps } => (conf.text, apps.text),
            root => panic!("{root}"),
        }
    }

    fn service(name: &str, listen: &str) -> Service {
        Service::new(name).listen(listen).upstream("10.0.0.7:80")
    }

    #[test]
    fn services_become_texts() {
        let health = "tcp/2s send=\"PING\\r\\n\" expect=\"#\"";
        let builder = Builder::default()
            .service(service("a", "127.0.0.1:5000").policy(Policy::Ordered))
            .service(service("b", "127.0.0.1:5001").set("health", health))
            .set("QUEUE", "5")
            .set("queue", "6");
        let (conf, apps) = texts(&builder);
        assert_eq!(
            conf,
            "HOST 127.0.0.1\nPORT none\nCLUSTERPORTS none\nADMIN none\nCLIENTPROXY never\nCLUSTER none\n\
             CONFLICT fail\nSTEERING listeners\nqueue 6\n"
        );
        let apps: Value = serde_json::from_str(&apps).unwrap();
        let expected = json!({ "Apps": [
            { "Name": "a", "Ports": [5000], "Targets": [{ "Addr": "10.0.0.7:80" }], "BALANCE": "ordered" },
            { "Name": "b", "Ports": [5001], "Targets": [{ "Addr": "10.0.0.7:80" }], "HEALTH": health },
        ] });
        assert_eq!(apps, expected);
    }

    #[test]
    fn addresses_that_differ_are_said_port_by_port_and_never_steered() {
        let builder = Builder::default()
            .service(service("a", "127.0.0.1:5000-5099"))
            .service(service("b", "127.0.0.2:6000"));
        let (conf, _) = texts(&builder);
        assert!(conf.contains("HOST 127.0.0.1\n"), "{conf}");
        assert!(conf.contains("STEERING listeners\n"), "{conf}");
        assert!(conf.contains("BIND 6000 127.0.0.2\n"), "{conf}");
        let many = Builder::default().service(service("a", "127.0.0.1:5000-5099"));
        assert!(texts(&many).0.contains("STEERING auto\n"));
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let with = |service| Builder::default().service(service).root().unwrap_err();
        let good = || service("a", "127.0.0.1:5000");
        assert!(matches!(Builder::default().root(), Err(Error::NoService)));
        assert!(matches!(with(service("a", "x")), Error::Listen { .. }));
        assert!(matches!(
            with(Service::new("a").upstream("a:1")),
            Error::NoListen { .. }
        ));
        assert!(matches!(
            with(Service::new("a").listen(":1")),
            Error::NoUpstream { .. }
        ));
        assert!(matches!(
            with(good().discovered("/srv")),
            Error::TwoSources { .. }
        ));
        let two = good().listen("127.0.0.2:5000");
        assert!(matches!(with(two), Error::TwoAddresses { port: 5000, .. }));
        for key in ["NONSENSE", "WORKERS", "BIND"] {
            let error = with(good().set(key, "1"));
            assert!(
                matches!(error, Error::UnknownKey { of_port: true, .. }),
                "{key}"
            );
        }
        for (key, value) in [("HOST", "1"), ("PORT", "5"), ("NONSENSE", "1")] {
            let error = Builder::default().service(good()).set(key, value).root();
            assert!(
                matches!(error, Err(Error::UnknownKey { of_port: false, .. })),
                "{key}"
            );
        }
        let error = Builder::default()
            .service(good())
            .set("BALANCE", "rr\nHOST 0.0.0.0")
            .root();
        assert!(matches!(error, Err(Error::Value { .. })));
    }

    #[test]
    fn values_are_quoted_where_a_line_asks_for_it() {
        for (value, line) in [
            ("5m", Some("5m")),
            (" 5m ", Some("5m")),
            ("a#b", Some("\"a#b\"")),
            ("\"a\"", Some("'\"a\"'")),
            ("a,", Some("\"a,\"")),
            ("", None),
            ("\"'", None),
            ("a\nb", None),
        ] {
            assert_eq!(value_in_line(value).as_deref(), line, "{value:?}");
        }
    }
}
