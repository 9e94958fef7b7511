//! `cargo xtask soak`: the soak among the scenarios, for longer, and a page that tells of it.

use crate::{
    dist,
    root::{as_root, run as run_command, workspace},
    steps::Steps,
    test::build_scenarios,
    tools,
};
use anyhow::Context;
use std::{fs, path::Path, process};

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
    steps.step("programs that the scenarios use", || {
        tools::install_missing(tools::SCENARIOS)
    })?;
    let snproxy = steps.step("build snproxy (release, static)", dist::static_binary)?;
    let scenarios = build_scenarios(steps)?;
    // Not in /tmp: root would write there what we cannot remove.
    let report = snproxy.with_file_name(format!("soak-{}.md", process::id()));
    let result = steps.step(&format!("soak for {minutes} min"), || {
        // sudo clears the environment.
        let mut command = as_root("env")?;
        command
            .arg(format!("SNPROXY_BIN={}", snproxy.display()))
            .arg("SNPROXY_TEST_STRICT=1")
            .arg(format!("SNPROXY_SOAK_SECONDS={}", minutes * 60))
            .arg(format!("SNPROXY_SOAK_REPORT={}", report.display()));
        command.args(seed.map(|seed| format!("SNPROXY_SOAK_SEED={seed}")));
        run_command(command.arg(scenarios).arg("soak::"))
    });
    let kept = keep(&report, minutes);
    result.and(kept)
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
