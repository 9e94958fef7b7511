//! Policy: which upstream a connection goes to, and what becomes of each port.
//!
//! No I/O, no clock, no randomness of its own: all three are arguments.

pub mod balance;
pub mod dial_from;
pub mod directory;
mod draft;
pub mod health;
pub mod last_resort;
pub mod load;
pub mod peers;
pub mod persist;
pub mod plan;
pub mod queue;
pub mod search;
pub mod sentence;
pub mod service;
pub mod silence;
pub mod sources;
mod upstream;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use crate::addr::{ClusterPort, HostPort};
use crate::conf::{Conf, HostAddr, Locality, Mapping, SendProxy};

use balance::Scheme;
use draft::Draft;
use load::Load;
use peers::{Answers, Peers};
use search::Search;
use service::{Asker, Pod, Service, Upstream};

/// The routes of all cluster ports: immutable, swapped whole on reload.
///
/// Shape: pods in one run per cluster port, and one run per app for all of its ports, found through a number per port:
/// 61,744 services take about 4 MiB.
pub struct Table {
    pub conf: Arc<Conf>,
    /// Counts accepted configurations from 1.
    pub generation: u64,
    /// None with `LOCALITY only` for all ports.
    pub peers: Arc<Peers>,
    /// What the other hosts know this one by.
    identity: u64,
    upstreams: Vec<(Arc<Upstream>, SendProxy)>,
    pods: Vec<Pod>,
    services: Vec<Row>,
    apps: Vec<Run>,
    /// By cluster port: number of the service plus one, 0 for none.
    index: Box<[u16]>,
    /// Loads of pods that left: they count on while anything holds them, and again if the pod returns.
    departed: Vec<(Identity, Arc<Load>)>,
}

/// What a pod is known by from table to table.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Identity {
    Mapping(ClusterPort, HostPort),
    /// An address of a target of this app.
    Target(Arc<str>, SocketAddr),
}

/// The pods of one app.
struct Run {
    app: Arc<str>,
    first: u32,
    len: u32,
}

/// Those who wait for the same pods.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Line {
    /// The clients of a port.
    Port(u16),
    /// The clients of all ports of the app of this name.
    App(Arc<str>),
}

/// One service as the table stores it.
struct Row {
    port: ClusterPort,
    /// Which of the apps it is of.
    app: Option<u32>,
    first: u32,
    len: u32,
    turn: AtomicU32,
    scheme: Scheme,
}

impl Table {
    /// The table of `conf`; loads, health and answers of what `old` knows already are kept.
    pub fn build(conf: Arc<Conf>, old: Option<&Self>, now: Instant) -> Self {
        Self::build_among(conf, &[], old, now)
    }

    /// The same among further hosts than those of hosts.conf: where their proxies are dialled, and by which names.
    pub fn build_among(
        conf: Arc<Conf>,
        further: &[(Box<str>, SocketAddr)],
        old: Option<&Self>,
        now: Instant,
    ) -> Self {
        let mut draft = Draft::new(&conf, old, now);
        let mut mappings: Vec<&Mapping> = conf.mappings.iter().collect();
        // Stable: within a cluster port the order of the file stays, which `ordered` follows.
        mappings.sort_by_key(|mapping| mapping.cluster_port);
        for mapping in mappings {
            draft.map(mapping);
        }
        for app in &conf.apps {
            draft.app(app);
        }
        draft.balance();
        let upstreams = draft.upstreams();
        let Draft {
            pods,
            mut services,
            apps,
            loads,
            ..
        } = draft;
        services.sort_by_key(|row| row.port);
        let mut index = vec![0u16; 65_536].into_boxed_slice();
        for (row, number) in services.iter().zip(1..) {
            // At most 65,535 distinct non-zero ports: the number fits.
            index[usize::from(row.port.get())] = number;
        }
        let departed: HashSet<_> = old
            .iter()
            .flat_map(|old| old.departed.iter().map(|(identity, _)| identity))
            .collect();
        let crosses = crosses(&conf);
        let others = conf
            .other_hosts()
            .filter_map(|host| Some((&*host.name, host.addr()?)));
        let further = further.iter().map(|(name, addr)| (&**name, *addr));
        let this = conf.this_host.and_then(|at| conf.hosts.get(at));
        let identity = match (this, conf.published_as()) {
            (Some(host), _) => balance::name(&host.name, host.port),
            (None, Some((name, addr))) => balance::name(&name, addr.port()),
            (None, None) => 0,
        };
        let all: Vec<_> = others.chain(further).collect();
        // Hosts that nobody here is carried to may still call.
        let ips = all.iter().map(|(_, addr)| addr.ip()).collect();
        let carried_to = all.into_iter().filter(|_| crosses);
        let peers = Peers::build(carried_to, ips, old.map(|old| &old.peers), now);
        // Of the same configuration it is the same generation, among other hosts.
        let generation = match old {
            Some(old) if Arc::ptr_eq(&old.conf, &conf) => old.generation,
            _ => old.map_or(0, |old| old.generation) + 1,
        };
        Self {
            conf,
            peers,
            identity,
            generation,
            upstreams,
            pods,
            services,
            apps,
            index,
            // A table that a connection still dials from may yet admit to them: it holds one reference, as do
            // `loads` and the list of the departed.
            departed: loads
                .into_iter()
                .filter(|(identity, load)| {
                    !departed.contains(identity) || load.active() > 0 || Arc::strong_count(load) > 2
                })
                .collect(),
        }
    }

    /// Whether it was built among these hosts beside those of hosts.conf.
    pub fn has_further(&self, further: &[(Box<str>, SocketAddr)]) -> bool {
        if !crosses(&self.conf) {
            let listed = self.conf.other_hosts().filter_map(HostAddr::addr);
            let all = listed.chain(further.iter().map(|(_, addr)| *addr));
            return self.peers.are_at(all.map(|addr| addr.ip()).collect());
        }
        let listed = self.conf.other_hosts().filter_map(HostAddr::addr).count();
        let list = self.peers.list().iter();
        let have = list.skip(listed).map(|peer| (&*peer.name, peer.addr()));
        have.eq(further.iter().map(|(name, addr)| (&**name, *addr)))
    }

    /// The service of a cluster port, if any pod here is mapped to it.
    pub fn service(&self, port: u16) -> Option<Service<'_>> {
        let number = usize::from(self.index[usize::from(port)]).checked_sub(1)?;
        Some(self.view(&self.services[number]))
    }

    /// Whose queue the clients of a port wait in for a pod: those of all ports of an app want places at the same targets.
    pub fn line(&self, port: u16) -> Line {
        let number = usize::from(self.index[usize::from(port)]).checked_sub(1);
        let app = number.and_then(|number| self.services[number].app);
        app.map_or(Line::Port(port), |app| {
            Line::App(Arc::clone(&self.apps[app as usize].app))
        })
    }

    /// Whether what a port says of its pods holds: of an app its first one does.
    pub fn leads(&self, port: u16) -> bool {
        let number = usize::from(self.index[usize::from(port)]).checked_sub(1);
        let app = number.and_then(|number| self.services[number].app);
        app.is_none_or(|app| self.conf.apps[app as usize].ports().next() == Some(port))
    }

    /// The service of a cluster port as other proxies are given it: ports of apps are this host's own affair.
    pub fn service_for_peers(&self, port: u16) -> Option<Service<'_>> {
        self.service(port).filter(|service| !service.is_app)
    }

    /// Whether a connection to this address would come back to this proxy.
    pub fn comes_back(&self, addr: SocketAddr) -> bool {
        let is_ours = || addr.port() == self.conf.port || self.service(addr.port()).is_some();
        self.conf.comes_back(addr.ip(), addr.port()) && is_ours()
    }

    /// The way of a client's connection through all that may serve this port, on any host; `answers` are
    /// those for the port.
    pub fn search(&self, port: u16, asker: Asker, answers: Arc<Answers>) -> Search<'_> {
        Search::new(
            self.service(port),
            &self.peers,
            answers,
            self.conf.of_port(port),
            self.identity,
            asker,
        )
    }

    fn turn(&self, port: ClusterPort) -> u32 {
        self.service(port.get())
            .map_or(0, |service| service.turn.load(Relaxed))
    }

    /// All services, by cluster port.
    pub fn services(&self) -> impl Iterator<Item = Service<'_>> {
        self.services.iter().map(|row| self.view(row))
    }

    /// The apps with their pods, in the order of the file.
    pub fn apps(&self) -> impl Iterator<Item = (&str, &[Pod])> {
        self.apps
            .iter()
            .map(|run| (&*run.app, self.run(run.first, run.len)))
    }

    /// All upstreams of this host, by address, with the header that a pod there expects; several pods may share one.
    pub fn upstreams(&self) -> &[(Arc<Upstream>, SendProxy)] {
        &self.upstreams
    }

    /// Those at one address, each under a check of its own.
    pub fn upstreams_at(&self, addr: SocketAddr) -> impl Iterator<Item = &Upstream> {
        let first = self
            .upstreams
            .partition_point(|(upstream, _)| upstream.addr < addr);
        let from = self.upstreams[first..].iter();
        from.map(|(upstream, _)| &**upstream)
            .take_while(move |upstream| upstream.addr == addr)
    }

    fn view<'t>(&'t self, row: &'t Row) -> Service<'t> {
        Service {
            port: row.port,
            conf: self.conf.of_port(row.port.get()),
            scheme: &row.scheme,
            pods: self.run(row.first, row.len),
            is_app: row.app.is_some(),
            turn: &row.turn,
        }
    }

    fn run(&self, first: u32, len: u32) -> &[Pod] {
        &self.pods[first as usize..][..len as usize]
    }

    /// Loads of every pod, and of departed ones.
    fn loads(&self) -> impl Iterator<Item = (Identity, Arc<Load>)> {
        let mapped = self.services().filter(|service| !service.is_app);
        let of_pods = mapped.flat_map(|service| {
            service.pods.iter().filter_map(move |pod| {
                let host_port = HostPort::new(pod.upstream.addr.port())?;
                let identity = Identity::Mapping(service.port, host_port);
                Some((identity, Arc::clone(&pod.load)))
            })
        });
        let of_targets = self.apps.iter().flat_map(|run| {
            self.run(run.first, run.len).iter().map(|pod| {
                let identity = Identity::Target(Arc::clone(&run.app), pod.upstream.addr);
                (identity, Arc::clone(&pod.load))
            })
        });
        of_pods
            .chain(of_targets)
            .chain(self.departed.iter().cloned())
    }
}

/// Whether the clients of some port may be carried to other hosts.
fn crosses(conf: &Conf) -> bool {
    let mut kinds = conf.ports.kinds();
    kinds.any(|(_, kind)| kind.locality != Locality::Only)
}

#[cfg(test)]
mod tests;
