//! `cargo xtask bench`: snproxy beside its peers.
#![expect(
    clippy::print_stdout,
    reason = "progress and results go to standard output"
)]

mod allowed;
mod cases;
mod contestants;
mod flame;
mod flood;
mod ground;
mod idle;
mod load;
mod machine;
mod memory;
mod ports;
mod report;
mod results;
mod rounds;
mod table;
mod tls;

use allowed::Allowed;
use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use contestants::Contestant;
use flame::Flame;
use load::{Load, Pod};
use results::Results;
use rounds::Pace;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// Time for a program to be ready.
const START: Duration = Duration::from_secs(20);

/// What is measured beside the cases.
const PORTS: &str = "ports";
const IDLE: &str = "idle";
const BURST: &str = "burst";
const FLOOD: &str = "flood";
const TLS: &str = "tls";
const BESIDE: [&str; 5] = [PORTS, IDLE, BURST, FLOOD, TLS];

#[derive(Parser)]
#[command(about = "Measures snproxy beside its peers; `cargo xtask bench` runs it")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure and write the results.
    Run(Run),
    /// Write the page and its plots anew from the results.
    Report {
        #[arg(long)]
        results: PathBuf,
    },
    /// Draw where the time goes.
    Flame(Flame),
    /// Clients of one case against one address; prints a line of JSON.
    Load(Load),
    /// Serves all cases.
    Pod(Pod),
    /// Clients that flood a port; prints a line of JSON.
    Flood(load::Flood),
    /// A client that opens a port at a modest pace; prints a line of JSON.
    Modest(load::Modest),
}

#[derive(clap::Args)]
struct Run {
    #[arg(long)]
    snproxy: PathBuf,
    /// Where the results go.
    #[arg(long)]
    results: PathBuf,
    #[arg(long)]
    quick: bool,
    /// Only cases with this in their name; there are also `ports`, `idle`, `burst`, `flood` and `tls`.
    #[arg(long)]
    case: Option<String>,
    /// Only this one of `ports`, `idle`, `burst`, `flood` and `tls`; the rest of the results stays.
    #[arg(long, conflicts_with_all = ["case", "quick"])]
    only: Option<String>,
    #[arg(long)]
    rounds: Option<usize>,
    #[arg(long, value_name = "NAME=PATH", value_parser = named)]
    also: Vec<(String, PathBuf)>,
    #[arg(long)]
    keep_going: bool,
}

fn named(word: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = word.split_once('=').ok_or("not NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

impl Run {
    fn run(&self) -> anyhow::Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network namespaces take root: `cargo xtask bench`"
        );
        let interrupted = interrupted()?;
        let _allowed = Allowed::new()?;
        let (rounds, seconds, warm_up) = if self.quick {
            (3, 0.45, 0.1)
        } else {
            (5, 1.5, 0.2)
        };
        let pace = Pace {
            rounds: self.rounds.unwrap_or(rounds),
            seconds,
            warm_up,
            keep_going: self.keep_going,
            interrupted,
        };
        let results = match &self.only {
            Some(only) => self.renewed(only, &pace)?,
            None => self.measured(&pace)?,
        };
        table::print(&results);
        let text = serde_json::to_string_pretty(&results)? + "\n";
        let to = self.results.display();
        fs::write(&self.results, text).with_context(|| format!("write {to}"))?;
        report::write(&results, &self.results)?;
        let beside = self.results.with_extension("md");
        println!("\nwritten: {to} and {}", beside.display());
        Ok(())
    }

    fn measured(&self, pace: &Pace) -> anyhow::Result<Results> {
        let mut works = cases::all();
        let filter = self.case.as_deref().unwrap_or_default();
        works.retain(|work| work.name().contains(filter));
        let wants = |name: &str| name.contains(filter) || name == TLS && tls::has(filter);
        ensure!(
            !works.is_empty() || BESIDE.into_iter().any(wants),
            "no case has `{filter}` in its name"
        );
        let contestants = Contestant::all(&self.snproxy, &self.also);
        let mut results = Results {
            date: machine::date(),
            machine: machine::machine(),
            versions: machine::versions(&self.snproxy),
            quick: self.quick,
            cases: rounds::run(&works, &contestants, pace)?,
            ports: Vec::new(),
            idle: Vec::new(),
            burst: None,
            flood: None,
            tls: None,
        };
        for name in BESIDE.into_iter().filter(|name| wants(name)) {
            self.measure_beside(name, &mut results, pace)?;
        }
        Ok(results)
    }

    fn filter(&self) -> &str {
        // The part's own name is all of it.
        self.case
            .as_deref()
            .filter(|case| *case != TLS)
            .unwrap_or_default()
    }

    /// The results that there are, with one part anew.
    fn renewed(&self, only: &str, pace: &Pace) -> anyhow::Result<Results> {
        ensure!(
            BESIDE.contains(&only),
            "`--only` knows {}",
            BESIDE.join(", ")
        );
        let mut results = read(&self.results)?;
        self.measure_beside(only, &mut results, pace)?;
        Ok(results)
    }

    fn measure_beside(&self, name: &str, results: &mut Results, pace: &Pace) -> anyhow::Result<()> {
        let contestants = Contestant::all(&self.snproxy, &self.also);
        // They vary little, and take long.
        let once = Pace {
            rounds: if self.quick { 1 } else { pace.rounds },
            ..pace.clone()
        };
        match name {
            PORTS => results.ports = ports::measure(&self.snproxy, &once)?,
            IDLE => results.idle = idle::measure(&contestants, &once)?,
            BURST => results.burst = idle::burst(&contestants, &once)?,
            FLOOD => results.flood = Some(flood::measure(&contestants, pace)?),
            _ => results.tls = Some(tls::measure(&contestants, self.filter(), self.quick, pace)?),
        }
        Ok(())
    }
}

fn read(json: &Path) -> anyhow::Result<Results> {
    let shown = json.display();
    let text = fs::read_to_string(json).with_context(|| format!("read {shown}"))?;
    serde_json::from_str(&text).with_context(|| format!("{shown}"))
}

/// Reads results back and writes their page.
fn report(json: &Path) -> anyhow::Result<()> {
    report::write(&read(json)?, json)?;
    println!("written: {}", json.with_extension("md").display());
    Ok(())
}

/// Set by the signals that end a program: what was started and made is then taken back.
fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The second time it ends at once.
        flag::register_conditional_default(signal, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

fn print(outcome: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(outcome)?);
    Ok(())
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Run(run) => run.run(),
        Task::Report { results } => report(&results),
        Task::Flame(flame) => flame.run(),
        Task::Load(load) => load.run().and_then(|outcome| print(&outcome)),
        Task::Pod(pod) => pod.serve(),
        Task::Flood(flood) => print(&flood.run()),
        Task::Modest(modest) => modest.run().and_then(|served| print(&served)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
