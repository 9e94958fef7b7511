//! The cluster directory, simulated: hosts put what they serve into etcd, whose members tell all hosts of each change.

use std::collections::BTreeSet;
use std::time::Duration;

use snproxy::wire::directory::{Run, Serves, encode_block};

use crate::agenda::{Agenda, until_next};
use crate::costs::{KEEP_ALIVE, PACE, ROUND_TRIP, base64, cpu, etcd};

/// Hosts that time is taken at: where among those of a member they stand; the last one first.
const SAMPLES: [f64; 6] = [1.0, 0.1, 0.3, 0.5, 0.7, 0.9];

/// Of all ports that a cluster may have.
const FIRST: u32 = 5536;
const ALL: u32 = 60_000;

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
        // The last ones, which have five digits.
        let port = FIRST + (ALL - cluster.ports) + port;
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
    let mut applied = [Duration::ZERO; SAMPLES.len()];
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
                for (place, applied) in SAMPLES.iter().zip(&mut applied) {
                    let heard = begun + fan_out.mul_f64(*place) + ROUND_TRIP / 2;
                    // A host takes over what came since it did last, which was a while ago.
                    if heard > *applied {
                        *applied = heard.max(*applied + PACE);
                    }
                    let after = applied.saturating_sub(since).as_secs_f64();
                    if *place < 1.0 {
                        found.known.push(after);
                    } else {
                        found.known_by_all.push(after);
                    }
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
    let first = FIRST + (ALL - cluster.ports);
    let any = first + random.u32(..cluster.ports);
    let comes = ports.is_empty() || random.bool();
    let next = || ports.range(any..).chain(ports.iter()).next().copied();
    let port = if comes { any } else { next().unwrap_or(any) };
    if comes {
        ports.insert(port);
    } else {
        ports.remove(&port);
    }
    value(cluster, ports, port / cluster.block)
}

/// Bytes of a block, as hosts write it.
fn value(cluster: Cluster, ports: &BTreeSet<u32>, block: u32) -> f64 {
    let mut runs: Vec<Run> = Vec::new();
    let block = block * cluster.block..(block + 1) * cluster.block;
    for port in ports
        .range(block)
        .filter_map(|port| u16::try_from(*port).ok())
    {
        match runs.last_mut() {
            Some(run) if run.last + 1 == port => run.last = port,
            _ => runs.push(Run {
                first: port,
                last: port,
                serves: Serves {
                    pods: 1,
                    is_full: false,
                },
            }),
        }
    }
    encode_block(&runs).len() as f64
}
