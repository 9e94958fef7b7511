//! `cargo xtask simulate`: how hosts learn who serves a port, on paper and simulated.

use crate::root::{build, run, workspace};
use std::process::Command;

/// Writes docs/simulation.md and its plot, or compares them with what the code gives.
pub(crate) fn simulate(check: bool, seed: Option<u64>) -> anyhow::Result<()> {
    let program = build(
        &[
            "build",
            "--package",
            "snproxy-simulate",
            "--bin",
            "simulate",
        ],
        "simulate",
    )?;
    let mut command = Command::new(program);
    command.arg("--docs").arg(workspace().join("docs"));
    if check {
        command.arg("--check");
    }
    if let Some(seed) = seed {
        command.arg(format!("--seed={seed}"));
    }
    run(&mut command)
}
