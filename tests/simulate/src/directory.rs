//! The cluster directory, simulated: hosts put what they serve into etcd, whose members tell all hosts of each change.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::agenda::{Agenda, until_next};
use crate::costs::{KEEP_ALIVE, LINE, ROUND_TRIP, base64, cpu, etcd};

/// Watchers that time is taken at, of each change.
const SAMPLES: usize = 8;

/// A cluster with a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cluster {
    pub(crate) hosts: u32,
    pub(crate) ports: u32,
    /// Hosts that have a pod of a port.
    pub(crate) pods: u32,
    /// Pods that come or go, a second.
    pub(crate) changes: f64,
    /// Ports of a key.
    pub(crate) block: u32,
    /// Members of etcd, and processors of each.
    pub(crate) members: u32,
    pub(crate) processors: f64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Keys and bytes that a host reads when it starts.
    pub(crate) keys: u64,
    pub(crate) start_bytes: f64,
    /// Mean bytes of an event, and of a put with its answer.
    pub(crate) event: f64,
    /// Seconds until a host, and the last host, knows of a change, in order.
    pub(crate) known: Vec<f64>,
    pub(crate) known_by_all: Vec<f64>,
}

impl Seen {
    /// Mean time until the last host knows.
    pub(crate) fn last(&self) -> f64 {
        self.known_by_all.iter().sum::<f64>() / self.known_by_all.len() as f64
    }
}

enum Event {
    Changes,
    /// A member has this change, of then, to tell.
    Committed(Duration),
}

impl Cluster {
    /// Processors that are left to tell of changes.
    pub(crate) fn speed(self, background: f64) -> f64 {
        (self.processors - background).max(f64::MIN_POSITIVE)
    }
}

/// Runs etcd for `seconds` of changes.
pub(crate) fn run(cluster: Cluster, seconds: f64, seed: u64) -> Seen {
    let mut random = fastrand::Rng::with_seed(seed);
    let hosts = cluster.hosts as usize;
    let mut served: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); hosts];
    for port in 0..cluster.ports {
        for host in random.choose_multiple(0..hosts, cluster.pods.min(cluster.hosts) as usize) {
            served[host].insert(port);
        }
    }
    let mut found = Seen::default();
    for ports in &served {
        let blocks: BTreeSet<u32> = ports.iter().map(|port| port / cluster.block).collect();
        found.keys += 1 + blocks.len() as u64;
        let values = blocks
            .iter()
            .map(|block| base64(value(cluster, ports, *block)));
        found.start_bytes += (1 + blocks.len()) as f64 * etcd::KEY + values.sum::<f64>();
    }

    let watchers = f64::from(cluster.hosts) / f64::from(cluster.members);
    let alive =
        f64::from(cluster.hosts) / KEEP_ALIVE * cpu::KEEP_ALIVE / f64::from(cluster.members);
    let processors = cluster.speed(alive);
    let fan_out = Duration::from_secs_f64(watchers * cpu::EVENT / processors);
    let put = Duration::from_secs_f64(cpu::PUT / processors);
    // All members do the same at the same time: one stands for them.
    let mut free = Duration::ZERO;
    let (mut changes, mut bytes) = (0u32, 0.0);
    let mut agenda = Agenda::new();
    agenda.plan(until_next(cluster.changes, &mut random), Event::Changes);
    let end = Duration::from_secs_f64(seconds);
    while let Some(event) = agenda.next(end) {
        match event {
            Event::Changes => {
                agenda.plan(until_next(cluster.changes, &mut random), Event::Changes);
                let host = random.usize(..hosts);
                bytes += etcd::EVENT + base64(change(cluster, &mut served[host], &mut random));
                changes += 1;
                let commit = Duration::from_secs_f64(etcd::COMMIT) + ROUND_TRIP / 2;
                agenda.plan(commit, Event::Committed(agenda.now()));
            }
            Event::Committed(since) => {
                let begun = free.max(agenda.now()) + put;
                free = begun + fan_out;
                let after =
                    |done: Duration| (done.saturating_sub(since) + ROUND_TRIP / 2).as_secs_f64();
                found.known_by_all.push(after(free));
                for _ in 0..SAMPLES {
                    found
                        .known
                        .push(after(begun + fan_out.mul_f64(random.f64())));
                }
            }
        }
    }
    found.event = bytes / f64::from(changes.max(1));
    found.known.sort_by(f64::total_cmp);
    found.known_by_all.sort_by(f64::total_cmp);
    found
}

/// A pod of a port goes, or one comes; bytes of the block that is written for it.
fn change(cluster: Cluster, ports: &mut BTreeSet<u32>, random: &mut fastrand::Rng) -> f64 {
    let comes = ports.is_empty() || random.bool();
    let port = if comes {
        random.u32(..cluster.ports)
    } else {
        let which = random.usize(..ports.len());
        ports.iter().nth(which).copied().unwrap_or_default()
    };
    if comes {
        ports.insert(port);
    } else {
        ports.remove(&port);
    }
    value(cluster, ports, port / cluster.block)
}

fn value(cluster: Cluster, ports: &BTreeSet<u32>, block: u32) -> f64 {
    let lines = ports
        .range(block * cluster.block..(block + 1) * cluster.block)
        .count();
    2.0 + LINE * lines as f64
}
