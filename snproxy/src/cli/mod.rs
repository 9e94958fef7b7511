//! The command line. Nouns read the running proxy, verbs change it.

mod ambassador;
mod apps;
mod check;
mod client;
mod explain;
mod health;
mod keys;
mod log;
mod output;
mod owner;
mod ports;
mod register;
mod reload;
mod routes;
mod run;
mod status;
mod words;

use std::env;
use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{CommandFactory, Parser, Subcommand};

use crate::diag::{Diagnostic, Severity};
use crate::discovery::Root;
use crate::steering;
use crate::sys::{names, signal};

use output::err;

/// The work was done.
const DONE: u8 = 0;
/// The work was not done.
const FAILED: u8 = 1;
/// The files do not make a configuration.
const BAD_CONFIGURATION: u8 = 2;
/// The command line makes no sense.
const BAD_USAGE: u8 = 64;

/// Where a configuration is looked for if the command line names none.
const DEFAULT_CONFS: [&str; 2] = ["proxy.conf", "/etc/snproxy/proxy.conf"];

/// A command line that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

macro_rules! usage {
    ($($words:tt)*) => { return Err($crate::cli::Usage(format!($($words)*)).into()) };
}

/// A layer-4 cluster proxy: every cluster port of a host through one listener.
#[derive(Debug, Parser)]
#[command(name = "snproxy", version = version())]
struct Cli {
    /// The proxy.conf to use, or an apps file (`.json`) [default: ./proxy.conf, then /etc/snproxy/proxy.conf]
    #[arg(long, global = true, value_name = "FILE")]
    conf: Option<PathBuf>,

    /// Warn of unknown keys and fields of the files instead of refusing them, at the start and at each reload
    #[arg(long, global = true)]
    ignore_unknown: bool,

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
        /// Fail on warnings
        #[arg(long)]
        strict: bool,
        /// The proxy.conf or the apps file to check
        #[arg(value_name = "FILE", conflicts_with = "conf")]
        checked: Option<PathBuf>,
    },
    /// Ask the running proxy how it is
    Status {
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
        /// Fail if the proxy is draining (exit code 3), has a pending port (4), does not use its files (5) or has no
        /// mapping (6); LIST names some of these: draining, pending, files, mappings
        #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 0.., require_equals = true)]
        check: Option<Vec<status::Condition>>,
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
    let words = words::of(env::args_os());
    let cli = match words::no_command(&words) {
        Some(error) => Err(error),
        None => Cli::try_parse_from(words),
    };
    let cli = match cli {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(explained(&error)),
    };
    let serves = cli.command.as_ref().is_none_or(Command::serves);
    if serves {
        // Process 1 of a container would not be ended by them otherwise.
        signal::end_at_once();
    } else {
        signal::die_of_broken_pipes();
    }
    names::ask_only_what_is_built_in();
    let result = execute(&cli).unwrap_or_else(|error| {
        log::print_in_time(&format!("snproxy: {error:#}\n"));
        if error.is::<Usage>() {
            BAD_USAGE
        } else {
            FAILED
        }
    });
    ExitCode::from(finish(result))
}

/// Prints help, the version, or what is wrong with the command line.
fn explained(error: &clap::Error) -> u8 {
    match (error.use_stderr(), error.print()) {
        (true, _) => BAD_USAGE,
        (false, Ok(())) => finish(DONE),
        (false, Err(error)) => {
            err!("snproxy: write to standard output: {error}");
            FAILED
        }
    }
}

/// The exit code of a command that has written its answer.
fn finish(code: u8) -> u8 {
    match output::finish() {
        Err(error) => {
            err!("snproxy: write to standard output: {error}");
            if code == DONE { FAILED } else { code }
        }
        Ok(()) => code,
    }
}

fn execute(cli: &Cli) -> anyhow::Result<u8> {
    let root = || root(cli);
    let ignore_unknown = cli.ignore_unknown;
    match &cli.command {
        None | Some(Command::Apps { .. }) => {
            let options = run::Options {
                ignore_unknown,
                ..run::Options::default()
            };
            run::run(root()?, &options)
        }
        Some(Command::Ambassador(command)) => {
            no_files(cli)?;
            ambassador::run(command, cli.admin.as_deref(), &cli.set)
        }
        Some(Command::Register(node)) => {
            no_files(cli)?;
            if !cli.set.is_empty() || cli.admin.is_some() {
                usage!("--set and --admin are not for register");
            }
            register::register(node)
        }
        Some(Command::Check {
            explain, strict, ..
        }) => Ok(check::check(
            &root()?,
            &check::Options {
                explain: *explain,
                strict: *strict,
                ignore_unknown,
            },
        )),
        Some(Command::Status { json, check }) => status::status(&root()?, *json, check.as_deref()),
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
    if cli.ignore_unknown {
        usage!("--ignore-unknown is for files: ambassadors and register read no configuration");
    }
    match named(cli) {
        None => Ok(()),
        Some(file) => usage!(
            "{}: ambassadors and register read no configuration",
            file.display()
        ),
    }
}

/// The file that the command line names.
fn named(cli: &Cli) -> Option<&PathBuf> {
    let checked = match &cli.command {
        Some(Command::Check { checked, .. }) => checked.as_ref(),
        _ => None,
    };
    cli.conf.as_ref().or(cli.file.as_ref()).or(checked)
}

/// The first configuration that is where one is by default.
fn default_conf() -> anyhow::Result<PathBuf> {
    let found = DEFAULT_CONFS
        .iter()
        .find(|path| fs::symlink_metadata(path).is_ok());
    if let Some(path) = found {
        return Ok(PathBuf::from(path));
    }
    let [here, system] = DEFAULT_CONFS;
    let help = Cli::command().render_usage();
    usage!(
        "no configuration: looked for ./{here} and {system}; name another with --conf FILE\n\n{help}\n\n\
         For more information, try '--help'."
    )
}

/// The set of files that a command is about.
fn root(cli: &Cli) -> anyhow::Result<Root> {
    let admin = cli.admin.as_deref();
    match &cli.command {
        Some(command) if command.asks() => {
            if cli.ignore_unknown {
                usage!("--ignore-unknown is for commands that use files: run, apps and check");
            }
            if let Some(admin) = admin {
                return client::root_at(admin);
            }
        }
        Some(Command::Apps {
            config_file,
            max_workers,
            steering,
        }) => {
            if let Some(conf) = named(cli) {
                usage!(
                    "{}: apps read no proxy.conf: name their file with --config-file",
                    conf.display()
                );
            }
            let mut settings = vec![format!("STEERING {steering}")];
            settings.extend(admin.map(|admin| format!("ADMIN {admin}")));
            settings.extend(cli.set.iter().cloned());
            return apps::root(config_file, *max_workers, &settings);
        }
        _ => {}
    }
    let conf = match named(cli) {
        Some(conf) => conf.clone(),
        None => default_conf()?,
    };
    if admin.is_some() {
        usage!(
            "--admin is for commands that ask: set ADMIN in {}",
            conf.display()
        );
    }
    if apps::is_apps(&conf) {
        return apps::root(&conf, apps::MAX_WORKERS, &cli.set);
    }
    if !cli.set.is_empty() {
        usage!(
            "--set is for an apps file: set the key in {}",
            conf.display()
        );
    }
    Ok(Root::Conf(conf))
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

/// Prints findings with the lines they are about. Returns the number of errors and of warnings.
fn show(diagnostics: &[Diagnostic]) -> (usize, usize) {
    for found in diagnostics {
        err!("{}", found.block());
    }
    let count = |severity| {
        diagnostics
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if errors + warnings > 0 {
        err!("{errors} error(s), {warnings} warning(s)");
    }
    (errors, warnings)
}
