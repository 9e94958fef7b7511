//! The table of all cases of a topology.

use super::figures::{or_none, ratio};
use crate::results::{Case, DIRECT, Of, Results, SNPROXY, Topology};
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
    let mut table = Table::new([
        &*case.title,
        &*case.unit,
        "least",
        "greatest",
        "of direct",
        &*cpu,
        &*machine,
        "p50, µs",
        "p99, µs",
    ]);
    let direct = case.contestant(DIRECT);
    for one in &case.contestants {
        let Some(value) = one.value() else { continue };
        let is_direct = one.name == DIRECT;
        let of_direct = direct.filter(|_| !is_direct);
        let of_direct = of_direct.and_then(|direct| one.ratio(direct, Of::Value));
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
            or_none(of_direct, ratio),
            median(one.proxy_cpu(), factor),
            median(
                one.figures(|round| Some(round.machine_cpu_us_per_op)),
                factor,
            ),
            median(one.figures(|round| round.p50_us), 1.0),
            median(one.figures(|round| round.p99_us), 1.0),
        ]);
    }
    table.to_string()
}

/// Of processor time: microseconds, but seconds for what takes long, and by how much they are multiplied.
fn cpu_unit(case: &Case) -> (&'static str, f64) {
    if case.operation == "GB" {
        ("s", 1e-6)
    } else {
        ("µs", 1.0)
    }
}
