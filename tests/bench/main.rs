//! `cargo xtask bench`: snproxy beside its peers.
#![expect(clippy::print_stdout, reason = "results go to standard output")]

mod load;

use clap::{Parser, Subcommand};
use load::{Load, Pod};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Measures snproxy beside its peers; `cargo xtask bench` runs it")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Clients of one case against one address; prints a line of JSON.
    #[command(hide = true)]
    Load(Load),
    /// Serves all cases.
    #[command(hide = true)]
    Pod(Pod),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Load(load) => load.run().and_then(|outcome| {
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }),
        Task::Pod(pod) => pod.serve(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
