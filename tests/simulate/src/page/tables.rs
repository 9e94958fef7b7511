//! The tables.

use snproxy_pages::table::{Table, number};

use super::{kilobytes, mebibytes, milliseconds, percent, whole};
use crate::costs::{self, CELL, KEEP_ALIVE, cpu, etcd};
use crate::directory::Seen;
use crate::paper;
use crate::probing::Counted;
use crate::study::{CHANGES, HOSTS, Probed, Study, Watched};

/// 1,000 hosts, 60,000 ports, 20 changes a second.
pub(super) fn both(study: &Study) -> String {
    let mut table = Table::new([
        "1,000 hosts, 60,000 ports, 20 changes/s",
        "probing, 60 ports in use",
        "probing, 600 in use",
        "directory",
    ]);
    let (Some(few), Some(many), Some(watched)) = (
        study.probed(1000, 60),
        study.probed(1000, 600),
        study.watched(1000, 20.0),
    ) else {
        return String::new();
    };
    let kept = watched.paper;
    let mut row = |what: &str, probing: &dyn Fn(&Probed) -> String, directory: String| {
        table.row([what.to_owned(), probing(few), probing(many), directory]);
    };
    let messages = |one: &Probed| whole(one.cost.packets);
    row("messages of a host/s", &messages, whole(kept.packets));
    let bytes = |one: &Probed| kilobytes(one.cost.bytes);
    row("kB of a host/s", &bytes, kilobytes(kept.bytes));
    let processor = |one: &Probed| percent(one.cost.cpu);
    row("processor of a host", &processor, percent(kept.host_cpu));
    let memory = |one: &Probed| mebibytes(paper::memory(one.load));
    row("MiB of a host", &memory, mebibytes(kept.memory));
    let questions = |one: &Probed| {
        let connections = one.load.rate * f64::from(one.load.ports);
        whole(one.paper.questions / connections)
    };
    row("questions for a connection", &questions, "none".to_owned());
    let asked = |one: &Probed| format!("{:.1} s (mean), where in use", paper::rest(one.load.rate));
    let known = watched.seen.as_ref().map(known).unwrap_or_default();
    row("a host knows of a change after", &asked, known);
    row(
        "a port that nobody serves",
        &|_| "accepted, asked about, reset".to_owned(),
        "refused at the first SYN".to_owned(),
    );
    let member = format!(
        "{:.2} processors, {} MB/s, {} MiB",
        kept.member_cpu,
        number(kept.member_bytes / 1e6),
        mebibytes(kept.member_memory)
    );
    row("a member of etcd", &|_| "none".to_owned(), member);
    table.to_string()
}

fn known(seen: &Seen) -> String {
    let [half, most] = [50, 99].map(|percent| milliseconds(at(&seen.known, percent)));
    format!("{half} ms (p50), {most} ms (p99)")
}

fn at(ordered: &[f64], percent: usize) -> f64 {
    let at = ordered.len() * percent / 100;
    ordered.get(at).copied().unwrap_or_default()
}

/// How many answers there are to remember.
fn answers(one: &Probed) -> String {
    let over = if one.is_remembered() { "" } else { " (over)" };
    whole(one.cells() as f64) + over
}

pub(super) fn probing(study: &Study) -> String {
    let mut table = Table::new([
        "ports in use",
        "hosts",
        "questions/s, paper",
        "simulated",
        "new connections/s, paper",
        "simulated",
        "messages/s",
        "kB/s",
        "processor",
        "answers",
        "MiB",
    ]);
    for one in &study.probing {
        let simulated = |count: fn(&Counted) -> u64| {
            let rate = one.counted.map(|it| count(&it) as f64 / it.seconds);
            rate.map(whole).unwrap_or_default()
        };
        table.row([
            whole(one.load.ports),
            whole(one.load.hosts),
            whole(one.paper.questions),
            simulated(|it| it.questions),
            whole(one.paper.connects),
            simulated(|it| it.connects),
            whole(one.cost.packets),
            kilobytes(one.cost.bytes),
            percent(one.cost.cpu),
            answers(one),
            mebibytes(paper::memory(one.load)),
        ]);
    }
    table.to_string()
}

pub(super) fn demand(study: &Study) -> String {
    let mut table = Table::new([
        "ports in use",
        "connections/s to each",
        "questions/s, paper",
        "simulated",
        "questions for a connection",
        "waits, paper",
        "simulated",
        "mean wait, ms",
        "answers",
    ]);
    for (one, it) in counted(&study.demand) {
        let connections = it.connections as f64;
        let wait = it.wait.as_secs_f64() / it.waited as f64;
        table.row([
            whole(one.load.ports),
            one.load.rate.to_string(),
            whole(one.paper.questions),
            whole(it.questions as f64 / it.seconds),
            whole(it.questions as f64 / connections),
            percent(paper::waits(one.load)),
            percent(it.waited as f64 / connections),
            if it.waited > 0 {
                milliseconds(wait)
            } else {
                String::new()
            },
            answers(one),
        ]);
    }
    table.to_string()
}

fn counted(all: &[Probed]) -> impl Iterator<Item = (&Probed, Counted)> {
    all.iter().filter_map(|one| Some((one, one.counted?)))
}

pub(super) fn moving(study: &Study) -> String {
    let mut table = Table::new([
        "moves of a port's pods/s",
        "connections",
        "by way of the old host",
        "that found nobody",
    ]);
    for (one, it) in counted(&study.moving) {
        let part = percent(it.in_vain as f64 / it.connections as f64);
        table.row([
            one.load.moves.to_string(),
            whole(it.connections as f64),
            format!("{} ({part})", it.in_vain),
            it.lost.to_string(),
        ]);
    }
    table.to_string()
}

pub(super) fn directory(study: &Study) -> String {
    let mut table = Table::new([
        "changes/s",
        "hosts",
        "messages/s of a host",
        "kB/s of a host",
        "processor of a host",
        "processors of a member",
        "MB/s of a member",
        "MiB of a member",
        "known by the last, paper",
        "simulated",
        "by a host, p50",
        "p99",
    ]);
    for changes in CHANGES {
        for one in HOSTS
            .iter()
            .filter_map(|hosts| study.watched(*hosts, changes))
        {
            let kept = one.paper;
            let times = one.seen.as_ref();
            let times = times.map(|seen| [seen.last(), at(&seen.known, 50), at(&seen.known, 99)]);
            let [last, half, most] = times.map(|it| it.map(milliseconds)).unwrap_or_default();
            table.row([
                whole(changes),
                whole(one.cluster.hosts),
                whole(kept.packets),
                kilobytes(kept.bytes),
                percent(kept.host_cpu),
                format!("{:.2}", kept.member_cpu),
                number(kept.member_bytes / 1e6),
                mebibytes(kept.member_memory),
                kept.known.map(milliseconds).unwrap_or_default(),
                last,
                half,
                most,
            ]);
        }
    }
    table.to_string()
}

/// What is read at a start, and written for a change.
pub(super) fn starts(all: &[Watched], what: &str, of: impl Fn(&Watched) -> u32) -> String {
    let mut table = Table::new([
        what,
        "keys of a host",
        "MB read at a start, paper",
        "simulated",
        "all at once, GB",
        "members busy, s",
        "MiB of a host",
        "bytes of an event, paper",
        "simulated",
        "kB/s of a host",
    ]);
    for one in all {
        let (kept, cluster) = (one.paper, one.cluster);
        let Some(seen) = &one.seen else { continue };
        let hosts = f64::from(cluster.hosts);
        let processors = f64::from(cluster.members) * cluster.processors;
        table.row([
            whole(of(one)),
            number(kept.keys),
            number(kept.start_bytes / 1e6),
            number(seen.start_bytes / 1e6),
            number(hosts * seen.start_bytes / 1e9),
            number(hosts * seen.keys as f64 * cpu::KEY / processors),
            mebibytes(kept.memory),
            whole(kept.event),
            whole(seen.event),
            kilobytes(kept.bytes),
        ]);
    }
    table.to_string()
}

pub(super) fn costs() -> String {
    let (question, answer) = costs::lines();
    let micros = |seconds: f64| format!("{} µs", number(seconds * 1e6));
    let bytes = |bytes: f64| format!("{} bytes", whole(bytes));
    let two = |one: String, other: String| format!("{one}, {other}");
    let rows = [
        (
            "a question, its answer",
            two(
                bytes(question),
                format!(
                    "{}, and three packets of {}",
                    bytes(answer),
                    whole(costs::SEGMENT)
                ),
            ),
        ),
        (
            "a question, of who asks and of who answers",
            two(micros(cpu::ASK), micros(cpu::ANSWER)),
        ),
        ("a further one in the same segment", micros(cpu::FURTHER)),
        (
            "a connection for a question, likewise",
            two(micros(cpu::CONNECT), micros(cpu::ACCEPT)),
        ),
        ("an answer that is remembered", bytes(CELL as f64)),
        (
            "an event to one watcher, the value empty; its acknowledgement",
            two(bytes(etcd::EVENT), bytes(etcd::EVENT_ACK)),
        ),
        (
            "a put, the value empty; its answer",
            two(bytes(etcd::PUT), bytes(etcd::PUT_ANSWER)),
        ),
        (
            "a keep-alive, its answer",
            format!(
                "{}, each {} s",
                two(bytes(etcd::KEEP_ALIVE), bytes(etcd::KEEP_ALIVE_ANSWER)),
                whole(KEEP_ALIVE)
            ),
        ),
        ("a key of a range, the value empty", bytes(etcd::KEY)),
        (
            "until a put is committed",
            format!("{} ms", milliseconds(etcd::COMMIT)),
        ),
        ("etcd: an event to one watcher", micros(cpu::EVENT)),
        ("etcd: a put, at each of three members", micros(cpu::PUT)),
        (
            "etcd: a keep-alive, all members together",
            micros(cpu::KEEP_ALIVE),
        ),
        ("etcd: a key of a range", micros(cpu::KEY)),
        (
            "etcd: memory for a watcher",
            format!("{} KiB", whole(etcd::WATCHER / 1024.0)),
        ),
    ];
    let mut table = Table::new(["what", "cost"]);
    for (what, cost) in rows {
        table.row([what.to_owned(), cost]);
    }
    table.to_string()
}
