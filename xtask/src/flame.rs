//! `cargo xtask flame`: flame graphs of snproxy under load, and how HAProxy spends the same time.

use crate::{
    dist::static_build,
    root::{as_root, build, build_with, workspace},
    tools,
};
use anyhow::Context;
use std::os::unix::process::CommandExt;

/// Builds and installs what is missing, then goes on as the benchmark's program, as root.
pub(crate) fn run() -> anyhow::Result<()> {
    println!("==> programs that are looked into, and perf");
    tools::install_missing(tools::BENCH)?;
    tools::install_missing(tools::FLAME)?;
    println!("==> build snproxy (release, static, with frame pointers)");
    // What is given out, but for the frame pointers, by which perf finds who called. In a folder of its own: other
    // flags would have cargo build all of it anew each time.
    let mut command = static_build("snproxy", "-C force-frame-pointers=yes");
    command.args(["--target-dir", "target/flame"]);
    let snproxy = build_with(command, "snproxy")?;
    println!("==> build the load generator");
    let words = ["build", "--release", "--package", "snproxy-tests", "--bin"];
    let bench = build(&[&words[..], &["bench"]].concat(), "bench")?;
    let mut command = as_root(&bench)?;
    command
        .args(["flame", "--snproxy"])
        .arg(snproxy)
        .arg("--folder")
        .arg(workspace().join("docs/flame"));
    // Its clean-up after Ctrl+C is not cut short by ours.
    Err(command.exec()).with_context(|| bench.display().to_string())
}
