//! The tasks of this workspace: `cargo xtask <task>`.
#![expect(clippy::print_stdout, reason = "tasks talk to whoever runs them")]

mod bench;
mod dist;
mod ebpf;
mod flame;
mod instructions;
mod manifests;
mod python;
mod root;
mod run;
mod simulate;
mod soak;
mod steps;
mod test;
mod tidy;
mod tools;

use clap::{Parser, Subcommand, value_parser};
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The tasks of the snproxy workspace"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show snproxy at work on a cluster of its own, or run it with your configuration.
    Run {
        /// Hosts of the cluster, 1 to 9.
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u8).range(1..=9))]
        hosts: u8,
        /// Run this proxy.conf in the foreground, through sudo where needed.
        #[arg(long, value_name = "FILE", conflicts_with = "hosts")]
        conf: Option<PathBuf>,
    },
    /// Run all tests: units, then scenarios in network namespaces (as root, through sudo where needed).
    Test {
        /// Only what needs no namespaces.
        #[arg(long)]
        fast: bool,
        /// A scenario that cannot run here fails instead of being skipped; the same with CI=true.
        #[arg(long)]
        strict: bool,
        /// Only tests with this in their name.
        filter: Option<String>,
    },
    /// Measure snproxy beside HAProxy, nginx and a direct connection (as root, through sudo where needed).
    Bench(bench::Bench),
    /// Everything mixed over two hosts for a while: nothing lost, nothing grows. Ten minutes or more are put down in docs/soak.md.
    Soak {
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u64).range(1..=10_000))]
        minutes: u64,
        /// Repeat the sizes and choices of an earlier soak, which printed its seed.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
    },
    /// Reload many times and open many hostile connections: nothing lost, memory flat.
    Endurance {
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        reloads: u64,
        #[arg(long, value_name = "N", default_value_t = 540_000)]
        hostile: u64,
    },
    /// Check layers, file sizes and where unsafe code is.
    Tidy,
    /// Build the BPF object into snproxy-ebpf/prebuilt.
    Ebpf {
        /// Compare with the committed object instead, and fail where they differ.
        #[arg(long)]
        check: bool,
    },
    /// Make dist/: static executable, image, and what deploys them.
    Dist,
    /// Draw where the time goes, with perf: docs/flame.
    Flame,
    /// Count the instructions that operations take in user space, with callgrind, and compare them with
    /// docs/instructions.md.
    Instructions {
        /// Write the counts into docs/instructions.md instead.
        #[arg(long)]
        accept: bool,
    },
    /// Reckon and simulate what it costs hosts to know who serves a port, by asking each other and by etcd:
    /// docs/simulation.md.
    Simulate {
        /// Compare with the committed page instead, and fail where it differs.
        #[arg(long)]
        check: bool,
        /// Another one than the committed page has.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
    },
    /// Check the Kubernetes manifests against the schemas of Kubernetes.
    Manifests,
    /// The part of `run` that needs root.
    #[command(hide = true)]
    Demonstrate {
        #[arg(long)]
        snproxy: PathBuf,
        #[arg(long, value_parser = value_parser!(u8).range(1..=9))]
        hosts: u8,
    },
    /// A small HTTP server: a pod of `run`.
    #[command(hide = true)]
    Pod(run::pod::Pod),
    /// A small HTTP client, where curl is missing.
    #[command(hide = true)]
    Get { url: String },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Run { hosts, conf: None } => run::demonstrate_as_root(hosts),
        Task::Run {
            conf: Some(conf), ..
        } => run::foreground(&conf),
        Task::Test {
            fast,
            strict,
            filter,
        } => test::run(fast, strict, filter.as_deref()),
        Task::Bench(bench) => bench.run(),
        Task::Endurance { reloads, hostile } => soak::endurance(reloads, hostile),
        Task::Soak { minutes, seed } => soak::run(minutes, seed),
        Task::Tidy => tidy::run(),
        Task::Ebpf { check } => ebpf::run(check),
        Task::Dist => dist::run(),
        Task::Flame => flame::run(),
        Task::Instructions { accept } => instructions::run(accept),
        Task::Simulate { check, seed } => simulate::simulate(check, seed),
        Task::Manifests => manifests::run(),
        Task::Demonstrate { snproxy, hosts } => run::demonstrate(&snproxy, hosts),
        Task::Pod(pod) => pod.serve(),
        Task::Get { url } => run::pod::get(&url),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
