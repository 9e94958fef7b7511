//! A table in the making: pods, and the services that they are of.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use rustls_pki_types::ServerName;

use crate::addr::ClusterPort;
use crate::conf::{App, Balance, Check, Conf, Mapping, PortConf, SendProxy};

use super::balance::{self, Scheme};
use super::load::Load;
use super::service::{Pod, Secured, Upstream};
use super::{Identity, Row, Run, Table};

/// What upstreams differ in.
type Key = (SocketAddr, Arc<Check>, Option<Arc<Secured>>);

pub(super) struct Draft<'a> {
    conf: &'a Conf,
    old: Option<&'a Table>,
    /// When upstreams came that the last table did not know; `None` for the first table.
    came: Option<Instant>,
    /// Upstreams of the last table.
    kept: HashMap<SocketAddr, Vec<Arc<Upstream>>>,
    checks: HashSet<Arc<Check>>,
    secured: HashSet<Arc<Secured>>,
    upstreams: HashMap<Key, (Arc<Upstream>, SendProxy)>,
    /// Loads of the last table that no pod has yet.
    pub(super) loads: HashMap<Identity, Arc<Load>>,
    pub(super) pods: Vec<Pod>,
    pub(super) services: Vec<Row>,
    pub(super) apps: Vec<Run>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(conf: &'a Conf, old: Option<&'a Table>, now: Instant) -> Self {
        let mut kept: HashMap<SocketAddr, Vec<Arc<Upstream>>> = HashMap::new();
        for (upstream, _) in old.iter().flat_map(|old| &old.upstreams) {
            kept.entry(upstream.addr)
                .or_default()
                .push(Arc::clone(upstream));
        }
        Self {
            conf,
            old,
            // Those of the first table are as old as anybody knows.
            came: old.is_some().then_some(now),
            kept,
            checks: HashSet::new(),
            secured: HashSet::new(),
            upstreams: HashMap::new(),
            loads: old.into_iter().flat_map(Table::loads).collect(),
            pods: Vec::with_capacity(conf.mappings.len()),
            services: Vec::new(),
            apps: Vec::with_capacity(conf.apps.len()),
        }
    }

    /// Adds the pod of a mapping; those of one cluster port come one after the other.
    pub(super) fn map(&mut self, mapping: &Mapping) {
        let port = mapping.cluster_port;
        let addr = SocketAddr::new(self.conf.pod_host, mapping.host_port.get());
        let conf = Arc::clone(self.conf.of_port(port.get()));
        let identity = Identity::Mapping(port, mapping.host_port);
        let pod = Pod {
            upstream: self.upstream(addr, "", &conf, mapping.send_proxy),
            load: self.loads.remove(&identity).unwrap_or_default(),
            weight: 1,
            max_conn: mapping.max_conn,
            send_proxy: mapping.send_proxy,
        };
        let first = self.pods_so_far();
        self.pods.push(pod);
        match self.services.last_mut() {
            Some(row) if row.port == port => row.len += 1,
            _ => {
                let row = self.row(port, first, 1);
                self.services.push(row);
            }
        }
    }

    /// Adds an app: the addresses of its targets, for all of its ports.
    pub(super) fn app(&mut self, app: &App) {
        let name: Arc<str> = Arc::from(&*app.name);
        let first = self.pods_so_far();
        // Its targets are those of all of its ports.
        let first_port = app.ports().next().unwrap_or(0);
        let conf = Arc::clone(self.conf.of_port(first_port));
        let mut known = HashSet::new();
        for target in &app.targets {
            let addrs = target.addrs.iter();
            let addrs = addrs.map(|ip| SocketAddr::new(*ip, target.port));
            // Of two targets with one address the first counts.
            for addr in addrs.filter(|addr| known.insert(*addr)) {
                let identity = Identity::Target(Arc::clone(&name), addr);
                let pod = Pod {
                    upstream: self.upstream(addr, &target.host, &conf, target.send_proxy),
                    load: self.loads.remove(&identity).unwrap_or_default(),
                    weight: target.weight,
                    max_conn: target.max_conn,
                    send_proxy: target.send_proxy,
                };
                self.pods.push(pod);
            }
        }
        let len = self.pods_so_far() - first;
        let number = u32::try_from(self.apps.len()).ok();
        for port in app.ports().filter_map(ClusterPort::new) {
            let row = Row {
                app: number,
                ..self.row(port, first, len)
            };
            self.services.push(row);
        }
        let app = name;
        self.apps.push(Run { app, first, len });
    }

    /// Prepares what the policies need, once all pods are there.
    pub(super) fn balance(&mut self) {
        let mut made: HashMap<(u32, Balance), Scheme> = HashMap::new();
        let old = self.old;
        for row in &mut self.services {
            let pods = &self.pods[row.first as usize..][..row.len as usize];
            let balance = self.conf.of_port(row.port.get()).balance;
            let build = || {
                let weighed = pods
                    .iter()
                    .map(|pod| (balance::identity(pod.upstream.addr), pod.weight));
                let weighed = weighed.collect::<Vec<_>>();
                let before = old.and_then(|old| old.service(row.port.get()));
                let before = before.map_or_else(Scheme::default, |before| before.scheme.clone());
                // Two seconds for the tables of 20,000 ports, of which a reload changes few.
                before.rebuild(balance.policy, balance.strict, &weighed)
            };
            // The ports of an app have the same pods.
            row.scheme = match row.app {
                Some(app) => made.entry((app, balance)).or_insert_with(build).clone(),
                None => build(),
            };
        }
    }

    /// All upstreams, by address.
    pub(super) fn upstreams(&mut self) -> Vec<(Arc<Upstream>, SendProxy)> {
        let upstreams = self.upstreams.drain().map(|(_, upstream)| upstream);
        let mut upstreams: Vec<_> = upstreams.collect();
        upstreams.sort_by_key(|(upstream, _)| upstream.addr);
        upstreams
    }

    fn pods_so_far(&self) -> u32 {
        u32::try_from(self.pods.len()).expect("conf bounds mappings and targets")
    }

    fn row(&self, port: ClusterPort, first: u32, len: u32) -> Row {
        Row {
            port,
            app: None,
            first,
            len,
            turn: AtomicU32::new(self.old.map_or(0, |old| old.turn(port))),
            scheme: Scheme::default(),
        }
    }

    /// The upstream at `addr`, known as `name`, for ports with this `conf`, with what the last table knew of it, under
    /// this check or another.
    fn upstream(
        &mut self,
        addr: SocketAddr,
        name: &str,
        conf: &PortConf,
        send_proxy: SendProxy,
    ) -> Arc<Upstream> {
        let check = shared(&mut self.checks, &conf.health);
        let secured = conf.upstream_tls.as_ref().map(|how| {
            let name = how.name.as_deref().unwrap_or(name);
            let name = ServerName::try_from(name).map(|name| name.to_owned());
            let secured = Secured {
                how: Arc::clone(how),
                name: name.unwrap_or_else(|_| addr.ip().into()),
            };
            shared(&mut self.secured, &secured)
        });
        let key = (addr, Arc::clone(&check), secured.clone());
        let (kept, came) = (&self.kept, self.came);
        let (upstream, _) = self.upstreams.entry(key).or_insert_with(|| {
            let known = kept.get(&addr).map_or(&[][..], Vec::as_slice);
            let same =
                |upstream: &&Arc<Upstream>| upstream.check == check && upstream.tls == secured;
            let same = known.iter().find(same);
            let new = || {
                let before = known.first().map(|arc| &**arc);
                let check = Arc::clone(&check);
                Arc::new(Upstream::under(addr, check, secured.clone(), before, came))
            };
            (same.cloned().unwrap_or_else(new), send_proxy)
        });
        Arc::clone(upstream)
    }
}

/// The one that is equal to `value`: 60,000 ports may share it.
fn shared<T: Clone + Eq + Hash>(all: &mut HashSet<Arc<T>>, value: &T) -> Arc<T> {
    if let Some(known) = all.get(value) {
        return Arc::clone(known);
    }
    let value = Arc::new(value.clone());
    all.insert(Arc::clone(&value));
    value
}
