//! An ambassador on a host, and the servers that it is for.

use rustix::process::Signal;
use serde_json::Value;
use snproxy_tests::{Host, Process, snproxy_binary};
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{chown, symlink},
    path::PathBuf,
    process::{Command, ExitStatus, Output},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

pub(super) const SOON: Duration = Duration::from_secs(20);

/// Numbers their control sockets.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// An ordinary user.
pub(super) const USER: u32 = 1000;

/// An ambassador that runs.
pub(super) struct Ambassador<'h> {
    host: &'h Host,
    admin: String,
    process: Process,
}

/// How one is started.
pub(super) struct Launch<'h> {
    host: &'h Host,
    program: PathBuf,
    before: Vec<String>,
    environment: Vec<(String, String)>,
}

impl<'h> Launch<'h> {
    pub(super) fn on(host: &'h Host) -> Self {
        Self {
            host,
            program: snproxy_binary(),
            before: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Under the name by which go-proxy is called.
    #[track_caller]
    pub(super) fn named_go_proxy(mut self) -> Self {
        let link = self.host.folder().join("go-proxy");
        if !link.exists() {
            symlink(&self.program, &link).expect("a link");
        }
        self.program = link;
        self
    }

    /// As an ordinary user, without any capability.
    #[track_caller]
    pub(super) fn by_user(mut self) -> Self {
        // The build may lie where this user cannot look.
        let own = self.host.folder().join("snproxy");
        fs::copy(&self.program, &own).expect("copy snproxy");
        chown(self.host.folder(), Some(USER), Some(USER)).expect("owner of the folder");
        self.program = own;
        let words = "setpriv --reuid=1000 --regid=1000 --clear-groups --inh-caps=-all --ambient-caps=-all --";
        self.before.extend(words.split(' ').map(str::to_owned));
        self
    }

    pub(super) fn limit_nofile(mut self, limit: u64) -> Self {
        let words = ["prlimit", &format!("--nofile={limit}:{limit}"), "--"];
        self.before.extend(words.map(str::to_owned));
        self
    }

    pub(super) fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.environment.push((key.to_owned(), value.into()));
        self
    }

    pub(super) fn command(&self, words: &[&str]) -> Command {
        let before = self.before.iter().map(OsString::from);
        let mut all = before.chain([self.program.clone().into()]);
        let mut command = Command::new(all.next().expect("a program"));
        command.args(all).args(words).current_dir("/");
        command.env_remove("LOG_LEVEL");
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Starts it with these words and waits until it is ready.
    #[track_caller]
    pub(super) fn start(&self, words: &str) -> Ambassador<'h> {
        let words: Vec<&str> = words.split_whitespace().collect();
        let socket = format!("ambassador-{}.sock", COUNT.fetch_add(1, Relaxed));
        let admin = format!("unix:{}", self.host.folder().join(socket).display());
        let mut command = self.command(&words);
        command.args(["--admin", &admin]);
        let process = Process::spawn(self.host.namespace(), words[0], &mut command);
        process.wait_for_line(SOON, " ready: ");
        Ambassador {
            host: self.host,
            admin,
            process,
        }
    }

    /// Runs it with these words to its end.
    #[track_caller]
    pub(super) fn run(&self, words: &str) -> Output {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.host.namespace().output(&mut self.command(&words))
    }
}

impl Ambassador<'_> {
    /// What a command that asks it prints.
    #[track_caller]
    pub(super) fn ask(&self, words: &[&str]) -> String {
        let mut command = Command::new(snproxy_binary());
        command.args(words).args(["--admin", &self.admin]);
        let output = self.host.namespace().output(&mut command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    #[track_caller]
    pub(super) fn status(&self) -> Value {
        serde_json::from_str(&self.ask(&["status", "--json"])).expect("JSON")
    }

    #[track_caller]
    pub(super) fn ends(&self, end: &str) -> u64 {
        self.status()["ends"][end].as_u64().expect("a number")
    }

    pub(super) fn log(&self) -> String {
        self.process.log()
    }

    #[track_caller]
    pub(super) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub(super) fn wait(&self) -> ExitStatus {
        self.process.wait(SOON)
    }

    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }
}

/// redis on a port of a host, on every address.
#[track_caller]
pub(super) fn redis(host: &Host, port: u16) -> Process {
    let mut redis = Command::new("redis-server");
    redis
        .args(["--port", &port.to_string(), "--protected-mode", "no"])
        .args(["--save", "", "--appendonly", "no", "--dir", "/tmp"]);
    host.namespace().server("redis", &mut redis, port)
}

/// What a shell prints to this on a host.
#[track_caller]
pub(super) fn shell(host: &Host, line: &str) -> String {
    let output = host
        .namespace()
        .output(Command::new("timeout").args(["60", "sh", "-c", line]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// Whether redis answers at a port of this host.
pub(super) fn redis_answers(host: &Host, port: u16) -> bool {
    let line = format!("redis-cli -p {port} ping");
    let mut ask = Command::new("timeout");
    let output = host.namespace().output(ask.args(["5", "sh", "-c", &line]));
    output.stdout.starts_with(b"PONG")
}
