//! Runs the proxy as a process of its own, which signals steer.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::warn;

use crate::daemon::{self, Command, Manager, Names, Start, Surroundings};
use crate::discovery::Root;
use crate::sys::{memory, signal as signals};

use super::{BAD_CONFIGURATION, DONE, log, show};

/// Commands that wait for the daemon.
const MAX_COMMANDS: usize = 16;

/// How it is run.
pub(super) struct Options {
    /// Every port is served from the start, or nothing is.
    pub(super) all_ports: bool,
    /// Goes before what the environment says.
    pub(super) log_level: Option<String>,
    /// The exit code where the configuration is refused.
    pub(super) refused: u8,
    /// Unknown keys and fields are warnings.
    pub(super) ignore_unknown: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            all_ports: false,
            log_level: None,
            refused: BAD_CONFIGURATION,
            ignore_unknown: false,
        }
    }
}

pub(super) fn run(root: Root, options: &Options) -> anyhow::Result<u8> {
    signals::ignore_hangup();
    memory::take_over();
    let names = Names::new(options.ignore_unknown);
    let good = match daemon::look(&root, &names) {
        Ok(good) => good,
        Err(diagnostics) => {
            show(&diagnostics);
            return Ok(options.refused);
        }
    };
    let log = log::init(&good.conf, options.log_level.as_deref())?;
    // Dropped last: what is logged until then is written.
    let _written = log.thread;
    for found in &good.diagnostics {
        warn!("{found}");
    }
    daemon::raise_descriptor_limit();
    let start = Start::new(root, good, names)?;
    let surroundings = Surroundings {
        set_log_level: log.set_level,
        manager: Manager::of_environment(),
        all_ports: options.all_ports,
        ready: Box::new(|| {}),
    };
    let runtime = daemon::runtime()?;
    let result = runtime.block_on(async {
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        tokio::spawn(Signals::new()?.pass_on(commands));
        signals::start_is_over();
        daemon::serve(start, received, surroundings).await
    });
    // A probe or a caller of the control socket may be half way: nobody waits for them.
    runtime.shutdown_background();
    result?;
    Ok(DONE)
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// HUP reads the files again, TERM and INT drain, INT in a drain ends it.
    async fn pass_on(mut self, commands: mpsc::Sender<Command>) {
        let mut draining = false;
        loop {
            let command = tokio::select! {
                _ = self.hangup.recv() => Command::Reload,
                _ = self.terminate.recv() => Command::Drain,
                _ = self.interrupt.recv() => {
                    if draining {
                        Command::End
                    } else {
                        Command::Drain
                    }
                }
            };
            draining |= matches!(command, Command::Drain);
            if commands.send(command).await.is_err() {
                return;
            }
        }
    }
}
