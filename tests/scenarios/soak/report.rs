//! What is watched meanwhile, and the page that tells of it.

use super::{Settings, Soak};
use snproxy_tests::{Host, snproxy_binary};
use std::{
    fmt::{self, Write},
    fs,
    process::Command,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

/// Most descriptors more than at the start when all is over: pools, and connections between the proxies.
const KEPT: usize = 560;
/// Rows of the table.
const ROWS: usize = 30;

/// The proxies at one moment.
pub(super) struct Sample {
    after: Duration,
    connections: u64,
    bytes: u64,
    hosts: Vec<State>,
}

#[derive(Clone, Copy)]
struct State {
    memory: u64,
    descriptors: usize,
    live: u64,
}

/// All samples, and how it was before and behind them.
pub(super) struct Watched {
    names: Vec<String>,
    before: Vec<State>,
    samples: Vec<Sample>,
    after: Vec<State>,
}

impl State {
    fn of(host: &Host) -> Self {
        Self {
            memory: host.rss(),
            descriptors: host.snproxy().descriptors(),
            live: host.count("/connections/live"),
        }
    }
}

impl Sample {
    pub(super) fn take(after: Duration, hosts: &[Host], soak: &Soak<'_>) -> Self {
        let sum = soak.tallies.sum();
        Self {
            after,
            connections: sum.one_host + sum.two_hosts,
            bytes: sum.bytes,
            hosts: hosts.iter().map(State::of).collect(),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, mib) = (self.after.as_secs(), self.bytes >> 20);
        write!(
            out,
            "{seconds:>4} s: {} connections, {mib} MiB",
            self.connections
        )?;
        for state in &self.hosts {
            let memory = mebibytes(state.memory);
            let State {
                descriptors, live, ..
            } = state;
            write!(
                out,
                " | {memory} MiB, {descriptors} descriptors, {live} live"
            )?;
        }
        Ok(())
    }
}

impl Watched {
    pub(super) fn new(hosts: &[Host]) -> Self {
        Self {
            names: hosts.iter().map(|host| host.name().to_owned()).collect(),
            before: hosts.iter().map(State::of).collect(),
            samples: Vec::new(),
            after: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(super) fn end(&mut self, hosts: &[Host]) {
        self.after = hosts.iter().map(State::of).collect();
    }

    /// Medians of memory and descriptors of a host in the first third and in the last one.
    fn thirds(&self, host: usize) -> [(u64, usize); 2] {
        let third = self.samples.len() / 3;
        let median = |samples: &[Sample]| {
            let mut memory: Vec<_> = samples.iter().map(|at| at.hosts[host].memory).collect();
            let mut descriptors: Vec<_> = samples
                .iter()
                .map(|at| at.hosts[host].descriptors)
                .collect();
            memory.sort_unstable();
            descriptors.sort_unstable();
            let middle = samples.len() / 2;
            (
                memory.get(middle).copied().unwrap_or_default(),
                descriptors.get(middle).copied().unwrap_or_default(),
            )
        };
        let last = &self.samples[self.samples.len() - third..];
        [median(&self.samples[..third]), median(last)]
    }

    /// Fails where something grows.
    #[track_caller]
    pub(super) fn check(&self) {
        for (at, name) in self.names.iter().enumerate() {
            let [(memory, descriptors), (later, more)] = self.thirds(at);
            assert!(
                later <= memory + memory / 5 + (1 << 20),
                "memory of {name} grows from {memory} to {later} bytes"
            );
            assert!(
                more <= descriptors + descriptors / 5 + 20,
                "descriptors of {name} grow from {descriptors} to {more}"
            );
            let (before, after) = (&self.before[at], &self.after[at]);
            assert!(
                after.descriptors <= before.descriptors + KEPT,
                "{name} has {} descriptors in the end, {} at the start",
                after.descriptors,
                before.descriptors
            );
        }
    }
}

/// Time between two samples.
pub(super) fn interval(length: Duration) -> Duration {
    (length / 60).clamp(Duration::from_secs(2), Duration::from_secs(10))
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{}", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20)
}

/// The page, in Markdown.
pub(super) fn written(
    settings: &Settings,
    soak: &Soak<'_>,
    watched: &Watched,
    faults: &[String],
) -> String {
    let mut page = String::new();
    // Writing to a String does not fail.
    let _ = put(&mut page, settings, soak, watched, faults);
    page
}

fn put(
    page: &mut String,
    settings: &Settings,
    soak: &Soak<'_>,
    watched: &Watched,
    faults: &[String],
) -> fmt::Result {
    let sum = soak.tallies.sum();
    let seconds = settings.length.as_secs();
    writeln!(page, "# Soak\n")?;
    writeln!(
        page,
        "Written by `cargo xtask soak`: {seconds} s, seed {}, {}, {}.\n",
        settings.seed,
        version(),
        machine()
    )?;
    writeln!(
        page,
        "Two hosts, pods on both, clients of both; every byte compared, both ends and the closing event of every\nconnection checked.\n"
    )?;
    let verdict = if faults.is_empty() {
        "nothing lost"
    } else {
        "FAULTS"
    };
    writeln!(
        page,
        "**{} connections, {} MiB: {verdict}.** {} reloads, {} pods stopped without a word ({} of their connections\ncut, as they must).\n",
        soak.ledger.connections(),
        sum.bytes >> 20,
        soak.reloads.load(Relaxed),
        soak.stops.load(Relaxed) / 2,
        soak.ledger.cut()
    )?;
    for fault in faults {
        writeln!(page, "- {fault}")?;
    }
    writeln!(page, "| connections | end | one host | across two | MiB |")?;
    writeln!(page, "| --- | --- | --- | --- | --- |")?;
    for (kind, tally) in soak.tallies.all() {
        writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            kind.name(),
            kind.end(),
            tally.one_host,
            tally.two_hosts,
            tally.bytes >> 20
        )?;
    }
    put_states(page, watched)
}

fn put_states(page: &mut String, watched: &Watched) -> fmt::Result {
    writeln!(page, "\n## Memory and descriptors\n")?;
    writeln!(
        page,
        "| proxy | | start | first third (median) | last third (median) | all gone |"
    )?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- |")?;
    for (at, name) in watched.names.iter().enumerate() {
        let [first, last] = watched.thirds(at);
        let (before, after) = (&watched.before[at], &watched.after[at]);
        let memory = [before.memory, first.0, last.0, after.memory].map(mebibytes);
        writeln!(page, "| {name} | MiB resident | {} |", memory.join(" | "))?;
        let descriptors = [before.descriptors, first.1, last.1, after.descriptors];
        let descriptors = descriptors.map(|count| count.to_string());
        writeln!(
            page,
            "| {name} | descriptors | {} |",
            descriptors.join(" | ")
        )?;
    }
    write!(page, "\n| s | connections | MiB |")?;
    for name in &watched.names {
        write!(page, " {name}: MiB resident | descriptors | live |")?;
    }
    write!(page, "\n| --- | --- | --- |")?;
    writeln!(page, "{}", " --- | --- | --- |".repeat(watched.names.len()))?;
    let every = watched.samples.len().div_ceil(ROWS).max(1);
    for sample in watched.samples.iter().step_by(every) {
        let (seconds, mib) = (sample.after.as_secs(), sample.bytes >> 20);
        write!(page, "| {seconds} | {} | {mib} |", sample.connections)?;
        for state in &sample.hosts {
            let memory = mebibytes(state.memory);
            write!(page, " {memory} | {} | {} |", state.descriptors, state.live)?;
        }
        writeln!(page)?;
    }
    Ok(())
}

fn version() -> String {
    let output = Command::new(snproxy_binary()).arg("--version").output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let mut models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let model = models
        .next()
        .unwrap_or_default()
        .trim_start_matches([':', '\t', ' ']);
    let count = 1 + models.count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{count} CPUs ({model}), Linux {}", kernel.trim())
}
