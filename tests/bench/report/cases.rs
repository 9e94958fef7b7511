//! The table of all cases of a topology.

use super::figures::{or_none, ratio};
use crate::results::{Case, Contestant, DIRECT, HAPROXY, Of, Results, SNPROXY, Topology};
use snproxy_pages::table::{Table, number};

pub(super) fn of(results: &Results, topology: Topology) -> Vec<&Case> {
    let cases = results.cases.iter();
    cases.filter(|case| case.topology == topology).collect()
}

pub(super) fn text(cases: &[&Case]) -> String {
    let mut text = String::new();
    for case in cases {
        text.push_str(&table(case));
        text.push('\n');
    }
    text
}

fn table(case: &Case) -> String {
    let per = &case.operation;
    let (unit, factor) = cpu_unit(case);
    let cpu = format!("proxy CPU, {unit}/{per}");
    let machine = format!("machine CPU, {unit}/{per}");
    // Nobody speaks TLS to the pod itself.
    let (base, of_base) = match case.contestant(DIRECT) {
        Some(direct) => (Some(direct), "of direct"),
        None => (case.contestant(HAPROXY[0]), "of haproxy"),
    };
    let mut table = Table::new([
        &*case.title,
        &*case.unit,
        "least",
        "greatest",
        of_base,
        &*cpu,
        &*machine,
        "p50, µs",
        "p99, µs",
    ]);
    for one in &case.contestants {
        let Some(value) = one.value() else { continue };
        let to_base = base.filter(|base| base.name != one.name);
        let to_base = to_base.and_then(|base| one.ratio(base, Of::Value));
        let median = |figure: Option<crate::results::Spread>, factor: f64| {
            or_none(figure, |figure| number(figure.median * factor))
        };
        let name = if one.name == SNPROXY {
            format!("**{}**", one.name)
        } else {
            one.name.clone()
        };
        table.row([
            name,
            number(value.median),
            number(value.min),
            number(value.max),
            or_none(to_base, ratio),
            median(one.proxy_cpu(), factor),
            median(
                one.figures(|round| Some(round.machine_cpu_us_per_op)),
                factor,
            ),
            median(one.figures(|round| round.p50_us), 1.0),
            median(one.figures(|round| round.p99_us), 1.0),
        ]);
    }
    table.to_string() + &resumed(case)
}

/// How many connections could take up a session again, where that was tried.
fn resumed(case: &Case) -> String {
    let share = |one: &Contestant| {
        let share = one.figures(|round| round.resumed)?.median;
        Some(format!("{} {:.0} %", one.name, share * 100.0))
    };
    let shares: Vec<_> = case.contestants.iter().filter_map(share).collect();
    if shares.is_empty() {
        return String::new();
    }
    format!("\nResumed: {}.\n", shares.join(", "))
}

/// Of processor time: microseconds, but seconds for what takes long, and by how much they are multiplied.
fn cpu_unit(case: &Case) -> (&'static str, f64) {
    if case.operation == "GB" {
        ("s", 1e-6)
    } else {
        ("µs", 1.0)
    }
}
