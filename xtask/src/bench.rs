//! `cargo xtask bench`: snproxy beside HAProxy, nginx and a direct connection.

use crate::{
    dist,
    root::{as_root, build, run, workspace},
    tools,
};
use anyhow::Context;
use std::{os::unix::process::CommandExt, path::PathBuf, process::Command};

#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Fewer and shorter rounds, under five minutes; docs/benchmarks.json is left alone.
    #[arg(long)]
    quick: bool,
    /// Only cases with this in their name (also: ports, idle, burst, flood, tls); docs/benchmarks.json is left alone.
    #[arg(long, value_name = "FILTER")]
    case: Option<String>,
    /// Measure only this anew, and keep the other figures of docs/benchmarks.json.
    #[arg(long, value_name = "NAME", value_parser = ["ports", "idle", "burst", "flood", "tls"], conflicts_with_all = ["case", "quick", "also"])]
    only: Option<String>,
    /// Instead of 5, or 3 with --quick.
    #[arg(long, value_name = "N")]
    rounds: Option<u16>,
    /// Another snproxy to measure beside this one; may be given several times.
    #[arg(long, value_name = "NAME=PATH")]
    also: Vec<String>,
    /// Go on after an error, and fail at the end.
    #[arg(long)]
    keep_going: bool,
    /// Measure nothing: write docs/benchmarks.md and its plots anew from docs/benchmarks.json.
    #[arg(long)]
    report: bool,
}

impl Bench {
    /// Builds and installs what is missing, then goes on as the benchmark, as root.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.report {
            let results = self.results();
            let bench = Self::build()?;
            return run(Command::new(bench)
                .args(["report", "--results"])
                .arg(results));
        }
        println!("==> programs that are measured");
        tools::install_missing(tools::BENCH)?;
        println!("==> build snproxy (release, static)");
        // What is measured is what `cargo xtask dist` gives out.
        let snproxy = dist::static_binary()?;
        let bench = Self::build()?;
        let mut command = as_root(&bench)?;
        command
            .args(["run", "--snproxy"])
            .arg(snproxy)
            .arg("--results")
            .arg(self.results());
        command.args(self.words());
        // Its clean-up after Ctrl+C is not cut short by ours.
        Err(command.exec()).with_context(|| bench.display().to_string())
    }

    fn build() -> anyhow::Result<PathBuf> {
        println!("==> build the benchmark");
        let words = ["build", "--release", "--package", "snproxy-tests", "--bin"];
        build(&[&words[..], &["bench"]].concat(), "bench")
    }

    /// Only a whole run is worth keeping, or one whole part of it.
    fn results(&self) -> PathBuf {
        workspace().join(match (self.quick, &self.case, self.also.is_empty()) {
            (true, ..) => "target/benchmarks-quick.json",
            (false, None, true) => "docs/benchmarks.json",
            _ => "target/benchmarks-part.json",
        })
    }

    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.quick {
            words.push("--quick".to_owned());
        }
        if self.keep_going {
            words.push("--keep-going".to_owned());
        }
        words.extend(self.case.iter().map(|case| format!("--case={case}")));
        words.extend(self.only.iter().map(|only| format!("--only={only}")));
        words.extend(self.rounds.map(|rounds| format!("--rounds={rounds}")));
        words.extend(self.also.iter().map(|also| format!("--also={also}")));
        words
    }
}
