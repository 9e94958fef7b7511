//! Two namespaces, a folder and some processes, all of which go again.

use crate::root::run;
use anyhow::{Context, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use std::{
    env,
    fs::{self, DirBuilder},
    io::{BufRead, BufReader, Read},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio, id},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

const BEAT: Duration = Duration::from_millis(50);
/// Time for a process to end by TERM before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// Holds only what it made itself, and takes it back on [`clean_up`](Self::clean_up) or, failing that, on drop.
pub(super) struct Ground {
    interrupted: Arc<AtomicBool>,
    folder: PathBuf,
    host: String,
    client: String,
    /// In the order they were made.
    namespaces: Vec<String>,
    running: Vec<Running>,
}

struct Running {
    name: &'static str,
    child: Child,
}

impl Ground {
    pub(super) fn new() -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&interrupted)).context("catch signals")?;
        }
        let folder = env::temp_dir().join(format!("snproxy-run-{}", id()));
        // Fails where anything of this name is there already.
        DirBuilder::new()
            .mode(0o755)
            .create(&folder)
            .with_context(|| format!("create {}", folder.display()))?;
        let [host, client] = ["host", "client"].map(|name| format!("snproxy-{name}-{}", id()));
        Ok(Self {
            interrupted,
            folder,
            host,
            client,
            namespaces: Vec::new(),
            running: Vec::new(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Name of the client's namespace.
    pub(super) fn client(&self) -> &str {
        &self.client
    }

    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.load(Relaxed)
    }

    fn go_on(&self) -> anyhow::Result<()> {
        if self.interrupted() {
            bail!("interrupted");
        }
        Ok(())
    }

    pub(super) fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.folder.join(file), text).with_context(|| format!("write {file}"))
    }

    /// Makes both namespaces and joins them.
    pub(super) fn add_namespaces(
        &mut self,
        host_address: &str,
        client_address: &str,
    ) -> anyhow::Result<()> {
        for name in [self.host.clone(), self.client.clone()] {
            self.go_on()?;
            ip(&["netns", "add", &name])?;
            self.namespaces.push(name);
        }
        let (host, client) = (self.host.as_str(), self.client.as_str());
        ip(&[
            "-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns",
            client,
        ])?;
        for (name, address) in [(host, host_address), (client, client_address)] {
            ip(&[
                "-n",
                name,
                "address",
                "add",
                &format!("{address}/24"),
                "dev",
                "eth0",
            ])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    pub(super) fn on_host(&self, program: &Path) -> Command {
        inside(&self.host, program)
    }

    pub(super) fn on_client(&self, program: &Path) -> Command {
        inside(&self.client, program)
    }

    /// Starts a program whose log is shown from here on, and waits for a line with `ready` in it.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        command: &mut Command,
        ready: &'static str,
        limit: Duration,
    ) -> anyhow::Result<()> {
        self.go_on()?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = own_group(command)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let log = child.stderr.take();
        self.running.push(Running { name, child });
        let is_ready = show_log(name, log.context("log of a child")?, ready);
        let end = Instant::now() + limit;
        loop {
            match is_ready.recv_timeout(BEAT) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => bail!("{name} ended before it was ready"),
                Err(RecvTimeoutError::Timeout) if Instant::now() > end => {
                    bail!("{name} is not ready after {limit:?}")
                }
                Err(RecvTimeoutError::Timeout) => self.go_on()?,
            }
        }
    }

    /// Runs a command to its end; past the limit it is killed.
    pub(super) fn output_within(
        &self,
        command: &mut Command,
        limit: Duration,
    ) -> anyhow::Result<Output> {
        self.go_on()?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().display().to_string();
        let mut child = own_group(command).spawn().context(program)?;
        let end = Instant::now() + limit;
        // Answers are far shorter than a pipe, so it never waits for us to read.
        while child.try_wait()?.is_none() {
            if self.interrupted() || Instant::now() > end {
                child.kill()?;
            }
            sleep(Duration::from_millis(5));
        }
        self.go_on()?;
        Ok(child.wait_with_output()?)
    }

    /// Stays until Ctrl+C.
    ///
    /// Errors: one of the programs ended by itself.
    pub(super) fn wait(&mut self) -> anyhow::Result<()> {
        while !self.interrupted() {
            for Running { name, child } in &mut self.running {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended: {status}");
                }
            }
            sleep(BEAT);
        }
        Ok(())
    }

    /// Takes everything back; goes on after a failure and tells all.
    pub(super) fn clean_up(mut self) -> anyhow::Result<()> {
        let failures = self.take_back();
        if !failures.is_empty() {
            bail!("{}", failures.join("; "));
        }
        Ok(())
    }

    fn take_back(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        // The proxy before its pods.
        for Running { name, child } in self.running.iter_mut().rev() {
            if let Err(error) = stop(child) {
                failures.push(format!("stop {name}: {error:#}"));
            }
        }
        self.running.clear();
        for name in self.namespaces.drain(..).rev() {
            if let Err(error) = ip(&["netns", "del", &name]) {
                failures.push(format!("{error:#}"));
            }
        }
        if self.folder.exists()
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            failures.push(format!("remove {}: {error}", self.folder.display()));
        }
        failures
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for failure in self.take_back() {
            eprintln!("{failure}");
        }
    }
}

fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Out of reach of the terminal's Ctrl+C: we end our children in order.
fn own_group(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    run(own_group(Command::new("ip").args(words)))
}

/// `ip netns exec` becomes the program itself, so the child's pid is the program's.
fn stop(child: &mut Child) -> anyhow::Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    run(own_group(
        Command::new("kill").args(["-TERM", &child.id().to_string()]),
    ))?;
    let end = Instant::now() + GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Prints a log line by line; the receiver hears of the line with `ready` in it, and of the log's end.
fn show_log(
    name: &'static str,
    log: impl Read + Send + 'static,
    ready: &'static str,
) -> Receiver<()> {
    let (sender, receiver) = channel();
    spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("  {name} | {line}");
            if line.contains(ready)
                && let Some(sender) = sender.take()
            {
                let _ = sender.send(());
            }
        }
    });
    receiver
}
