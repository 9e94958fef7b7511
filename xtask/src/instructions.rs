//! `cargo xtask instructions`: what operations cost in user space, as a number that two runs agree on.
//!
//! Seconds depend on the machine and on who else uses it; instructions do not. Callgrind counts those of the program in
//! `tests/instructions`, which does operations of snproxy between marks.

use crate::{
    dist::build_static,
    root::{find, workspace},
    steps::Steps,
    tools,
};
use anyhow::{Context, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const RUNS: usize = 5;
/// What a count may be off in either direction: another compiler or libc moves it by a few per cent.
const TOLERANCE_PERCENT: f64 = 10.0;
/// Largest spread of the runs that still makes a number.
const SPREAD_PERCENT: f64 = 1.0;

/// From the workspace's folder.
const EXPECTED: &str = "docs/instructions.md";
const BEGIN: &str = "<!-- counts -->\n";
const END: &str = "<!-- /counts -->\n";

/// The functions at whose calls callgrind puts down what it counted since the last one.
const MARK: &str = "*instructions*mark*";

/// One operation and what it took, in instructions.
#[derive(Clone, Debug, PartialEq)]
struct Count {
    operation: String,
    instructions: f64,
}

pub(crate) fn run(accept: bool) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let result = count(&mut steps, accept);
    steps.print_summary();
    result
}

fn count(steps: &mut Steps, accept: bool) -> anyhow::Result<()> {
    steps.step("valgrind", || tools::install_missing(tools::INSTRUCTIONS))?;
    let program = steps.step("build the operations (release, static)", || {
        build_static("snproxy-instructions", "instructions")
    })?;
    let folder = program.with_file_name("callgrind");
    let headline = format!("{RUNS} runs under callgrind");
    let runs = steps.step(&headline, || {
        (0..RUNS)
            .map(|_| one_run(&program, &folder))
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let counted = medians(&runs)?;
    let path = workspace().join(EXPECTED);
    let text = fs::read_to_string(&path).with_context(|| format!("read {EXPECTED}"))?;
    let (before, table, after) = split(&text)?;
    let expected = parse(table)?;
    let findings = compare(&counted, &expected);
    print_table(&counted, &expected);
    println!(
        "\nPer function, of the last run: callgrind_annotate --threshold=100 {}/out.N, N being 2, 4, 6 for the first operation, the \
         second, the third",
        folder.display()
    );
    if accept {
        let table: Vec<_> = counted.into_iter().map(|(count, _)| count).collect();
        return fs::write(&path, format!("{before}{}{after}", format_table(&table)))
            .with_context(|| format!("write {EXPECTED}"));
    }
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(
        findings.is_empty(),
        "{} counts are not as {EXPECTED} has them (up to {TOLERANCE_PERCENT} % either way). Where the change is worth \
         it, or is a gain to keep, `cargo xtask instructions --accept` writes the new ones, and they go in with it",
        findings.len()
    );
    Ok(())
}

/// Runs the operations once; callgrind leaves its files in the folder.
fn one_run(program: &Path, folder: &Path) -> anyhow::Result<Vec<Count>> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder)?;
    let out = folder.join("out");
    let output = Command::new(find("valgrind").context("valgrind is not there")?)
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--dump-before={MARK}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .output()
        .context("run valgrind")?;
    ensure!(
        output.status.success(),
        "the operations under valgrind: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let operations = String::from_utf8(output.stdout).context("what the operations print")?;
    let counts = operations.lines().enumerate().map(|(index, line)| {
        let (number, operation) = line
            .split_once('\t')
            .with_context(|| format!("{line:?} says no operation"))?;
        let number: u32 = number
            .parse()
            .with_context(|| format!("{line:?} says no number"))?;
        // What stands in the first file was before the first mark, in the third between two operations.
        let dump = PathBuf::from(format!("{}.{}", out.display(), 2 * index + 2));
        let text = fs::read_to_string(&dump).with_context(|| format!("read {}", dump.display()))?;
        Ok(Count {
            operation: operation.to_owned(),
            instructions: total(&text).with_context(|| format!("{}", dump.display()))?
                / f64::from(number),
        })
    });
    counts.collect()
}

/// All instructions of one file of callgrind.
fn total(dump: &str) -> anyhow::Result<f64> {
    let total = dump.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.context("no line `totals:`")?.trim().parse()?)
}

/// The median of the runs, and how far they lie apart, in per cent of it.
fn medians(runs: &[Vec<Count>]) -> anyhow::Result<Vec<(Count, f64)>> {
    let first = runs.first().context("no run")?;
    let median = |(index, Count { operation, .. }): (usize, &Count)| {
        let mut all: Vec<f64> = runs
            .iter()
            .filter_map(|run| run.get(index))
            .map(|count| count.instructions)
            .collect();
        all.sort_by(f64::total_cmp);
        let instructions = all[all.len() / 2];
        let spread = (all[all.len() - 1] - all[0]) / instructions * 100.0;
        let operation = operation.clone();
        (
            Count {
                operation,
                instructions,
            },
            spread,
        )
    };
    Ok(first.iter().enumerate().map(median).collect())
}

fn print_table(counted: &[(Count, f64)], expected: &[Count]) {
    println!(
        "\n{:<42} {:>12} {:>8} {:>10} {:>8}",
        "operation", "instructions", "spread", "expected", "change"
    );
    for (count, spread) in counted {
        let Count {
            operation,
            instructions,
        } = count;
        let (known, change) = match expected_of(operation, expected) {
            Some(known) => (
                format!("{known:.0}"),
                format!("{:+.1} %", change(*instructions, known)),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let over = if *spread > SPREAD_PERCENT {
            "  SPREAD"
        } else {
            ""
        };
        println!(
            "{operation:<42} {instructions:>12.0} {spread:>6.2} % {known:>10} {change:>8}{over}"
        );
    }
}

fn expected_of(operation: &str, expected: &[Count]) -> Option<f64> {
    let known = expected.iter().find(|known| known.operation == operation)?;
    Some(known.instructions)
}

/// In per cent of what is known.
fn change(instructions: f64, known: f64) -> f64 {
    (instructions / known - 1.0) * 100.0
}

/// What is not as expected, a line for each.
fn compare(counted: &[(Count, f64)], expected: &[Count]) -> Vec<String> {
    let mut findings = Vec::new();
    for (count, _) in counted {
        let (operation, instructions) = (&count.operation, count.instructions);
        match expected_of(operation, expected) {
            None => findings.push(format!("{operation}: not in {EXPECTED}")),
            Some(known) if change(instructions, known).abs() > TOLERANCE_PERCENT => {
                findings.push(format!(
                    "{operation}: {instructions:.0} instructions, {known:.0} expected ({:+.1} %)",
                    change(instructions, known)
                ));
            }
            Some(_) => {}
        }
    }
    let is_counted = |known: &&Count| {
        counted
            .iter()
            .any(|(count, _)| count.operation == known.operation)
    };
    let gone = expected.iter().filter(|known| !is_counted(known));
    findings.extend(gone.map(|known| {
        format!(
            "{}: in {EXPECTED}, but not counted any more",
            known.operation
        )
    }));
    findings
}

/// What stands before the table, the table, and what stands after it.
fn split(text: &str) -> anyhow::Result<(&str, &str, &str)> {
    let parts = || {
        let begin = text.find(BEGIN)? + BEGIN.len();
        let end = begin + text[begin..].find(END)?;
        Some((&text[..begin], &text[begin..end], &text[end..]))
    };
    parts().with_context(|| {
        format!(
            "{EXPECTED} has no table between {} and {}",
            BEGIN.trim(),
            END.trim()
        )
    })
}

const HEAD: &str = "| operation | instructions |\n| --- | ---: |\n";

fn format_table(counts: &[Count]) -> String {
    counts.iter().fold(HEAD.to_owned(), |text, count| {
        text + &format!("| {} | {:.0} |\n", count.operation, count.instructions)
    })
}

fn parse(table: &str) -> anyhow::Result<Vec<Count>> {
    let rows = table.strip_prefix(HEAD).unwrap_or(table);
    let row = |line: &str| {
        let cells: Vec<_> = line
            .trim_matches(['|', ' '])
            .split('|')
            .map(str::trim)
            .collect();
        let [operation, instructions] = cells[..] else {
            bail!("{EXPECTED}: {line:?} is no row of two cells");
        };
        Ok(Count {
            operation: operation.to_owned(),
            instructions: instructions
                .parse()
                .with_context(|| format!("{EXPECTED}: {line:?}"))?,
        })
    };
    rows.lines().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(operation: &str, instructions: f64) -> Count {
        Count {
            operation: operation.to_owned(),
            instructions,
        }
    }

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let counts = [of("request of 64 B", 6498.0), of("PROXY header, v1", 12.0)];
        let text = format!("# Head\n{BEGIN}{}{END}tail\n", format_table(&counts));
        let (before, table, after) = split(&text).unwrap();
        assert_eq!(before, format!("# Head\n{BEGIN}"));
        assert_eq!(after, format!("{END}tail\n"));
        assert_eq!(parse(table).unwrap(), counts);
        assert!(parse("| a |\n").is_err());
        assert!(split("no table").is_err());
    }

    #[test]
    fn what_is_off_is_named_whichever_way() {
        let counted = [
            (of("same", 105.0), 0.0),
            (of("more", 111.0), 0.0),
            (of("less", 89.0), 0.0),
            (of("new", 1.0), 0.0),
        ];
        let expected = [
            of("same", 100.0),
            of("more", 100.0),
            of("less", 100.0),
            of("old", 1.0),
        ];
        let named: Vec<_> = compare(&counted, &expected)
            .iter()
            .map(|finding| finding.split(':').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(named, ["more", "less", "new", "old"]);
    }

    #[test]
    fn the_median_of_the_runs_counts() {
        let runs = [30.0, 10.0, 20.0].map(|instructions| vec![of("a", instructions)]);
        assert_eq!(medians(&runs).unwrap(), [(of("a", 20.0), 100.0)]);
    }

    #[test]
    fn the_total_of_a_file_of_callgrind_is_found() {
        let found = total("events: Ir\nsummary: 7\n\ntotals: 4550004\n").unwrap();
        assert!((found - 4_550_004.0).abs() < 1.0, "{found}");
        assert!(total("events: Ir\n").is_err());
    }
}
