//! docs/simulation.md: the study in words and tables.

mod end;
mod tables;
mod words;

use snproxy_pages::table::number;

use crate::study::{Study, TOLERANCE};

pub(crate) fn text(study: &Study) -> String {
    let parts = [
        words::HEAD.to_owned(),
        end::summary(study),
        "![cost of a host, by the number of hosts](simulation/hosts.svg)\n".to_owned(),
        "## One cluster, both ways\n".to_owned(),
        tables::both(study),
        words::BOTH.to_owned(),
        "## Probing alone\n".to_owned(),
        words::PROBING.to_owned(),
        tables::probing(study),
        words::DEMAND.to_owned(),
        tables::demand(study),
        words::MOVING.to_owned(),
        tables::moving(study),
        "## The directory\n".to_owned(),
        words::DIRECTORY.to_owned(),
        tables::directory(study),
        words::STARTS.to_owned(),
        tables::starts(&study.starts, "cluster ports", |one| one.cluster.ports),
        words::BLOCKS.to_owned(),
        tables::starts(&study.blocks, "ports of a key", |one| one.cluster.block),
        words::PAPER.to_owned(),
        format!(
            "Seed {}. Where both were made, paper and simulation are at most **{:.1} %** apart (a test refuses more than {:.0} %).\n",
            study.seed,
            study.worst() * 100.0,
            TOLERANCE * 100.0
        ),
        words::MEASURED.to_owned(),
        tables::costs(),
    ];
    parts.join("\n")
}

/// Part of a processor, as a percentage.
fn percent(part: f64) -> String {
    match part * 100.0 {
        percent if percent >= 10.0 => format!("{} %", number(percent.round())),
        percent => format!("{percent:.1} %"),
    }
}

fn kilobytes(bytes: f64) -> String {
    number(bytes / 1000.0)
}

fn mebibytes(bytes: f64) -> String {
    number(bytes / 1_048_576.0)
}

fn milliseconds(seconds: f64) -> String {
    number(seconds * 1000.0)
}

fn whole(count: impl Into<f64>) -> String {
    let text = number(count.into().round());
    text.split('.').next().unwrap_or_default().to_owned()
}
