//! What snproxy must show, and whether it does.

use super::{
    figures::ratio,
    flood,
    rows::{memory_goals, ports_goals},
};
use crate::results::{
    Against, Better, Case, Goal, HAPROXY, HAPROXY_LARGE, Of, Results, SNPROXY, Topology,
};
use snproxy_pages::table::Table;

/// One line of the table of goals.
pub(super) struct Line {
    pub(super) case: String,
    pub(super) goal: String,
    pub(super) reached: String,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Yes,
    No,
    /// Not even as good as what it is compared with.
    Loses,
}

impl Verdict {
    pub(super) fn met(is_met: bool) -> Self {
        if is_met { Self::Yes } else { Self::No }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "**no**",
            Self::Loses => "**no: loses**",
        }
    }
}

pub(super) fn text(results: &Results) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for case in &results.cases {
        lines.extend(case.goals.iter().filter_map(|goal| line(case, *goal)));
    }
    lines.extend(ports_goals(&results.ports));
    lines.extend(memory_goals(results));
    lines.extend(results.flood.iter().flat_map(flood::goals));
    if lines.is_empty() {
        return String::new();
    }
    let met = lines.iter().filter(|line| line.verdict == Verdict::Yes);
    let mut text = format!("{} of {} reached.\n\n", met.count(), lines.len());
    let mut table = Table::new(["case", "goal", "median [least–greatest]", "reached"]);
    for line in lines {
        let verdict = line.verdict.words().to_owned();
        table.row([line.case, line.goal, line.reached, verdict]);
    }
    text.push_str(&table.to_string());
    let lost: Vec<_> = results.cases.iter().filter_map(loss).collect();
    if !lost.is_empty() {
        text.push_str("\nsnproxy is behind another proxy in:\n\n");
        for line in lost {
            text.push_str(&line);
        }
    }
    text
}

fn line(case: &Case, goal: Goal) -> Option<Line> {
    let reached = case.reached(goal)?;
    let better = case.better_of(goal.of);
    let sign = match better {
        Better::More => "≥",
        Better::Less => "≤",
    };
    let against = match goal.against {
        Against::Direct => "direct",
        Against::Haproxy => "HAProxy's best",
    };
    let what = match goal.of {
        Of::Value => case.title.clone(),
        Of::ProxyCpu => format!("{}: proxy CPU per {}", case.title, case.operation),
    };
    let is_behind = match better {
        Better::More => reached.median < 1.0,
        Better::Less => reached.median > 1.0,
    };
    let verdict = match (case.meets(goal, reached.median), goal.against) {
        (true, _) => Verdict::Yes,
        (false, Against::Haproxy) if is_behind => Verdict::Loses,
        (false, _) => Verdict::No,
    };
    let own = case.contestant(SNPROXY)?;
    let large = match goal.against {
        Against::Haproxy => case.contestant(HAPROXY_LARGE),
        Against::Direct => None,
    };
    let large = large.and_then(|large| own.ratio(large, goal.of));
    let large = large.map(|large| format!("; {:.2} × {HAPROXY_LARGE}", large.median));
    Some(Line {
        case: format!("{what}, {}", hosts(case.topology)),
        goal: format!("{sign} {:.2} × {against}", goal.ratio),
        reached: ratio(reached) + &large.unwrap_or_default(),
        verdict,
    })
}

/// A case in which another proxy is faster by the median of ratios.
fn loss(case: &Case) -> Option<String> {
    let own = case.contestant(SNPROXY)?;
    let rivals = HAPROXY.into_iter().chain([HAPROXY_LARGE, "nginx"]);
    let behind = |name: &str| {
        let ratio = own.ratio(case.contestant(name)?, Of::Value)?;
        let is_behind = match case.better {
            Better::More => ratio.median < 1.0,
            Better::Less => ratio.median > 1.0,
        };
        is_behind.then(|| format!("{:.2} of {name}", ratio.median))
    };
    let behind: Vec<_> = rivals.filter_map(behind).collect();
    let (title, hosts) = (&case.title, hosts(case.topology));
    (!behind.is_empty()).then(|| format!("- {title}, {hosts}: {}\n", behind.join(", ")))
}

fn hosts(topology: Topology) -> &'static str {
    match topology {
        Topology::OneHost => "one host",
        Topology::TwoHosts => "two hosts",
    }
}
