//! The command line. Nouns read the running proxy, verbs change it.

#![expect(
    clippy::print_stdout,
    reason = "answers to the user go to standard output"
)]

mod ambassador;
mod apps;
mod check;
mod client;
mod explain;
mod health;
mod keys;
mod log;
mod owner;
mod ports;
mod register;
mod reload;
mod routes;
mod run;
mod status;
mod words;

use std::env;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::bail;
use clap::{Parser, Subcommand};

use crate::diag::{Diagnostic, Severity};
use crate::discovery::Root;
use crate::steering;
use crate::sys::{names, signal};

/// The work was done.
const DONE: u8 = 0;
/// The work was not done.
const FAILED: u8 = 1;
/// The files do not make a configuration.
const BAD_CONFIGURATION: u8 = 2;
/// The command line makes no sense.
const BAD_USAGE: u8 = 64;

/// The configuration of a folder that names none.
const DEFAULT_CONF: &str = "proxy.conf";

/// A layer-4 cluster proxy: every cluster port of a host through one listener.
#[derive(Debug, Parser)]
#[command(name = "snproxy", version = version())]
struct Cli {
    /// The proxy.conf to use, or an apps file (`.json`) [default: proxy.conf in the working folder]
    #[arg(long, global = true, value_name = "FILE")]
    conf: Option<PathBuf>,

    /// With an apps file or an ambassador: a line of proxy.conf, such as "IDLETIMEOUT 5m"
    #[arg(long, global = true, value_name = "KEY VALUE")]
    set: Vec<String>,

    /// Where the running proxy is asked, in place of what the configuration says: `unix:/path`; for one that is started, addresses for metrics may follow after a blank
    #[arg(long, global = true, value_name = "SOCKET")]
    admin: Option<String>,

    /// The proxy.conf to use, as the Simplenetes proxy takes it
    #[arg(value_name = "FILE", conflicts_with = "conf")]
    file: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry the connections of an apps file (config.json), without a proxy.conf
    Apps {
        /// The apps file
        #[arg(long, value_name = "FILE", default_value = "config.json")]
        config_file: PathBuf,
        /// Connections at once; further ones wait
        #[arg(long, value_name = "N", default_value_t = apps::MAX_WORKERS)]
        max_workers: NonZeroU32,
        /// How ports are served: `ebpf`, `listeners` (a socket per port) or `auto`
        #[arg(long, value_name = "HOW", default_value = "auto")]
        steering: String,
    },
    #[command(flatten)]
    Ambassador(Box<ambassador::Command>),
    /// Check a configuration and say all that is wrong with it
    Check {
        /// Print every key with its value in effect, where that comes from and what it means
        #[arg(long)]
        explain: bool,
    },
    /// Ask the running proxy how it is
    Status {
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask the running proxy what becomes of each port, and why
    Ports {
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask the running proxy what it knows of the other hosts: which are reached, and what each serves
    Routes {
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask the running proxy which way a connection would go, and why
    Explain {
        /// The port that the client opens
        #[arg(value_name = "PORT")]
        port: u16,
        /// Whose connection it is
        #[arg(long, value_name = "ADDRESS", value_parser = explain::address)]
        from: Option<IpAddr>,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep the key of a node in etcd for as long as the node takes connections
    Register(register::Node),
    /// Make the running proxy read its files again
    Reload {
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// Whether it is for a proxy that runs.
    fn asks(&self) -> bool {
        match self {
            Self::Status { .. }
            | Self::Ports { .. }
            | Self::Routes { .. }
            | Self::Explain { .. }
            | Self::Reload { .. } => true,
            Self::Apps { .. } | Self::Ambassador(_) | Self::Register(_) | Self::Check { .. } => {
                false
            }
        }
    }

    /// Whether it runs until it is ended.
    fn serves(&self) -> bool {
        !self.asks() && !matches!(self, Self::Check { .. })
    }
}

/// Runs one command; the number is the process' exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(words::of(env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { BAD_USAGE } else { DONE };
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    names::ask_only_what_is_built_in();
    if cli
        .command
        .as_ref()
        .is_some_and(|command| !command.serves())
    {
        signal::die_of_broken_pipes();
    }
    let result = execute(&cli);
    ExitCode::from(result.unwrap_or_else(|error| {
        eprintln!("snproxy: {error:#}");
        FAILED
    }))
}

fn execute(cli: &Cli) -> anyhow::Result<u8> {
    let root = || root(cli);
    match &cli.command {
        None | Some(Command::Apps { .. }) => run::run(root()?, &run::Options::default()),
        Some(Command::Ambassador(command)) => {
            no_files(cli)?;
            ambassador::run(command, cli.admin.as_deref(), &cli.set)
        }
        Some(Command::Register(node)) => {
            no_files(cli)?;
            if !cli.set.is_empty() || cli.admin.is_some() {
                bail!("--set and --admin are not for register");
            }
            register::register(node)
        }
        Some(Command::Check { explain }) => Ok(check::check(&root()?, *explain)),
        Some(Command::Status { json }) => status::status(&root()?, *json),
        Some(Command::Ports { json }) => ports::ports(&root()?, *json),
        Some(Command::Routes { json }) => routes::routes(&root()?, *json),
        Some(Command::Explain { port, from, json }) => {
            explain::explain(&root()?, *port, *from, *json)
        }
        Some(Command::Reload { json }) => reload::reload(&root()?, *json),
    }
}

/// Options that would do nothing are errors.
fn no_files(cli: &Cli) -> anyhow::Result<()> {
    match cli.conf.as_ref().or(cli.file.as_ref()) {
        None => Ok(()),
        Some(file) => bail!(
            "{}: ambassadors and register read no configuration",
            file.display()
        ),
    }
}

/// The set of files that a command is about.
fn root(cli: &Cli) -> anyhow::Result<Root> {
    let conf = cli.conf.as_ref().or(cli.file.as_ref());
    let conf = conf.cloned().unwrap_or_else(|| PathBuf::from(DEFAULT_CONF));
    let admin = cli.admin.as_deref();
    match &cli.command {
        Some(command)
            if command.asks()
                && let Some(admin) = admin =>
        {
            client::root_at(admin)
        }
        Some(Command::Apps { .. }) if cli.conf.is_some() || cli.file.is_some() => bail!(
            "{}: apps read no proxy.conf: name their file with --config-file",
            conf.display()
        ),
        Some(Command::Apps {
            config_file,
            max_workers,
            steering,
        }) => {
            let mut settings = vec![format!("STEERING {steering}")];
            settings.extend(admin.map(|admin| format!("ADMIN {admin}")));
            settings.extend(cli.set.iter().cloned());
            apps::root(config_file, *max_workers, &settings)
        }
        _ if admin.is_some() => bail!(
            "--admin is for commands that ask: set ADMIN in {}",
            conf.display()
        ),
        _ if apps::is_apps(&conf) => apps::root(&conf, apps::MAX_WORKERS, &cli.set),
        _ if !cli.set.is_empty() => bail!(
            "--set is for an apps file: set the key in {}",
            conf.display()
        ),
        _ => Ok(Root::Conf(conf)),
    }
}

/// The version, and which BPF object is inside.
fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{} (bpf object sha256 {})",
            env!("CARGO_PKG_VERSION"),
            steering::object_sha256()
        )
    });
    &VERSION
}

/// Prints findings with the lines they are about; true when one is an error.
fn show(diagnostics: &[Diagnostic]) -> bool {
    for found in diagnostics {
        eprintln!("{}", found.block());
    }
    let count = |severity| {
        diagnostics
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if errors + warnings > 0 {
        eprintln!("{errors} error(s), {warnings} warning(s)");
    }
    errors > 0
}
