//! How hosts learn who serves a port, by asking each other or by a directory in etcd: on paper, simulated, and where each
//! stops making sense. `cargo xtask simulate` writes docs/simulation.md with it.
#![expect(clippy::print_stdout, reason = "says what it does to whoever runs it")]
#![expect(
    clippy::cast_precision_loss,
    reason = "counts of events are far below 2^52"
)]

mod agenda;
mod costs;
mod directory;
mod page;
mod paper;
mod plots;
mod probing;
mod study;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use study::Study;

#[derive(Parser)]
struct Arguments {
    /// The folder docs.
    #[arg(long)]
    docs: PathBuf,
    /// Compare with what is there, and fail where it differs.
    #[arg(long)]
    check: bool,
    #[arg(long, default_value_t = study::SEED)]
    seed: u64,
}

/// The files of a study, by their names in docs.
pub(crate) fn files(study: &Study) -> anyhow::Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("simulation.md", page::text(study)),
        ("simulation/hosts.svg", plots::hosts(study)?),
    ])
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let start = Instant::now();
    let study = Study::new(arguments.seed);
    println!(
        "simulated in {:.1} s; paper and simulation are at most {:.1} % apart",
        start.elapsed().as_secs_f64(),
        study.worst() * 100.0
    );
    for (name, text) in files(&study)? {
        let path = arguments.docs.join(name);
        if arguments.check {
            check(&path, &text)?;
        } else {
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            println!("written: {}", path.display());
        }
    }
    Ok(())
}

fn check(path: &Path, text: &str) -> anyhow::Result<()> {
    let there = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let differs = there.lines().zip(text.lines()).position(|(a, b)| a != b);
    ensure!(
        there == text,
        "{}: line {} is not what this code gives; `cargo xtask simulate` writes it anew",
        path.display(),
        differs.unwrap_or_default() + 1
    );
    println!("as this code gives it: {}", path.display());
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_this_code_gives_and_paper_and_simulation_agree() {
        let study = Study::new(study::SEED);
        assert!(study.worst() < study::TOLERANCE, "{}", study.worst());
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for (name, text) in files(&study).expect("the files") {
            check(&docs.join(name), &text).expect("as it is there");
        }
    }
}
