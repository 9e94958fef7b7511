//! A port is flooded, and another one is opened.

use super::{
    figures::{or_none, ratio, spread},
    goals::{Line, Verdict},
};
use crate::{
    flood::{CLIENTS, PER_SECOND},
    results::{FloodRound, FloodRow, FloodTable, HAPROXY, SNPROXY, Spread},
};
use snproxy_pages::table::{Table, number};

type Figure = fn(&FloodRound) -> f64;

const FIGURES: [(&str, Figure); 4] = [
    ("connect, median", |round| round.connect_p50_us),
    ("connect, 99th percentile", |round| round.connect_p99_us),
    ("answer, median", |round| round.answer_p50_us),
    ("answer, 99th percentile", |round| round.answer_p99_us),
];

/// What decides how long a connect takes is the kernel alone once there is room in a queue: what differs by less than this
/// many microseconds is the machine.
const NO_MATTER_US: f64 = 250.0;

pub(super) fn text(flood: &FloodTable) -> String {
    let mut table = Table::new([
        "proxy",
        "connect, median, µs",
        "connect, p99, µs",
        "answer, median, µs",
        "answer, p99, µs",
        "without a flood, µs",
        "failed",
        "flood, /s",
    ]);
    for row in &flood.rows {
        let name = match row.contestant.as_str() {
            SNPROXY => format!("**{SNPROXY}**"),
            other => other.to_owned(),
        };
        let shown = |figure: Figure| or_none(figure_of(row, figure), spread);
        let failed: u64 = row.rounds.iter().map(|round| round.failed).sum();
        let [connect, connect_p99, answer, answer_p99] = FIGURES.map(|(_, figure)| shown(figure));
        table.row([
            name,
            connect,
            connect_p99,
            answer,
            answer_p99,
            shown(|round| round.quiet_answer_p50_us),
            failed.to_string(),
            shown(|round| round.flood_per_second),
        ]);
    }
    format!(
        "{CLIENTS} clients open one port, send 64 bytes and close without a look at the answer, as fast as they can. Meanwhile another client opens \
         another port of the same proxy {PER_SECOND} times a second, with a pod of its own, and waits for an answer of 64 bytes. *Connect* is the time \
         until the connection is there, *answer* until the first byte of the answer; *without a flood* is the median of the answer just before. HAProxy \
         is plain. All of them share the processors with the {CLIENTS} clients, which is most of what an answer waits for: *direct* shows it. Measured {}, while other \
         programs used {} % of the processors.\n\n{table}",
        flood.date,
        number(flood.others * 100.0),
    )
}

/// Not worse than HAProxy: by the median of the ratios within a round, or by too little to tell.
pub(super) fn goals(flood: &FloodTable) -> Vec<Line> {
    let row = |name: &str| flood.rows.iter().find(|row| row.contestant == name);
    let (Some(ours), Some(theirs)) = (row(SNPROXY), row(HAPROXY[0])) else {
        return Vec::new();
    };
    let line = |(what, figure): (&str, Figure)| {
        let pairs = || ours.rounds.iter().zip(&theirs.rounds);
        let ratios = Spread::of(pairs().map(|(ours, theirs)| figure(ours) / figure(theirs)))?;
        let apart = Spread::of(pairs().map(|(ours, theirs)| figure(ours) - figure(theirs)))?;
        Some(Line {
            case: format!("another port is flooded: {what}"),
            goal: format!("≤ 1.00 × HAProxy's, or {NO_MATTER_US} µs more"),
            reached: ratio(ratios),
            verdict: Verdict::met(ratios.median <= 1.0 || apart.median <= NO_MATTER_US),
        })
    };
    FIGURES.into_iter().filter_map(line).collect()
}

fn figure_of(row: &FloodRow, figure: Figure) -> Option<Spread> {
    Spread::of(row.rounds.iter().map(figure))
}
