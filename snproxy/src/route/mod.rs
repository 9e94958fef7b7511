//! Policy: which upstream a connection goes to, and what becomes of each port.
//!
//! No I/O, no clock, no randomness of its own: all three are arguments.

pub mod balance;
pub mod health;
pub mod load;
pub mod peers;
pub mod plan;
pub mod queue;
pub mod search;
pub mod service;
pub mod sources;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use crate::addr::{ClusterPort, HostPort};
use crate::conf::{Conf, Locality, Mapping, SendProxy};

use balance::Scheme;
use load::Load;
use peers::{Answers, Peers};
use search::Search;
use service::{Pod, Service, Upstream};

/// The routes of all cluster ports: immutable, swapped whole on reload.
///
/// Shape: pods in one run per cluster port, found through a number per port: 61,744 services take
/// about 4 MiB.
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
    /// By cluster port: number of the service plus one, 0 for none.
    index: Box<[u16]>,
    /// Loads of mappings that left: they count on while anything holds them, and again if the mapping returns.
    departed: Vec<((ClusterPort, HostPort), Arc<Load>)>,
}

/// One service as the table stores it.
struct Row {
    port: ClusterPort,
    first: u32,
    len: u32,
    turn: AtomicU32,
    scheme: Scheme,
}

impl Table {
    /// The table of `conf`; loads, health and answers of what `old` knows already are kept.
    pub fn build(conf: Arc<Conf>, old: Option<&Self>, now: Instant) -> Self {
        let mut kept: HashMap<SocketAddr, Arc<Upstream>> = HashMap::new();
        let mut loads: HashMap<(ClusterPort, HostPort), Arc<Load>> = HashMap::new();
        if let Some(old) = old {
            kept.extend(
                old.upstreams
                    .iter()
                    .map(|(upstream, _)| (upstream.addr, Arc::clone(upstream))),
            );
            loads.extend(old.loads());
        }

        let mut mappings: Vec<&Mapping> = conf.mappings.iter().collect();
        // Stable: within a cluster port the order of the file stays, which `ordered` follows.
        mappings.sort_by_key(|mapping| mapping.cluster_port);

        let mut upstreams: HashMap<SocketAddr, (Arc<Upstream>, SendProxy)> = HashMap::new();
        let mut pods = Vec::with_capacity(mappings.len());
        let mut services: Vec<Row> = Vec::new();
        let mut index = vec![0u16; 65_536].into_boxed_slice();
        for mapping in mappings {
            let addr = SocketAddr::new(conf.pod_host, mapping.host_port.get());
            let (upstream, _) = upstreams.entry(addr).or_insert_with(|| {
                let upstream = kept.remove(&addr);
                let new = || Arc::new(Upstream::new(addr));
                (upstream.unwrap_or_else(new), mapping.send_proxy)
            });
            let identity = (mapping.cluster_port, mapping.host_port);
            pods.push(Pod {
                upstream: Arc::clone(upstream),
                load: loads.remove(&identity).unwrap_or_default(),
                max_conn: mapping.max_conn,
                send_proxy: mapping.send_proxy,
            });
            match services.last_mut() {
                Some(row) if row.port == mapping.cluster_port => row.len += 1,
                _ => {
                    let first = u32::try_from(pods.len() - 1).expect("conf bounds the mappings");
                    let port = mapping.cluster_port;
                    services.push(Row {
                        port,
                        first,
                        len: 1,
                        turn: AtomicU32::new(old.map_or(0, |old| old.turn(port))),
                        // Made below, when all of its pods are known.
                        scheme: Scheme::default(),
                    });
                    // At most 65,535 distinct non-zero ports: the number fits.
                    index[usize::from(port.get())] = u16::try_from(services.len()).unwrap_or(0);
                }
            }
        }
        for row in &mut services {
            let of_row = &pods[row.first as usize..][..row.len as usize];
            let weighed = of_row
                .iter()
                .map(|pod| (balance::identity(pod.upstream.addr), 1));
            let conf = conf.of_port(row.port.get()).balance;
            row.scheme = Scheme::build(conf.policy, conf.strict, &weighed.collect::<Vec<_>>());
        }
        let departed: HashSet<_> = old
            .iter()
            .flat_map(|old| old.departed.iter().map(|(identity, _)| *identity))
            .collect();
        let mut upstreams: Vec<_> = upstreams.into_values().collect();
        upstreams.sort_by_key(|(upstream, _)| upstream.addr);
        let crosses = conf
            .ports
            .kinds()
            .any(|kind| kind.locality != Locality::Only);
        let others = conf
            .other_hosts()
            .filter(|_| crosses)
            .filter_map(|host| Some((&*host.name, host.addr()?)));
        let this = conf.this_host.and_then(|at| conf.hosts.get(at));
        let identity = this.map_or(0, |host| balance::name(&host.name, host.port));
        let peers = Peers::build(others, old.map(|old| &old.peers), now);
        Self {
            conf,
            peers,
            identity,
            generation: old.map_or(0, |old| old.generation) + 1,
            upstreams,
            pods,
            services,
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

    /// The service of a cluster port, if any pod here is mapped to it.
    pub fn service(&self, port: u16) -> Option<Service<'_>> {
        let number = usize::from(self.index[usize::from(port)]).checked_sub(1)?;
        Some(self.view(&self.services[number]))
    }

    /// The way of a client's connection, by its key, through all that may serve this port, on any host; `answers` are
    /// those for the port.
    pub fn search(&self, port: u16, key: u64, answers: Arc<Answers>) -> Search<'_> {
        Search::new(
            self.service(port),
            &self.peers,
            answers,
            self.conf.of_port(port),
            self.identity,
            key,
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

    /// All upstreams of this host, by address, with the header that a pod there expects; several pods may share one.
    pub fn upstreams(&self) -> &[(Arc<Upstream>, SendProxy)] {
        &self.upstreams
    }

    fn view<'t>(&'t self, row: &'t Row) -> Service<'t> {
        let first = row.first as usize;
        let pods = &self.pods[first..first + row.len as usize];
        Service {
            port: row.port,
            conf: self.conf.of_port(row.port.get()),
            scheme: &row.scheme,
            pods,
            turn: &row.turn,
        }
    }

    /// Loads of every pod, and of departed ones.
    fn loads(&self) -> impl Iterator<Item = ((ClusterPort, HostPort), Arc<Load>)> {
        let of_pods = self.services().flat_map(|service| {
            service.pods.iter().filter_map(move |pod| {
                let host_port = HostPort::new(pod.upstream.addr.port())?;
                Some(((service.port, host_port), Arc::clone(&pod.load)))
            })
        });
        of_pods.chain(self.departed.iter().cloned())
    }
}

#[cfg(test)]
mod tests;
