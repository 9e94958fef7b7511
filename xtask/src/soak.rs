//! `cargo xtask soak` and `cargo xtask endurance`: scenarios that run for longer than among the
//! tests, and the page of a soak.

use crate::{
    dist,
    root::{as_root, run as run_command, workspace},
    steps::Steps,
    test::build_scenarios,
    tools,
};
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

/// From here on it is worth a page among the documents.
const WORTH_A_PAGE: u64 = 10;
const PAGE: &str = "docs/soak.md";

pub(crate) fn run(minutes: u64, seed: Option<u64>) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let result = soak(&mut steps, minutes, seed);
    steps.print_summary();
    result
}

fn soak(steps: &mut Steps, minutes: u64, seed: Option<u64>) -> anyhow::Result<()> {
    let (snproxy, scenarios) = build_programs(steps)?;
    // Not in /tmp: root would write there what we cannot remove.
    let report = snproxy.with_file_name(format!("soak-{}.md", process::id()));
    let mut variables = vec![
        format!("SNPROXY_SOAK_SECONDS={}", minutes * 60),
        format!("SNPROXY_SOAK_REPORT={}", report.display()),
    ];
    variables.extend(seed.map(|seed| format!("SNPROXY_SOAK_SEED={seed}")));
    let result = steps.step(&format!("soak for {minutes} min"), || {
        run_scenarios(&snproxy, &scenarios, "soak::", &variables)
    });
    let kept = keep(&report, minutes);
    result.and(kept)
}

/// Many reloads and many hostile connections.
pub(crate) fn endurance(reloads: u64, hostile: u64) -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let variables = [
        format!("SNPROXY_RELOADS={reloads}"),
        format!("SNPROXY_HOSTILE={hostile}"),
    ];
    let result = build_programs(&mut steps).and_then(|(snproxy, scenarios)| {
        let headline = format!("{reloads} reloads, {hostile} hostile connections");
        steps.step(&headline, || {
            run_scenarios(&snproxy, &scenarios, "endurance::", &variables)
        })
    });
    steps.print_summary();
    result
}

/// Gives snproxy and the scenarios, once the programs that they use are there.
fn build_programs(steps: &mut Steps) -> anyhow::Result<(PathBuf, PathBuf)> {
    steps.step("programs that the scenarios use", || {
        tools::install_missing(tools::SCENARIOS)
    })?;
    let snproxy = steps.step("build snproxy (release, static)", dist::static_binary)?;
    Ok((snproxy, build_scenarios(steps)?))
}

/// Runs the scenarios of this name, one after the other, with these variables.
fn run_scenarios(
    snproxy: &Path,
    scenarios: &Path,
    name: &str,
    variables: &[String],
) -> anyhow::Result<()> {
    // sudo clears the environment.
    let mut command = as_root("env")?;
    command
        .arg(format!("SNPROXY_BIN={}", snproxy.display()))
        .arg("SNPROXY_TEST_STRICT=1")
        .args(variables)
        .arg(scenarios)
        .args([name, "--test-threads=1"]);
    run_command(&mut command)
}

/// Puts the page where it belongs; one of a short soak was only shown.
fn keep(report: &Path, minutes: u64) -> anyhow::Result<()> {
    let Ok(page) = fs::read_to_string(report) else {
        // It did not come that far, and has said why.
        return Ok(());
    };
    let _ = fs::remove_file(report);
    if minutes < WORTH_A_PAGE {
        return Ok(());
    }
    let kept = workspace().join(PAGE);
    fs::create_dir_all(workspace().join("docs"))
        .and_then(|()| fs::write(&kept, page))
        .with_context(|| format!("write {}", kept.display()))?;
    println!("\nwritten: {PAGE}");
    Ok(())
}
