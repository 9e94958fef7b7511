//! The tasks of this workspace: `cargo xtask <task>`.

mod ebpf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "The tasks of the snproxy workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the BPF object into snproxy-ebpf/prebuilt.
    Ebpf {
        /// Compare with the committed object instead, and fail where they differ.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Ebpf { check } => ebpf::run(check),
    }
}
