//! Measuring: all contestants of a case in turn, in rounds.

use crate::{
    cases::{Part, Work},
    contestants::{Contestant, Running, cpus},
    ground::{Ground, POD_PORT},
    load::{self, Outcome, Tls, Usage, to_f64},
    results::{self, Case, Round, Topology},
};
use anyhow::{Context, anyhow, bail, ensure};
use snproxy_tests::Process;
use std::{
    fmt,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long it is looked whether the machine is quiet, and how much of its processors may be in use then.
const QUIET: Duration = Duration::from_secs(2);
const MOST_USED: f64 = 0.1;

#[derive(Clone, Debug)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
    /// A round in which something went wrong is left out, rather than the end of all.
    pub(crate) keep_going: bool,
    pub(crate) interrupted: Arc<AtomicBool>,
}

impl Pace {
    /// Errors: Ctrl+C and its kin.
    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }
}

/// A contestant where it runs. It runs all the time: what it did in one case is what it brings to the next.
pub(crate) struct World {
    contestant: Contestant,
    // Fields drop in this order.
    running: Running,
    pod: Process,
    ground: Ground,
    pids: Vec<u32>,
}

impl World {
    /// Processes of its proxies.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    pub(crate) fn new(topology: Topology, contestant: &Contestant) -> Self {
        let ground = Ground::new(topology, &contestant.name);
        let host = ground.last();
        let mut command = host.own("pod");
        command.args(["--listen", &ground.pod_address().to_string()]);
        if contestant.is_beside() {
            // tls-client looks whether its server is well: through tls-server that is a connection to the pod, and its reset.
            command.arg("--rough");
        }
        let pod = host.server("pod", &mut command, POD_PORT);
        let running = contestant.start(&ground);
        contestant.assert_verifies(&ground);
        Self {
            pids: running.pids(),
            contestant: contestant.clone(),
            running,
            pod,
            ground,
        }
    }

    pub(crate) fn measure(&self, work: &Work, pace: &Pace) -> anyhow::Result<Outcome> {
        let case = serde_json::to_value(work.load)?;
        let mut command = self.ground.first().own("load");
        command
            .args(["--to", &self.running.to.to_string()])
            .args(["--case", case.as_str().unwrap_or_default()])
            .args(["--size", &work.size.to_string()])
            .args(["--connections", &work.connections.to_string()])
            .args(["--seconds", &pace.seconds.to_string()])
            .args(["--warm-up", &pace.warm_up.to_string()]);
        if let Part::Tls(Tls { version, resume }) = work.part {
            let version = serde_json::to_value(version)?;
            command.args(["--tls", version.as_str().unwrap_or_default()]);
            command.arg("--certs").arg(self.contestant.client_certs());
            if resume {
                command.arg("--resume");
            }
            // A handshake costs a client as much as a proxy: one thread of clients would be all that is measured.
            if work.load == load::Case::Connect {
                command.args(["--threads", &cpus().to_string()]);
            }
        }
        for pid in &self.pids {
            command.args(["--watch", &pid.to_string()]);
        }
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let logs = [self.running.logs(), self.pod.log()].concat();
            bail!("{} ({})\n{logs}", said.trim(), output.status);
        }
        let outcome: Outcome = serde_json::from_slice(&output.stdout)?;
        // Otherwise something else answered for it.
        ensure!(
            self.pids.is_empty() || outcome.watched_us > 0,
            "the proxy did nothing"
        );
        Ok(outcome)
    }
}

/// The share of the machine's processors that has something else to do, and a warning where that is much.
pub(crate) fn warn_if_busy() -> anyhow::Result<f64> {
    let used = Usage::of_others(QUIET)?;
    if used > MOST_USED {
        println!(
            "WARNING: the machine is busy with something else ({:.0} % of its processors): \
             the figures are not worth keeping",
            used * 100.0
        );
    }
    Ok(used)
}

/// Measures all of these; a line for each thing measured.
///
/// Rounds come outermost, so that each case is spread over the whole time. Within a round of a case the contestants
/// follow each other closely, each time in another order.
pub(crate) fn run(
    works: &[Work],
    contestants: &[Contestant],
    pace: &Pace,
) -> anyhow::Result<Vec<Case>> {
    let mut worlds = Vec::new();
    for topology in [Topology::OneHost, Topology::TwoHosts] {
        if works.iter().any(|work| work.topology == topology) {
            worlds.extend(contestants.iter().map(|one| World::new(topology, one)));
        }
    }
    // All of them run by now, and should have nothing to do.
    warn_if_busy()?;
    let mut cases: Vec<_> = works.iter().map(Work::case).collect();
    for case in &mut cases {
        let empty = |one: &Contestant| results::Contestant {
            name: one.name.clone(),
            rounds: Vec::new(),
        };
        case.contestants = contestants.iter().map(empty).collect();
    }
    let mut failures = Vec::new();
    let mut chance = Chance(0x5EED);
    let total = pace.rounds * works.len() * contestants.len();
    let mut done = 0;
    for round in 1..=pace.rounds {
        for (work, case) in works.iter().zip(&mut cases) {
            println!("round {round} of {}, {}", pace.rounds, case.name);
            let mut here: Vec<_> = worlds
                .iter()
                .filter(|world| world.ground.topology == work.topology)
                .collect();
            chance.shuffle(&mut here);
            let mut figures = Vec::new();
            for world in here {
                let outcome = world.measure(work, pace);
                pace.go_on()?;
                done += 1;
                let name = &world.contestant.name;
                match outcome {
                    Ok(outcome) => {
                        let round = work.round(&outcome, !world.pids.is_empty());
                        println!("  {done:>3}/{total} {name:<16} {}", Shown(work, &round));
                        figures.push((name.clone(), round));
                    }
                    Err(error) => {
                        let error = error.context(format!("round {round}, {}, {name}", case.name));
                        if !pace.keep_going {
                            return Err(error);
                        }
                        println!("  {done:>3}/{total} {name:<16} FAILED: {error:#}");
                        failures.push(format!("{error:#}"));
                    }
                }
            }
            // A round is kept whole or not at all: rounds are compared.
            if figures.len() == contestants.len() {
                for (name, round) in figures {
                    let of = case.contestants.iter_mut().find(|of| of.name == name);
                    of.context("a contestant of the case")?.rounds.push(round);
                }
            }
        }
    }
    if failures.is_empty() {
        return Ok(cases);
    }
    Err(anyhow!(
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n")
    ))
}

impl Work {
    fn round(&self, outcome: &Outcome, is_proxied: bool) -> Round {
        // Of a stream the operation is a GB, and the value Gbit/s.
        let count = to_f64(outcome.operations);
        let (value, operations) = if self.is_stream() {
            (outcome.per_second * 8e-9, count * 1e-9)
        } else {
            (outcome.per_second, count)
        };
        let latency = |us| (!self.is_stream()).then_some(us);
        Round {
            value,
            proxy_cpu_us_per_op: is_proxied.then(|| to_f64(outcome.watched_us) / operations),
            machine_cpu_us_per_op: to_f64(outcome.machine_us) / operations,
            p50_us: latency(outcome.p50_us),
            p99_us: latency(outcome.p99_us),
            resumed: outcome.resumed,
        }
    }
}

/// A round in words.
struct Shown<'r>(&'r Work, &'r Round);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(work, round) = self;
        let digits = usize::from(work.is_stream());
        write!(out, "{:>8.digits$} {}", round.value, work.unit())?;
        if let Some(us) = round.proxy_cpu_us_per_op {
            if work.is_stream() {
                write!(out, ", proxy CPU {:.3} s/GB", us / 1e6)?;
            } else {
                write!(out, ", proxy CPU {us:.1} us/{}", work.operation())?;
            }
        }
        if let Some(resumed) = round.resumed {
            write!(out, ", resumed {:.0} %", resumed * 100.0)?;
        }
        if let (Some(p50), Some(p99)) = (round.p50_us, round.p99_us) {
            write!(out, ", p50 {p50:.0} us, p99 {p99:.0} us")?;
        }
        Ok(())
    }
}

/// xorshift64 from a fixed seed: every run has the same order.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let drawn = self.next() % (last as u64 + 1);
            items.swap(last, usize::try_from(drawn).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_all_and_changes_the_order() {
        let mut chance = Chance(0x5EED);
        let mut items: Vec<u8> = (0..50).collect();
        chance.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
