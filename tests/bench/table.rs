//! The results as a table to read at the end of a run.

use crate::results::{Against, Case, DIRECT, Of, Results, Spread};

pub(crate) fn print(results: &Results) {
    for case in &results.cases {
        print_case(case);
    }
    println!("\nsnproxy and its goals (medians of ratios within a round, least to greatest)");
    for case in &results.cases {
        for &goal in &case.goals {
            let Some(reached) = case.reached(goal) else {
                continue;
            };
            let verdict = if case.meets(goal, reached.median) {
                "reached"
            } else {
                "MISSED"
            };
            let what = match (goal.of, goal.against) {
                (Of::Value, Against::Haproxy) => "of HAProxy's best",
                (Of::Value, Against::Direct) => "of direct",
                (Of::ProxyCpu, _) => "of HAProxy's CPU",
            };
            println!(
                "  {verdict:<8} {:<24} {} {what}, goal {:.2}",
                case.name,
                shown(reached, 2),
                goal.ratio
            );
        }
    }
}

fn print_case(case: &Case) {
    println!("\n{} ({})", case.name, case.unit);
    let direct = case.contestant(DIRECT);
    for one in &case.contestants {
        let Some(value) = one.value() else { continue };
        let digits = usize::from(value.median < 1000.0);
        let ratio = direct.and_then(|direct| one.ratio(direct, Of::Value));
        let ratio = ratio.map(|ratio| shown(ratio, 2)).unwrap_or_default();
        let cpu = one.proxy_cpu().map(|cpu| {
            let mut unit = "us";
            let mut median = cpu.median;
            if case.operation == "GB" {
                (unit, median) = ("s", median / 1e6);
            }
            format!("  {median:.3} {unit}/{}", case.operation)
        });
        let p50 = one.figures(|round| round.p50_us);
        let p50 = p50.map(|p50| format!("  p50 {:.0} us", p50.median));
        println!(
            "  {:<16} {:<28} {ratio:<18}{}{}",
            one.name,
            shown(value, digits),
            cpu.unwrap_or_default(),
            p50.unwrap_or_default()
        );
    }
}

fn shown(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
}
