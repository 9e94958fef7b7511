//! Many ports, and memory.

use super::{
    figures::{or_none, spread},
    goals::{Line, Verdict},
};
use crate::results::{
    BurstRound, IdleRound, IdleRow, Memory, PortsRound, PortsRow, Results, SNPROXY, Spread,
};
use snproxy_pages::table::{Table, number};

pub(super) type PortsFigure = fn(&PortsRound) -> f64;

const MANY: u32 = 61_000;
const MAX_MIB: f64 = 16.0;
const MAX_READY_MS: f64 = 500.0;
const MAX_CHANGE_MS: f64 = 200.0;
/// Of an idle connection, in bytes.
const MAX_IDLE: f64 = 2560.0;
/// Least part of what a burst added that must be given back.
const MIN_RETURNED: f64 = 0.9;

const PORTS_TEXT: &str = "\
All ports lead to one pod; the mapping of the last port is the one that changes, to another pod. *Ready* is the time from exec until a byte \
came from the pod through the last port. *Change* is the time from the rename over the configuration file until the last port answers from \
the other pod; snproxy sees the file by itself, HAProxy (master and worker) and nginx get their signal at once. *Memory* is what is resident in all \
processes of the proxy, pages that they share counted once; *kernel* is the slab that came with it in the whole machine (so it has some noise), \
and its page tables and BPF maps. snproxy has one mapping per port and one listening socket; HAProxy and nginx are given a range of ports in one section, \
the cheapest form they have, and open a socket for each.";

const IDLE_TEXT: &str = "\
Each connection exchanged 64 bytes both ways and then did nothing. *Each* is what the proxy's processes grew by, per connection. *Kernel* is the slab that \
came with a connection in the whole machine: the sockets of client and pod are in it too, and they are the same for all.";

pub(super) fn ports(rows: &[PortsRow]) -> String {
    let mut table = Table::new([
        "ports",
        "proxy",
        "ready, ms",
        "change, ms",
        "memory, MiB",
        "after the change, MiB",
        "kernel, MiB",
    ]);
    for row in rows {
        let ports = number(row.ports.into());
        let name = bold(&row.contestant);
        if let Some(why) = &row.refused {
            let none = String::new;
            let refused = format!("refused: `{why}`");
            table.row([ports, name, refused, none(), none(), none(), none()]);
            continue;
        }
        let shown = |figure: fn(&PortsRound) -> f64| or_none(ports_figure(row, figure), spread);
        table.row([
            ports,
            name,
            shown(|round| round.ready_ms),
            shown(|round| round.change_ms),
            shown(|round| mib(round.rss_kib)),
            shown(|round| mib(round.rss_changed_kib)),
            shown(kernel_mib),
        ]);
    }
    let said = rows
        .iter()
        .filter(|row| row.contestant == SNPROXY)
        .filter_map(|row| {
            let said = Spread::of(row.rounds.iter().filter_map(|round| round.said_ready_ms))?;
            Some(format!(
                "{} ms with {}",
                number(said.median),
                number(row.ports.into())
            ))
        });
    let said: Vec<_> = said.collect();
    let mut text = format!("{PORTS_TEXT}\n\n{table}");
    if !said.is_empty() {
        text = format!(
            "{text}\nsnproxy says that it is ready after {} ports (medians).\n",
            said.join(", ")
        );
    }
    text
}

pub(super) fn ports_goals(rows: &[PortsRow]) -> Vec<Line> {
    let row = rows
        .iter()
        .find(|row| row.contestant == SNPROXY && row.ports == MANY);
    let Some(row) = row else { return Vec::new() };
    let most = |round: &PortsRound| mib(round.rss_kib.max(round.rss_changed_kib));
    let goals: [(&str, f64, &str, PortsFigure); 3] = [
        ("memory", MAX_MIB, "MiB", most),
        ("ready", MAX_READY_MS, "ms", |round| round.ready_ms),
        ("a changed mapping works", MAX_CHANGE_MS, "ms", |round| {
            round.change_ms
        }),
    ];
    let line = |(what, limit, unit, figure): (&str, f64, &str, PortsFigure)| {
        let reached = ports_figure(row, figure)?;
        Some(Line {
            case: format!("{} ports: {what}", number(row.ports.into())),
            goal: format!("≤ {} {unit}", number(limit)),
            reached: spread(reached),
            verdict: Verdict::met(reached.median <= limit),
        })
    };
    goals.into_iter().filter_map(line).collect()
}

fn ports_figure(row: &PortsRow, figure: impl Fn(&PortsRound) -> f64) -> Option<Spread> {
    Spread::of(row.rounds.iter().map(figure))
}

pub(super) fn memory(results: &Results) -> String {
    let mut text = String::new();
    if !results.idle.is_empty() {
        let mut table = Table::new([
            "proxy",
            "idle connections",
            "before, MiB",
            "with them, MiB",
            "after, MiB",
            "each, bytes",
            "kernel, bytes",
        ]);
        for row in &results.idle {
            let shown =
                |figure: &dyn Fn(&IdleRound) -> f64| or_none(idle_figure(row, figure), spread);
            table.row([
                bold(&row.contestant),
                number(row.connections.into()),
                shown(&|round| mib(round.before.rss_kib)),
                shown(&|round| mib(round.with.rss_kib)),
                shown(&|round| mib(round.after.rss_kib)),
                shown(&|round| each(row, round, |memory| memory.rss_kib)),
                shown(&|round| each(row, round, |memory| memory.slab_kib)),
            ]);
        }
        text = format!("{IDLE_TEXT}\n\n{table}");
    }
    if let Some(burst) = &results.burst {
        let shown = |figure: fn(&BurstRound) -> Memory| {
            or_none(
                Spread::of(burst.rounds.iter().map(|round| mib(figure(round).rss_kib))),
                spread,
            )
        };
        text = format!(
            "{text}\nAfter a burst of {} connections at once snproxy has {} MiB, with all of them {} MiB, and {} MiB before.\n",
            number(burst.connections.into()),
            shown(|round| round.after),
            shown(|round| round.top),
            shown(|round| round.before),
        );
    }
    text
}

pub(super) fn memory_goals(results: &Results) -> Vec<Line> {
    let idle = results.idle.iter().find(|row| row.contestant == SNPROXY);
    let idle = idle.and_then(|row| {
        let reached = idle_figure(row, &|round| each(row, round, |memory| memory.rss_kib))?;
        Some(Line {
            case: "an idle connection: memory of the process".to_owned(),
            goal: format!("≤ {} bytes", number(MAX_IDLE)),
            reached: spread(reached),
            verdict: Verdict::met(reached.median <= MAX_IDLE),
        })
    });
    let burst = results.burst.as_ref().and_then(|burst| {
        let reached = Spread::of(burst.rounds.iter().map(returned))?;
        Some(Line {
            case: format!(
                "a burst of {} connections: part of its memory that returns in 30 s",
                number(burst.connections.into())
            ),
            goal: format!("≥ {MIN_RETURNED:.2}"),
            reached: super::figures::ratio(reached),
            verdict: Verdict::met(reached.median >= MIN_RETURNED),
        })
    });
    idle.into_iter().chain(burst).collect()
}

fn returned(round: &BurstRound) -> f64 {
    let [before, top, after] = [round.before, round.top, round.after].map(|at| mib(at.rss_kib));
    // A proxy that grew by nothing has nothing to return.
    if top > before {
        (top - after) / (top - before)
    } else {
        1.0
    }
}

fn idle_figure(row: &IdleRow, figure: &dyn Fn(&IdleRound) -> f64) -> Option<Spread> {
    Spread::of(row.rounds.iter().map(figure))
}

/// Bytes per connection of what came with them.
fn each(row: &IdleRow, round: &IdleRound, kib: fn(&Memory) -> u64) -> f64 {
    (mib(kib(&round.with)) - mib(kib(&round.before))) * f64::from(1 << 20)
        / f64::from(row.connections)
}

pub(super) fn mib(kib: u64) -> f64 {
    u32::try_from(kib).map_or(f64::INFINITY, f64::from) / 1024.0
}

pub(super) fn kernel_mib(round: &PortsRound) -> f64 {
    i32::try_from(round.kernel_kib).map_or(f64::INFINITY, f64::from) / 1024.0
}

fn bold(name: &str) -> String {
    if name == SNPROXY {
        format!("**{name}**")
    } else {
        name.to_owned()
    }
}
