//! What the daemon tells about itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tracing::warn;

use crate::addr::{Action, PortSet};
use crate::admin::api;
use crate::conf::SendProxy;
use crate::flow::limits::Thing;
use crate::route::Table;
use crate::route::peers::Standing;
use crate::route::plan::{Lot, Reason};
use crate::route::queue::Waiting;
use crate::route::service::{Asker, Upstream, Verdict};

use super::Daemon;
use super::steer::PortState;

impl Daemon {
    pub(super) fn status(&self) -> api::Status {
        let shared = Arc::clone(&self.shared);
        let table = shared.table.load_full();
        let kernel = self.steerer.counters().and_then(|counters| {
            let counts = counters.counts();
            counts
                .inspect_err(|error| warn!(%error, "read the kernel's counters"))
                .ok()
        });
        let now = Instant::now();
        let mapped = table.services().filter(|service| !service.is_app);
        let pods = mapped.flat_map(|service| {
            service.pods.iter().map(move |pod| api::PodStatus {
                cluster_port: service.port.get(),
                host_port: pod.upstream.addr.port(),
                upstream: pod.upstream.addr.to_string(),
                active: pod.load.active(),
                max_conn: pod.max_conn,
                send_proxy: name_of(pod.send_proxy).to_owned(),
                up: pod.upstream.is_up(),
                health: health(&pod.upstream, now),
            })
        });
        let waiting = shared.live.waiting();
        let others = table.peers.list();
        let up = others.iter().filter(|peer| peer.is_up()).count();
        let draining = others.iter().filter(|peer| peer.drains(now)).count();
        api::Status {
            state: if self.draining { "draining" } else { "running" }.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.since.elapsed().as_secs(),
            generation: table.generation,
            steering: self.steerer.mechanism().to_owned(),
            host: self.started_with.host.to_string(),
            port: self.started_with.port,
            ports: self.steerer.port_counts(),
            hosts: api::HostCounts {
                up,
                draining,
                down: others.len() - up - draining,
            },
            directory: self.directory.state(&table),
            connections: api::Connections {
                live: shared.live.now().saturating_sub(waiting),
                waiting,
                total: shared.live.total(),
            },
            ends: shared
                .ends
                .all()
                .map(|(end, count)| (end.name().to_owned(), count))
                .collect(),
            kernel: kernel.map(|counts| api::Kernel {
                steered: counts.steered,
                refused: counts.refused,
                no_listener: counts.no_listener,
                failed: counts.failed,
                limited: counts.limited,
            }),
            reload: self.reloaded(),
            pending: self.steerer.pending.clone(),
            all_out: self.steerer.plan().all_out().to_string(),
            conflicts: self.conflicts(&table),
            pods: pods.collect(),
            apps: apps(&table),
            refusals: self.loaded.refusals(),
            certificates: self.certificates(),
            certificate_sources: self.certificate_sources(),
            services: self.names.services.status(),
            queues: self.queues(),
            header_delays: self.header_delays(&table),
            limits: api::Limits {
                connections: shared.limits.max_conn(&table.conf),
                descriptors_open: descriptors_open(),
                descriptors: getrlimit(Resource::Nofile).current,
            },
        }
    }

    fn conflicts(&self, table: &Table) -> api::Conflicts {
        let conflicts = self.steerer.conflicts(table);
        api::Conflicts {
            held: conflicts.held.to_string(),
            held_ports: conflicts.held.len(),
            shadowed: conflicts.shadowed.to_string(),
            shadowed_ports: conflicts.shadowed.len(),
        }
    }

    fn queues(&self) -> Vec<api::Queue> {
        let waiting = |waiting: &Waiting| api::Waiting {
            client: waiting.client.to_string(),
            waited_ms: millis(waiting.since.elapsed()),
        };
        let table = self.shared.table.load();
        let lines = self.shared.limits.lines().into_iter();
        lines
            .map(|(thing, line)| api::Queue {
                limit: thing.limit().to_owned(),
                what: match thing {
                    Thing::Any => format!("a place under {}", table.conf.name_of_max_conn()),
                    _ => thing.to_string(),
                },
                waiting: line.iter().map(waiting).collect(),
            })
            .collect()
    }

    pub(super) fn ports(&self) -> api::Ports {
        let lookups = self.steerer.counters().and_then(|counters| {
            let lookups = counters.lookups();
            lookups
                .inspect_err(|error| warn!(%error, "read the kernel's counters"))
                .ok()
        });
        let lookups = |port: u16| {
            lookups
                .as_ref()
                .and_then(|all| all.get(usize::from(port)))
                .copied()
                .unwrap_or(0)
        };
        let limited = self.steerer.limited();
        let limited = |port: u16| limited.get(&port).copied().unwrap_or(0);
        let foreign = self.steerer.foreign();
        let table = self.shared.table.load_full();
        let mut apps: Vec<Option<&str>> = vec![None; 65_536];
        for app in &table.conf.apps {
            for port in app.ports() {
                apps[usize::from(port)] = Some(&app.name);
            }
        }
        let mut ranges: Vec<api::Range> = Vec::new();
        let mut last: Option<(u16, Lot, Option<PortState>)> = None;
        for (port, lot) in self.steerer.plan().ports() {
            let (owner, app) = (foreign.on(port), apps[usize::from(port)]);
            if lot.reason == Reason::Foreign {
                continue;
            }
            let state = self.steerer.state_of(port);
            match ranges.last_mut() {
                Some(range)
                    if last == port.checked_sub(1).map(|before| (before, lot, state))
                        && range.app.as_deref() == app
                        && owner.is_none()
                        && range.owner.is_none() =>
                {
                    range.last = port;
                    range.lookups += lookups(port);
                    range.limited += limited(port);
                }
                _ => ranges.push(api::Range {
                    first: port,
                    last: port,
                    action: self.action_now(lot, state).to_string(),
                    reason: lot.reason.to_string(),
                    state: state.map(|state| state.to_string()),
                    app: app.map(str::to_owned),
                    lookups: lookups(port),
                    limited: limited(port),
                    owner: owner.map(|socket| api::Owner {
                        address: socket.addr.to_string(),
                        uid: socket.uid,
                        inode: socket.inode,
                        shadowed: lot.action != Action::Pass,
                        pid: None,
                        name: None,
                    }),
                }),
            }
            last = Some((port, lot, state));
        }
        let has_ended = self.has_ended_steering();
        let note = has_ended.then(|| "draining: snproxy takes no new connections".to_owned());
        api::Ports { ranges, note }
    }

    pub(super) fn routes(&self) -> api::Routes {
        let table = self.shared.table.load_full();
        let peers = &table.peers;
        let now = Instant::now();
        let upstreams = table.upstreams().iter().map(|(upstream, _)| api::Upstream {
            address: upstream.addr.to_string(),
            up: upstream.is_up(),
            health: health(upstream, now),
        });
        let view = peers.view();
        let publishes = |at| view.as_ref().is_some_and(|view| view.publishes(at));
        let hosts = peers.list().iter().zip(0..).map(|(peer, at)| api::Host {
            name: peer.name.to_string(),
            address: peer.addr().to_string(),
            up: peer.is_up(),
            draining: peer.drains(now),
            retry_ms: peer
                .upstream
                .health()
                .next()
                .map(|next| millis(next.saturating_duration_since(now))),
            counts_pods: !peers.is_plain(peer, now),
            published: publishes(at),
        });
        let mut routes = Vec::new();
        for (port, _) in peers.remembered() {
            // What the directory says of it by now.
            let Some(answers) = peers.answers_as_they_are(port) else {
                continue;
            };
            let told = answers.told();
            let is_told = |at| {
                let said = told.as_ref().and_then(|told| told.of(at));
                said.is_some_and(|said| said.is_sure)
            };
            let search = table.search(port, Asker::default(), Arc::clone(&answers));
            let counted = search.counted(now);
            for remembered in answers.remembered(now) {
                let (answer, pods) = match remembered.standing {
                    Standing::Unknown if remembered.live == 0 => continue,
                    Standing::Unknown => ("unknown", 0),
                    Standing::Serves(pods) => ("serves", pods),
                    Standing::Busy => ("busy", 0),
                    Standing::NotHere => ("not here", 0),
                    Standing::Silent => ("silent", 0),
                };
                let counted = counted.get(remembered.peer).copied().unwrap_or(0);
                let counted = u16::try_from(counted).unwrap_or(u16::MAX);
                routes.push(api::Route {
                    port,
                    pods_counted: (0 < counted && counted < pods).then_some(counted),
                    host: peers.list()[remembered.peer].name.to_string(),
                    answer: answer.to_owned(),
                    pods,
                    age_ms: (!is_told(remembered.peer)).then(|| millis(remembered.age)),
                    live: remembered.live,
                });
            }
        }
        api::Routes {
            upstreams: upstreams.collect(),
            hosts: hosts.collect(),
            routes,
            apps: apps(&table),
        }
    }
}

/// The apps with what is known of their targets.
fn apps(table: &Table) -> Vec<api::App> {
    let pods = table.apps().map(|(_, pods)| pods);
    let apps = table.conf.apps.iter().zip(pods);
    let apps = apps.map(|(app, pods)| {
        let targets = app.targets.iter().map(|target| {
            let addrs = target.addrs.iter();
            let addrs = addrs.map(|ip| SocketAddr::new(*ip, target.port));
            let at = |addr| pods.iter().find(|pod| pod.upstream.addr == addr);
            let addresses = addrs.filter_map(at).map(|pod| api::TargetAddress {
                upstream: pod.upstream.addr.to_string(),
                active: pod.load.active(),
                up: pod.upstream.is_up(),
            });
            api::Target {
                target: target.to_string(),
                weight: target.weight,
                max_conn: target.max_conn,
                send_proxy: name_of(target.send_proxy).to_owned(),
                addresses: addresses.collect(),
            }
        });
        api::App {
            name: app.name.to_string(),
            ports: app.ports().collect::<PortSet>().to_string(),
            targets: targets.collect(),
        }
    });
    apps.collect()
}

fn name_of(send_proxy: SendProxy) -> &'static str {
    match send_proxy {
        SendProxy::No => "false",
        SendProxy::V1 => "v1",
        SendProxy::V2 => "v2",
    }
}

/// `None` where the kernel does not tell.
pub(super) fn descriptors_open() -> Option<u64> {
    const OPEN: &str = "/proc/self/fd";
    // Since Linux 6.2 the folder's size is their number; before it was 0.
    match std::fs::metadata(OPEN).ok()?.len() {
        0 => std::fs::read_dir(OPEN).ok()?.count().try_into().ok(),
        open => Some(open),
    }
}

fn health(upstream: &Upstream, now: Instant) -> api::Health {
    let health = upstream.health();
    let ago = |at: Instant| millis(now.saturating_duration_since(at));
    let last = upstream.last();
    let result = |last: &Verdict| {
        let error = last.error.as_deref();
        error.unwrap_or("passed its check").to_owned()
    };
    api::Health {
        check: upstream.check.to_string(),
        since_ms: health.since().map(ago),
        last: last.as_ref().map(result),
        last_ms: last.as_ref().map(|last| ago(last.at)),
        next_check_ms: health
            .next()
            .map(|next| millis(next.saturating_duration_since(now))),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
