//! What was measured, as it stands in the JSON, and the figures that are drawn from it.
//!
//! Contestants of a case take turns: round `n` of one stands beside round `n` of every other, so ratios are taken within
//! a round, where the machine was the same, and the median is taken of the ratios.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(crate) const DIRECT: &str = "direct";
pub(crate) const SNPROXY: &str = "snproxy";

/// The ways HAProxy is set up in; the better one in a case is what that case is compared with.
/// As its packages set it up, plain and with splice-auto: the better one is what goals are against.
pub(crate) const HAPROXY: [&str; 2] = ["haproxy", "haproxy-splice"];
/// Plain, with larger buffers than its default.
pub(crate) const HAPROXY_LARGE: &str = "haproxy-64k";

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    /// Shape: `2026-11-21T12:00:00Z`.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    /// Made by `--quick`: fewer and shorter rounds.
    pub(crate) quick: bool,
    pub(crate) cases: Vec<Case>,
    pub(crate) ports: Vec<PortsRow>,
    pub(crate) idle: Vec<IdleRow>,
    pub(crate) burst: Option<BurstRow>,
    #[serde(default)]
    pub(crate) flood: Option<FloodTable>,
    #[serde(default)]
    pub(crate) tls: Option<TlsTable>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) congestion_control: String,
    pub(crate) sysctls: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Versions {
    pub(crate) snproxy: String,
    pub(crate) haproxy: String,
    pub(crate) nginx: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) topology: Topology,
    /// Of `Round::value`.
    pub(crate) unit: String,
    pub(crate) better: Better,
    /// What CPU time is counted per: `connection`, `request`, `GB`.
    pub(crate) operation: String,
    pub(crate) goals: Vec<Goal>,
    pub(crate) contestants: Vec<Contestant>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Topology {
    OneHost,
    TwoHosts,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Better {
    More,
    Less,
}

/// What snproxy must show in a case: the median of its paired ratios.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Goal {
    pub(crate) against: Against,
    /// At least this much where more is better, at most this much where less is.
    pub(crate) ratio: f64,
    pub(crate) of: Of,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Against {
    Direct,
    /// HAProxy's best in the case.
    Haproxy,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Of {
    Value,
    ProxyCpu,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    /// In the order of time; as many as every contestant of the case has.
    pub(crate) rounds: Vec<Round>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Round {
    pub(crate) value: f64,
    /// CPU time of the proxy's processes, both of them across two hosts; none for a direct connection.
    pub(crate) proxy_cpu_us_per_op: Option<f64>,
    /// CPU time of the whole machine, load and kernel included.
    pub(crate) machine_cpu_us_per_op: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
    /// Share of the connections that took up a TLS session again, where that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resumed: Option<f64>,
}

/// One proxy with that many cluster ports.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct PortsRow {
    pub(crate) contestant: String,
    pub(crate) ports: u32,
    pub(crate) rounds: Vec<PortsRound>,
    /// What the proxy said where it does not take so many; there are no rounds then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PortsRound {
    /// From exec until a byte came back from the pod through the last port.
    pub(crate) ready_ms: f64,
    /// From exec until the proxy itself says that it is ready, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) said_ready_ms: Option<f64>,
    /// Resident memory of all its processes.
    pub(crate) rss_kib: u64,
    /// The same after the change.
    pub(crate) rss_changed_kib: u64,
    /// Memory of the kernel that came with it, of the whole machine: other processes add their noise.
    pub(crate) kernel_kib: i64,
    /// From the write of the changed file until the changed port answers from its new pod.
    pub(crate) change_ms: f64,
}

/// Memory of one proxy around its idle connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct IdleRow {
    pub(crate) contestant: String,
    pub(crate) connections: u32,
    pub(crate) rounds: Vec<IdleRound>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct IdleRound {
    pub(crate) before: Memory,
    pub(crate) with: Memory,
    /// After all of them were closed.
    pub(crate) after: Memory,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Memory {
    /// Resident memory of all processes of the proxy.
    pub(crate) rss_kib: u64,
    /// Slab of the whole machine: client's and pod's sockets are in it too.
    pub(crate) slab_kib: u64,
}

/// Memory of snproxy around a burst of connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct BurstRow {
    pub(crate) connections: u32,
    pub(crate) rounds: Vec<BurstRound>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct BurstRound {
    pub(crate) before: Memory,
    pub(crate) top: Memory,
    /// 30 s after the last connection was closed, or as soon as a twentieth of what came is left.
    pub(crate) after: Memory,
}

/// What clients of one port feel while another port of the proxy is flooded.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct FloodTable {
    /// It can be measured by itself.
    pub(crate) date: String,
    /// Share of the processors that other programs used when it began.
    pub(crate) others: f64,
    pub(crate) rows: Vec<FloodRow>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct FloodRow {
    pub(crate) contestant: String,
    pub(crate) rounds: Vec<FloodRound>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct FloodRound {
    pub(crate) connect_p50_us: f64,
    pub(crate) connect_p99_us: f64,
    /// From the connect to the first byte of the answer.
    pub(crate) answer_p50_us: f64,
    pub(crate) answer_p99_us: f64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// The same before the flood.
    pub(crate) quiet_answer_p50_us: f64,
    pub(crate) quiet_answer_p99_us: f64,
    /// Connections that the flood got in.
    pub(crate) flood_per_second: f64,
    pub(crate) flood_failed: u64,
}

/// TLS and ambassadors.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TlsTable {
    /// It can be measured by itself.
    pub(crate) date: String,
    /// Share of the processors that other programs used when it began.
    pub(crate) others: f64,
    /// Of proxies that end the TLS of clients.
    pub(crate) ends: Vec<Case>,
    /// Of proxies that speak TLS to each other.
    pub(crate) pairs: Vec<Case>,
    /// Of proxies that carry connections to one server.
    pub(crate) ambassadors: Vec<Case>,
}

/// Median with the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(*sorted.get(middle.wrapping_sub(1))?, sorted[middle])
        };
        Some(Self {
            median,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }
}

impl Contestant {
    pub(crate) fn value(&self) -> Option<Spread> {
        self.figures(|round| Some(round.value))
    }

    pub(crate) fn proxy_cpu(&self) -> Option<Spread> {
        self.figures(|round| round.proxy_cpu_us_per_op)
    }

    /// Median, least and greatest of one figure over the rounds that have it.
    pub(crate) fn figures(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(figure))
    }

    /// Ratios to another contestant, each taken within one round.
    pub(crate) fn ratio(&self, to: &Self, of: Of) -> Option<Spread> {
        let pairs = self.rounds.iter().zip(&to.rounds);
        Spread::of(pairs.filter_map(|(mine, theirs)| Some(of.figure(mine)? / of.figure(theirs)?)))
    }
}

impl Of {
    fn figure(self, round: &Round) -> Option<f64> {
        match self {
            Self::Value => Some(round.value),
            Self::ProxyCpu => round.proxy_cpu_us_per_op,
        }
    }
}

impl Case {
    pub(crate) fn contestant(&self, name: &str) -> Option<&Contestant> {
        self.contestants.iter().find(|one| one.name == name)
    }

    /// The better of HAProxy's ways by its median.
    pub(crate) fn best_haproxy(&self, of: Of) -> Option<&Contestant> {
        let median = |one: &&Contestant| Some(one.figures(|round| of.figure(round))?.median);
        let ways = HAPROXY.into_iter().filter_map(|name| self.contestant(name));
        let ranked = ways.filter(|way| median(way).is_some());
        match self.better_of(of) {
            Better::More => {
                ranked.max_by(|a, b| median(a).partial_cmp(&median(b)).expect("finite"))
            }
            Better::Less => {
                ranked.min_by(|a, b| median(a).partial_cmp(&median(b)).expect("finite"))
            }
        }
    }

    /// Which way of a figure is the good one; CPU time is best saved in any case.
    pub(crate) fn better_of(&self, of: Of) -> Better {
        match of {
            Of::Value => self.better,
            Of::ProxyCpu => Better::Less,
        }
    }

    /// The ratios of snproxy that a goal speaks of.
    pub(crate) fn reached(&self, goal: Goal) -> Option<Spread> {
        let to = match goal.against {
            Against::Direct => self.contestant(DIRECT)?,
            Against::Haproxy => self.best_haproxy(goal.of)?,
        };
        self.contestant(SNPROXY)?.ratio(to, goal.of)
    }

    /// Whether a ratio is as good as a goal asks.
    pub(crate) fn meets(&self, goal: Goal, ratio: f64) -> bool {
        match self.better_of(goal.of) {
            Better::More => ratio >= goal.ratio,
            Better::Less => ratio <= goal.ratio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contestant(name: &str, values: &[f64]) -> Contestant {
        let round = |value: &f64| Round {
            value: *value,
            proxy_cpu_us_per_op: Some(100.0 / value),
            machine_cpu_us_per_op: 1.0,
            p50_us: None,
            p99_us: None,
            resumed: None,
        };
        Contestant {
            name: name.to_owned(),
            rounds: values.iter().map(round).collect(),
        }
    }

    fn case(better: Better) -> Case {
        Case {
            name: "connect".to_owned(),
            title: "connections".to_owned(),
            topology: Topology::OneHost,
            unit: "connections/s".to_owned(),
            better,
            operation: "connection".to_owned(),
            goals: Vec::new(),
            contestants: vec![
                contestant(DIRECT, &[10.0, 20.0, 40.0]),
                contestant(SNPROXY, &[5.0, 12.0, 16.0]),
                contestant("haproxy", &[4.0, 4.0, 4.0]),
                contestant("haproxy-splice", &[2.0, 6.0, 8.0]),
            ],
        }
    }

    #[track_caller]
    fn check(figures: &[f64], expected: Option<[f64; 3]>) {
        let spread = Spread::of(figures.iter().copied());
        assert_eq!(spread.map(|s| [s.median, s.min, s.max]), expected);
    }

    #[test]
    fn the_median_stands_in_the_middle() {
        check(&[], None);
        check(&[3.0], Some([3.0, 3.0, 3.0]));
        check(&[3.0, 1.0], Some([2.0, 1.0, 3.0]));
        check(&[9.0, 1.0, 2.0], Some([2.0, 1.0, 9.0]));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let goal = Goal {
            against: Against::Direct,
            ratio: 0.5,
            of: Of::Value,
        };
        let reached = case(Better::More).reached(goal);
        // Of the medians it would be 12 / 20.
        assert_eq!(
            reached.map(|s| [s.median, s.min, s.max]),
            Some([0.5, 0.4, 0.6])
        );
    }

    #[test]
    fn the_best_of_haproxy_is_by_what_is_better() {
        let best = |better, of| case(better).best_haproxy(of).map(|one| one.name.clone());
        assert_eq!(
            best(Better::More, Of::Value).as_deref(),
            Some("haproxy-splice")
        );
        assert_eq!(best(Better::Less, Of::Value).as_deref(), Some("haproxy"));
        assert_eq!(
            best(Better::More, Of::ProxyCpu).as_deref(),
            Some("haproxy-splice")
        );
    }
}
