//! The snproxy on a host: started, asked, stopped.

use super::Host;
use crate::{Process, eventually, process::locked};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    process::{Command, ExitStatus, Output},
    sync::Arc,
    time::Duration,
};

/// Time to become ready. Generous: the scenario that measures it prints the figure.
const READY: Duration = Duration::from_secs(20);
/// Time to notice files and to put them in force, on a busy machine.
const RELOAD: Duration = Duration::from_secs(15);
/// Longer than the default DRAINTIMEOUT.
const STOP: Duration = Duration::from_secs(45);

impl Host {
    /// Starts snproxy and waits until it is ready.
    #[track_caller]
    pub fn start(&self) -> &Self {
        self.launch().wait_for_line(READY, " ready: ");
        self
    }

    /// Starts snproxy and waits for nothing.
    #[track_caller]
    pub fn launch(&self) -> Arc<Process> {
        let mut snproxy = locked(&self.snproxy);
        let runs = snproxy
            .as_ref()
            .is_some_and(|snproxy| snproxy.exit_status().is_none());
        assert!(!runs, "snproxy runs already on {}", self.name);
        let name = format!("snproxy on {}", self.name);
        let process = Process::spawn(
            &self.namespace,
            &name,
            locked(&self.launch)
                .command(self.folder())
                .arg("--conf")
                .arg(self.conf_file()),
        );
        Arc::clone(snproxy.insert(Arc::new(process)))
    }

    /// The running snproxy.
    #[track_caller]
    pub fn snproxy(&self) -> Arc<Process> {
        locked(&self.snproxy)
            .clone()
            .unwrap_or_else(|| panic!("snproxy was not started on {}", self.name))
    }

    /// Time from exec to the line that says it is ready.
    #[track_caller]
    pub fn ready_after(&self) -> Duration {
        self.snproxy().wait_for_line(READY, " ready: ")
    }

    /// Stops snproxy by TERM and waits.
    #[track_caller]
    pub fn stop(&self) -> ExitStatus {
        let status = self.snproxy().stop(STOP);
        locked(&self.snproxy).take();
        status
    }

    /// Ends snproxy as a crash would.
    #[track_caller]
    pub fn crash(&self) {
        self.snproxy().kill();
        locked(&self.snproxy).take();
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.snproxy().signal(signal);
    }

    /// What snproxy has logged.
    #[track_caller]
    pub fn log(&self) -> String {
        self.snproxy().log()
    }

    #[track_caller]
    pub fn rss(&self) -> u64 {
        self.snproxy().rss()
    }

    /// Runs a command of snproxy here to its end: `host.run(&["check", "--explain"])`; `--conf` is added.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(locked(&self.launch).binary());
        self.namespace
            .output(command.args(words).arg("--conf").arg(self.conf_file()))
    }

    /// A command that runs this snproxy here, without arguments yet: for [`Process::spawn`] in
    /// [`namespace`](Self::namespace).
    #[track_caller]
    pub fn command(&self) -> Command {
        locked(&self.launch).command(self.folder())
    }

    /// `snproxy status --json`
    #[track_caller]
    pub fn status(&self) -> Value {
        self.asked(&["status", "--json"])
    }

    /// `snproxy ports --json`
    #[track_caller]
    pub fn ports(&self) -> Value {
        self.asked(&["ports", "--json"])
    }

    /// `snproxy routes --json`
    #[track_caller]
    pub fn routes(&self) -> Value {
        self.asked(&["routes", "--json"])
    }

    /// `snproxy reload`: what it printed, and whether it exited well.
    #[track_caller]
    pub fn reload(&self) -> Output {
        self.run(&["reload"])
    }

    /// The range of `ports` that this port lies in.
    #[track_caller]
    pub fn port_range(&self, port: u16) -> Value {
        let ports = self.ports();
        let holds = |range: &&Value| {
            let bound = |key: &str| range[key].as_u64().expect("bound of a range");
            (bound("first")..=bound("last")).contains(&port.into())
        };
        ports["ranges"]
            .as_array()
            .expect("ranges")
            .iter()
            .find(holds)
            .cloned()
            .unwrap_or_default()
    }

    /// `steer`, `refuse` or `pass`; empty for a port that is none of ours.
    #[track_caller]
    pub fn action(&self, port: u16) -> String {
        self.port_range(port)["action"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// A number of `status`: `host.count("/connections/live")`.
    #[track_caller]
    pub fn count(&self, pointer: &str) -> u64 {
        let status = self.status();
        status
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no number {pointer} in {status:#}"))
    }

    /// Connections that ended in this way since the start: `host.ends("busy")`.
    #[track_caller]
    pub fn ends(&self, end: &str) -> u64 {
        self.count(&format!("/ends/{end}"))
    }

    /// Changes files and waits until what they say now is in force; gives the time that took.
    #[track_caller]
    pub fn reloaded_after<'h, T>(&'h self, change: impl FnOnce(&'h Self) -> T) -> Duration {
        let before = self.count("/generation");
        change(self);
        eventually(RELOAD, "the new files are in force", || {
            self.count("/generation") > before
        })
    }

    /// Lookups that the kernel gave to the listener.
    #[track_caller]
    pub fn steered(&self) -> u64 {
        self.count("/kernel/steered")
    }

    #[track_caller]
    fn asked(&self, words: &[&str]) -> Value {
        let output = self.run(words);
        let text = String::from_utf8_lossy(&output.stdout);
        let failed = || {
            format!(
                "snproxy {}: {text}{}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )
        };
        assert!(output.status.success(), "{}", failed());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", failed()))
    }
}
