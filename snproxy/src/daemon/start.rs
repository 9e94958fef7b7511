//! From a valid configuration to a process that is ready to serve, while it still has its privileges.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::addr::loopback;
use crate::admin::{MetricsListener, Socket};
use crate::conf::{BpfLog, Conf, Steering};
use crate::discovery::Root;
use crate::net::listener;
use crate::route::Table;
use crate::steering::sockets::Sockets;
use crate::steering::{Ebpf, LogLevel, SteeringError};
use crate::sys::privileges;

use super::control_socket;
use super::look::Good;
use super::steer::{Mechanism, Steerer, chain, max_listeners, wanted_listeners};
use super::world::Names;

/// All that needs privileges or may fail, made before the first thread starts: capabilities belong to
/// threads.
pub struct Start {
    pub(super) root: Root,
    pub(super) since: Instant,
    pub(super) good: Good,
    pub(super) names: Names,
    pub(super) listener: TcpListener,
    pub(super) control: Option<Socket>,
    pub(super) metrics: Vec<MetricsListener>,
    pub(super) steerer: Steerer,
    pub(super) table: Table,
}

/// Descriptors of a proxy that serves nobody yet, and a few connections.
const MIN_DESCRIPTORS: u64 = 40;

/// Most ports of the kernel's choice that are looked at for one that is no cluster port.
const MAX_BINDS: usize = 16;

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("listen on {addr}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("ADMIN: listen on {addr}")]
    Admin { addr: SocketAddr, source: io::Error },
    #[error("{}", chain(.0))]
    Steering(SteeringError),
    #[error(
        "STEERING auto: eBPF cannot be used ({why}), and {ports} ports are too many for one \
         listener each (at most {most}); give snproxy CAP_BPF and CAP_NET_ADMIN on a kernel of at \
         least 5.9, or ask for `STEERING listeners`"
    )]
    TooManyPorts {
        why: String,
        ports: usize,
        most: usize,
    },
    #[error(
        "STEERING listeners: {ports} ports are too many for one listener each (at most {most}, \
         half of the descriptors): raise the limit (`ulimit -Hn`), or let snproxy use eBPF"
    )]
    TooFewDescriptors { ports: usize, most: usize },
    #[error("CONFLICT fail: another program (uid {uid}) listens on {addr}, a cluster port")]
    Conflict { addr: SocketAddr, uid: u32 },
    #[error("{0}")]
    Refused(String),
    #[error(
        "{limit} open descriptors are too few to run with (at least {MIN_DESCRIPTORS}): raise `ulimit -Hn`"
    )]
    NoDescriptors { limit: u64 },
    #[error("{operation}")]
    Sys {
        operation: &'static str,
        source: io::Error,
    },
}

impl Start {
    /// Binds, loads, steers and gives up all privileges of this thread.
    pub fn new(root: Root, good: Good, names: Names) -> Result<Self, StartError> {
        let since = Instant::now();
        match getrlimit(Resource::Nofile).current {
            Some(limit) if limit < MIN_DESCRIPTORS => {
                return Err(StartError::NoDescriptors { limit });
            }
            _ => {}
        }
        let conf = Arc::clone(&good.conf);
        let listener = listen(&conf)?;
        let control = bind_control(&conf);
        let metrics = bind_metrics(&conf)?;
        let table = Table::build(Arc::clone(&conf), None, since);
        let steerer = steer(&conf, &table, &listener)?;
        give_up_privileges(&good.paths(&root), &conf, steerer.mechanism())?;
        crate::sys::memory::trim();
        Ok(Self {
            root,
            since,
            good,
            names,
            listener,
            control,
            metrics,
            steerer,
            table,
        })
    }
}

/// The one listener, on HOST:PORT.
fn listen(conf: &Conf) -> Result<TcpListener, StartError> {
    if conf.port > 0 {
        let addr = SocketAddr::new(conf.host, conf.port);
        return listener::bind(addr, conf.family, conf.keepalive)
            .map_err(|source| StartError::Listen { addr, source });
    }
    // Nobody is to find it: what is steered to it comes wherever it is. Only one for all addresses takes both families.
    let ip = match conf.host {
        IpAddr::V6(host) if host.is_unspecified() => conf.host,
        host => loopback(host),
    };
    let addr = SocketAddr::new(ip, 0);
    let bind = || {
        let listener = listener::bind(addr, conf.family, conf.keepalive)?;
        let port = listener.local_addr()?.port();
        io::Result::Ok((listener, port))
    };
    let mut bound = bind();
    for _ in 0..MAX_BINDS {
        match &bound {
            // It would be in the way of a listener of its own.
            Ok((_, port)) if conf.cluster_ports.contains(*port) => bound = bind(),
            _ => break,
        }
    }
    let (listener, _) = bound.map_err(|source| StartError::Listen { addr, source })?;
    Ok(listener)
}

fn steer(conf: &Conf, table: &Table, listener: &TcpListener) -> Result<Steerer, StartError> {
    let (ports, most) = (wanted_listeners(table), max_listeners(conf.steering));
    let mechanism = match conf.steering {
        Steering::Listeners if ports > most => {
            return Err(StartError::TooFewDescriptors { ports, most });
        }
        Steering::Listeners => listeners(conf),
        Steering::Ebpf => ebpf(conf, listener).map_err(StartError::Steering)?,
        Steering::Auto => match ebpf(conf, listener) {
            Ok(mechanism) => mechanism,
            Err(error) => {
                let why = chain(&error);
                if ports > most {
                    return Err(StartError::TooManyPorts { why, ports, most });
                }
                warn!(
                    "STEERING auto: eBPF cannot be used ({why}): one listener per mapped port instead"
                );
                listeners(conf)
            }
        },
    };
    let mut steerer =
        Steerer::new(mechanism, listener, conf.family).map_err(|source| StartError::Sys {
            operation: "stat the listener",
            source,
        })?;
    steerer.keep_alive(conf.keepalive);
    if let Some(why) = steerer.refuse(conf) {
        return Err(StartError::Refused(why));
    }
    steerer.look_first(table);
    if let Some((_, socket)) = steerer.foreign().any(conf) {
        return Err(StartError::Conflict {
            addr: socket.addr,
            uid: socket.uid,
        });
    }
    steerer.begin(table).map_err(StartError::Steering)?;
    Ok(steerer)
}

fn ebpf(conf: &Conf, listener: &TcpListener) -> Result<Mechanism, SteeringError> {
    let log = match conf.bpf_log {
        BpfLog::Off => None,
        BpfLog::Error => Some(LogLevel::Error),
        BpfLog::Warn => Some(LogLevel::Warn),
        BpfLog::Info => Some(LogLevel::Info),
        BpfLog::Debug => Some(LogLevel::Debug),
    };
    let mut ebpf = Ebpf::load(SocketAddr::new(conf.host, conf.port), log)?;
    ebpf.set_listener(listener)?;
    // Every port passes until the plan is written: nothing is steered that is not routed.
    ebpf.attach()?;
    Ok(Mechanism::Ebpf(Box::new(ebpf)))
}

fn listeners(conf: &Conf) -> Mechanism {
    Mechanism::Listeners(Sockets::new(conf.host))
}

/// Binds the control socket, if there is to be one; without one the proxy serves all the same.
fn bind_control(conf: &Conf) -> Option<Socket> {
    let path = control_socket(conf)?;
    let bound = Socket::bind(&path);
    if let Err(error) = &bound {
        let path = path.display();
        warn!(%error, %path, "no control socket: `snproxy status`, `ports` and `reload` will not reach this process");
    }
    bound.ok()
}

fn bind_metrics(conf: &Conf) -> Result<Vec<MetricsListener>, StartError> {
    let bind = |addr: &SocketAddr| {
        MetricsListener::bind(*addr).map_err(|source| StartError::Admin {
            addr: *addr,
            source,
        })
    };
    conf.admin.addrs.iter().map(bind).collect()
}

/// A proxied connection takes two descriptors: as many as the hard limit allows. It is the limit of the whole process.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            warn!(%error, "raise the limit of open descriptors");
        }
    }
}

fn give_up_privileges(files: &[PathBuf], conf: &Conf, mechanism: &str) -> Result<(), StartError> {
    // Ports below 1024 that get listeners of their own may be opened by later reloads.
    let may_be_low = conf.files.apps.is_some() || conf.cluster_ports.iter().any(|port| port < 1024);
    let low = mechanism == "listeners" && may_be_low;
    let keep: &[_] = if low {
        &[privileges::Capability::CAP_NET_BIND_SERVICE]
    } else {
        &[]
    };
    let kept = privileges::drop_all(keep).map_err(|source| StartError::Sys {
        operation: "drop capabilities",
        source,
    })?;
    info!(?kept, "capabilities dropped");
    for path in files {
        if let Err(error) = std::fs::File::open(path)
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            let path = path.display();
            warn!(%path, "not readable without capabilities: later changes of it will not be seen");
        }
    }
    Ok(())
}
