//! `cargo xtask bench`: snproxy beside HAProxy, nginx and a direct connection.

use crate::{
    dist,
    root::{as_root, build, workspace},
    tools,
};
use anyhow::Context;
use std::{os::unix::process::CommandExt, path::PathBuf};

#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Fewer and shorter rounds, under five minutes; docs/benchmarks.json is left alone.
    #[arg(long)]
    quick: bool,
    /// Only cases with this in their name; docs/benchmarks.json is left alone.
    #[arg(long, value_name = "FILTER")]
    case: Option<String>,
    /// Instead of 5, or 3 with --quick.
    #[arg(long, value_name = "N")]
    rounds: Option<u16>,
    /// Another snproxy to measure beside this one; may be given several times.
    #[arg(long, value_name = "NAME=PATH")]
    also: Vec<String>,
    /// Go on after an error, and fail at the end.
    #[arg(long)]
    keep_going: bool,
}

impl Bench {
    /// Builds and installs what is missing, then goes on as the benchmark, as root.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        println!("==> programs that are measured");
        tools::install_missing(tools::BENCH)?;
        println!("==> build snproxy (release, static)");
        // What is measured is what `cargo xtask dist` gives out.
        let snproxy = dist::static_binary()?;
        println!("==> build the benchmark");
        let words = ["build", "--release", "--package", "snproxy-tests", "--bin"];
        let bench = build(&[&words[..], &["bench"]].concat(), "bench")?;
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

    /// Only a whole run is worth keeping.
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
        words.extend(self.rounds.map(|rounds| format!("--rounds={rounds}")));
        words.extend(self.also.iter().map(|also| format!("--also={also}")));
        words
    }
}
