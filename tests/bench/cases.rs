//! What is measured, and what snproxy must show in it.

use crate::{
    load::{self, Tls, Version},
    results::{Against, Better, Case, Goal, Of, Topology},
};

/// One case: how the load generator is called, and how its figures are shown.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) topology: Topology,
    pub(crate) load: load::Case,
    pub(crate) size: u32,
    pub(crate) connections: usize,
    /// At least this many times HAProxy's best.
    against_haproxy: Option<f64>,
    against_direct: Option<f64>,
    pub(crate) part: Part,
}

/// What the proxies of a case are there for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// Plain connections through a cluster.
    Cluster,
    /// They end the TLS of clients.
    Tls(Tls),
    /// They speak TLS to each other, and the clients know nothing of it.
    Pair,
    /// One address, one server.
    Ambassador,
}

const RECENT: Tls = Tls {
    version: Version::Tls13,
    resume: false,
};
const OLDER: Tls = Tls {
    version: Version::Tls12,
    resume: false,
};

/// Proxy CPU per GB: at most this share of HAProxy's best.
const CPU_OF_STREAMS: f64 = 0.5;

/// All of them, in the order they are shown in.
pub(crate) fn all() -> Vec<Work> {
    use Topology::{OneHost, TwoHosts};
    use load::Case::{Connect, Down, Rr, Up};
    let work = |topology, load, size, connections, against_haproxy| Work {
        topology,
        load,
        size,
        connections,
        against_haproxy,
        against_direct: None,
        part: Part::Cluster,
    };
    let and_direct = |work, ratio| Work {
        against_direct: Some(ratio),
        ..work
    };
    let bulk = 16 << 10;
    vec![
        work(OneHost, Connect, 64, 64, Some(1.1)),
        work(OneHost, Rr, 64, 1, Some(1.1)),
        work(OneHost, Rr, 64, 64, Some(1.1)),
        work(OneHost, Rr, bulk, 64, Some(1.1)),
        and_direct(work(OneHost, Up, 0, 1, Some(2.0)), 0.55),
        and_direct(work(OneHost, Down, 0, 1, Some(2.0)), 0.55),
        work(OneHost, Up, 0, 8, Some(1.2)),
        work(OneHost, Down, 0, 8, Some(1.2)),
        work(TwoHosts, Connect, 64, 64, Some(1.0)),
        work(TwoHosts, Rr, 64, 1, None),
        work(TwoHosts, Rr, 64, 64, None),
        work(TwoHosts, Rr, bulk, 64, None),
        work(TwoHosts, Up, 0, 1, Some(1.8)),
        work(TwoHosts, Down, 0, 1, Some(1.8)),
        work(TwoHosts, Up, 0, 8, Some(1.8)),
        work(TwoHosts, Down, 0, 8, Some(1.8)),
    ]
}

/// Of proxies that end the TLS of clients.
pub(crate) fn tls() -> Vec<Work> {
    use load::Case::{Connect, Down, Rr, Up};
    let resumed = |tls| Tls {
        resume: true,
        ..tls
    };
    let of = |tls, load, connections| Work::of(Part::Tls(tls), load, connections);
    vec![
        of(RECENT, Up, 1),
        of(RECENT, Down, 1),
        of(RECENT, Connect, 64),
        of(resumed(RECENT), Connect, 64),
        of(RECENT, Rr, 1),
        of(RECENT, Rr, 64),
        of(OLDER, Up, 1),
        of(OLDER, Down, 1),
        of(OLDER, Connect, 64),
        of(resumed(OLDER), Connect, 64),
    ]
}

/// Of proxies that speak TLS to each other, or carry connections to one server.
pub(crate) fn plain(part: Part) -> Vec<Work> {
    use load::Case::{Connect, Down, Rr, Up};
    let cases = [(Up, 1), (Down, 1), (Rr, 1), (Rr, 64), (Connect, 64)];
    let cases = cases.into_iter();
    cases
        .map(|(load, count)| Work::of(part, load, count))
        .collect()
}

impl Work {
    /// Without a goal.
    fn of(part: Part, load: load::Case, connections: usize) -> Self {
        let topology = match part {
            Part::Pair => Topology::TwoHosts,
            Part::Cluster | Part::Tls(_) | Part::Ambassador => Topology::OneHost,
        };
        let size = match load {
            load::Case::Connect | load::Case::Rr => 64,
            load::Case::Up | load::Case::Down => 0,
        };
        Self {
            topology,
            load,
            size,
            connections,
            against_haproxy: None,
            against_direct: None,
            part,
        }
    }

    /// Unique: `rr-64-c64-two-hosts`.
    pub(crate) fn name(&self) -> String {
        let Self {
            size, connections, ..
        } = self;
        let hosts = match self.topology {
            Topology::OneHost => "one-host",
            Topology::TwoHosts => "two-hosts",
        };
        let part = match self.part {
            Part::Cluster => "",
            Part::Tls(Tls { version, resume }) => match (version, resume) {
                (Version::Tls12, false) => "tls12-",
                (Version::Tls12, true) => "tls12-resumed-",
                (Version::Tls13, false) => "tls13-",
                (Version::Tls13, true) => "tls13-resumed-",
            },
            Part::Pair => "pair-",
            Part::Ambassador => "ambassador-",
        };
        match self.load {
            load::Case::Connect => format!("{part}connect-{hosts}"),
            load::Case::Rr => format!("{part}rr-{size}-c{connections}-{hosts}"),
            load::Case::Up => format!("{part}up-c{connections}-{hosts}"),
            load::Case::Down => format!("{part}down-c{connections}-{hosts}"),
        }
    }

    fn title(&self) -> String {
        let Self { connections, .. } = self;
        let plural = if *connections == 1 { "" } else { "s" };
        let size = match self.size {
            size if size >= 1024 => format!("{} KiB", size >> 10),
            size => format!("{size} B"),
        };
        let what = match self.load {
            load::Case::Connect => format!("connections, {connections} at once"),
            load::Case::Rr => {
                format!("request/response {size}, {connections} connection{plural}")
            }
            load::Case::Up => format!("stream up, {connections} connection{plural}"),
            load::Case::Down => format!("stream down, {connections} connection{plural}"),
        };
        match self.part {
            Part::Cluster => what,
            Part::Tls(Tls { version, resume }) => {
                let version = match version {
                    Version::Tls12 => "1.2",
                    Version::Tls13 => "1.3",
                };
                let kind = match (self.load, resume) {
                    (load::Case::Connect, false) => ", full handshake",
                    (load::Case::Connect, true) => ", resumed",
                    _ => "",
                };
                format!("TLS {version}: {what}{kind}")
            }
            Part::Pair => format!("pair: {what}"),
            Part::Ambassador => format!("ambassador: {what}"),
        }
    }

    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.load, load::Case::Up | load::Case::Down)
    }

    pub(crate) fn unit(&self) -> &'static str {
        match self.load {
            load::Case::Connect => "connections/s",
            load::Case::Rr => "requests/s",
            load::Case::Up | load::Case::Down => "Gbit/s",
        }
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self.load {
            load::Case::Connect => "connection",
            load::Case::Rr => "request",
            load::Case::Up | load::Case::Down => "GB",
        }
    }

    fn goals(&self) -> Vec<Goal> {
        let goal = |against, of| move |ratio| Goal { against, ratio, of };
        let is_cluster = self.part == Part::Cluster;
        let cpu = (is_cluster && self.is_stream()).then_some(CPU_OF_STREAMS);
        let goals = [
            self.against_haproxy.map(goal(Against::Haproxy, Of::Value)),
            self.against_direct.map(goal(Against::Direct, Of::Value)),
            cpu.map(goal(Against::Haproxy, Of::ProxyCpu)),
        ];
        goals.into_iter().flatten().collect()
    }

    /// Without any round yet.
    pub(crate) fn case(&self) -> Case {
        Case {
            name: self.name(),
            title: self.title(),
            topology: self.topology,
            unit: self.unit().to_owned(),
            better: Better::More,
            operation: self.operation().to_owned(),
            goals: self.goals(),
            contestants: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_cases_share_a_name() {
        let mut cases = [all(), tls()].concat();
        cases.extend([Part::Pair, Part::Ambassador].into_iter().flat_map(plain));
        let names: BTreeSet<_> = cases.iter().map(Work::name).collect();
        assert_eq!(names.len(), cases.len());
    }
}
