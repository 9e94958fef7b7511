//! What is simulated, and compared with the paper.

use snproxy::wire::directory::BLOCK;

use crate::directory::{self, Cluster, Seen};
use crate::paper::{self, Asked, Cost, Kept};
use crate::probing::{self, Counted, Load};

pub(crate) const SEED: u64 = 6;

pub(crate) const HOSTS: [u32; 6] = [10, 30, 100, 300, 1000, 3000];
/// Cluster ports that the clients of a host use: 0.01 %, 0.1 % and 1 % of 60,000.
pub(crate) const USED: [u32; 3] = [6, 60, 600];
pub(crate) const CHANGES: [f64; 3] = [1.0, 20.0, 100.0];
pub(crate) const PORTS: [u32; 4] = [100, 1000, 10_000, 60_000];
pub(crate) const BLOCKS: [u32; 4] = [256, 1024, 8192, 65_536];
pub(crate) const ALL_PORTS: u32 = 60_000;
/// Hosts that have a pod of a port.
pub(crate) const PODS: u32 = 2;
/// A host spends this part of a processor on knowing who serves what, and no more.
pub(crate) const BUDGET: f64 = 0.05;
/// How busy the processors of a member of etcd may be.
pub(crate) const MEMBER_BUDGET: f64 = 0.5;
/// How far apart paper and simulation may be.
pub(crate) const TOLERANCE: f64 = 0.06;
pub(crate) const MEMBERS: u32 = 3;
pub(crate) const PROCESSORS: f64 = 4.0;

/// Questions that a simulation goes on for, those of each other host, and seconds at least and at most.
const EVENTS: f64 = 20_000.0;
const ROUNDS: f64 = 300.0;
const SECONDS: (f64, f64) = (2.0, 200.0);
/// More questions a second, or in all, are left to the paper.
const MANY: f64 = 60_000.0;
const MOST: f64 = 400_000.0;

pub(crate) struct Study {
    pub(crate) seed: u64,
    /// By hosts and ports in use.
    pub(crate) probing: Vec<Probed>,
    /// 1,000 hosts, 60 connections a second over few ports or many.
    pub(crate) demand: Vec<Probed>,
    /// Ports of which pods move.
    pub(crate) moving: Vec<Probed>,
    /// By hosts and changes.
    pub(crate) directory: Vec<Watched>,
    /// By ports.
    pub(crate) starts: Vec<Watched>,
    /// By ports of a key.
    pub(crate) blocks: Vec<Watched>,
}

pub(crate) struct Probed {
    pub(crate) load: Load,
    pub(crate) paper: Asked,
    /// Of what the paper says.
    pub(crate) cost: Cost,
    pub(crate) counted: Option<Counted>,
}

pub(crate) struct Watched {
    pub(crate) cluster: Cluster,
    pub(crate) paper: Kept,
    pub(crate) seen: Option<Seen>,
}

impl Study {
    pub(crate) fn new(seed: u64) -> Self {
        let loads = USED
            .iter()
            .flat_map(|ports| HOSTS.map(|hosts| load(hosts, *ports, 1.0)));
        let demand = [(6, 10.0), (60, 1.0), (600, 0.1), (6000, 0.01), (6000, 0.1)];
        let demand = demand.map(|(ports, rate)| load(100, ports, rate));
        let moving = [0.001, 0.01, 0.1].map(|moves| Load {
            moves,
            ..load(30, 60, 1.0)
        });
        let clusters = CHANGES
            .iter()
            .flat_map(|changes| HOSTS.map(|hosts| cluster(hosts, ALL_PORTS, *changes)));
        Self {
            seed,
            probing: loads.map(|load| Probed::new(load, seed)).collect(),
            demand: demand.map(|load| Probed::new(load, seed)).into(),
            moving: moving.map(|load| Probed::new(load, seed)).into(),
            directory: clusters.map(|one| Watched::new(one, seed)).collect(),
            blocks: BLOCKS
                .map(|block| {
                    Watched::new(
                        Cluster {
                            block,
                            ..cluster(1000, ALL_PORTS, 20.0)
                        },
                        seed,
                    )
                })
                .into(),
            starts: PORTS
                .map(|ports| Watched::new(cluster(1000, ports, 20.0), seed))
                .into(),
        }
    }

    pub(crate) fn probed(&self, hosts: u32, ports: u32) -> Option<&Probed> {
        let mut all = self.probing.iter();
        all.find(|one| one.load.hosts == hosts && one.load.ports == ports)
    }

    pub(crate) fn watched(&self, hosts: u32, changes: f64) -> Option<&Watched> {
        let is_it = |one: &&Watched| {
            one.cluster.hosts == hosts && (one.cluster.changes - changes).abs() < f64::EPSILON
        };
        self.directory.iter().find(is_it)
    }

    /// How far paper and simulation are apart at most, as a part of what the paper says.
    pub(crate) fn worst(&self) -> f64 {
        let all = self.probing.iter().chain(&self.demand).chain(&self.moving);
        let probing = all.filter_map(Probed::error);
        let all = self
            .directory
            .iter()
            .chain(&self.starts)
            .chain(&self.blocks);
        probing
            .chain(all.filter_map(Watched::error))
            .fold(0.0, f64::max)
    }
}

pub(crate) fn load(hosts: u32, ports: u32, rate: f64) -> Load {
    Load {
        hosts,
        ports,
        rate,
        pods: PODS,
        // 20 changes a second over all ports: a move is two of them.
        moves: 20.0 / 2.0 / f64::from(ALL_PORTS),
    }
}

pub(crate) fn cluster(hosts: u32, ports: u32, changes: f64) -> Cluster {
    Cluster {
        hosts,
        ports,
        pods: PODS,
        changes,
        block: BLOCK.into(),
        members: MEMBERS,
        processors: PROCESSORS,
    }
}

impl Probed {
    fn new(load: Load, seed: u64) -> Self {
        let paper = paper::asked(load);
        let events = EVENTS.max(ROUNDS * f64::from(load.hosts));
        let seconds = (events / paper.questions).clamp(SECONDS.0, SECONDS.1);
        Self {
            load,
            paper,
            cost: paper::cost(paper.questions, paper.questions, paper.connects),
            counted: (paper.questions <= MANY && events <= MOST)
                .then(|| probing::run(load, seconds, seed)),
        }
    }

    /// Answers that a host would have to remember.
    pub(crate) fn cells(&self) -> u64 {
        u64::from(self.load.ports) * u64::from(self.load.hosts - 1)
    }

    pub(crate) fn is_remembered(&self) -> bool {
        self.cells() <= crate::costs::MAX_CELLS
    }

    /// Between the questions that were counted and those on paper.
    pub(crate) fn error(&self) -> Option<f64> {
        let counted = self.counted?;
        let off = |counted: u64, seconds: f64, paper: f64| {
            let is_often = paper * seconds > 1000.0;
            is_often.then(|| (counted as f64 / seconds / paper - 1.0).abs())
        };
        let questions = off(counted.questions, counted.seconds, self.paper.questions);
        let connects = off(counted.connects, counted.seconds, self.paper.connects);
        self.is_remembered()
            .then(|| questions.unwrap_or(0.0).max(connects.unwrap_or(0.0)))
    }
}

impl Watched {
    fn new(cluster: Cluster, seed: u64) -> Self {
        let paper = paper::kept(cluster);
        let seconds = 5000.0 / cluster.changes;
        Self {
            cluster,
            paper,
            seen: paper.known.map(|_| directory::run(cluster, seconds, seed)),
        }
    }

    pub(crate) fn error(&self) -> Option<f64> {
        let seen = self.seen.as_ref()?;
        let known = (seen.last() / self.paper.known? - 1.0).abs();
        let start = (seen.start_bytes / self.paper.start_bytes - 1.0).abs();
        Some(known.max(start))
    }
}

/// The greatest number of hosts at which `cost` stays within `budget`; it grows with the hosts.
pub(crate) fn most_hosts(budget: f64, cost: impl Fn(u32) -> f64) -> u32 {
    let (mut good, mut bad) = (1u32, 1_000_000u32);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if cost(middle) <= budget {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}
