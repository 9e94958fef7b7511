//! Namespaces joined by a bridge, a folder and some programs, all of which go again.

use super::program::{Program, own_group};
use crate::root::run;
use anyhow::{Context, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use std::{
    env,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio, id},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::RecvTimeoutError,
    },
    thread::sleep,
    time::{Duration, Instant},
};

const BEAT: Duration = Duration::from_millis(50);
const SWITCH: &str = "switch";

/// Holds only what it made itself, and takes it back on [`clean_up`](Self::clean_up) or, failing that, on drop.
pub(super) struct Ground {
    interrupted: Arc<AtomicBool>,
    folder: PathBuf,
    /// In the order they were made; the switch is the first.
    namespaces: Vec<String>,
    running: Vec<Program>,
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
        Ok(Self {
            interrupted,
            folder,
            namespaces: Vec::new(),
            running: Vec::new(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
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

    /// Writes a file of the folder, and the folder that it lies in.
    pub(super) fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let file = self.folder.join(file);
        let within = file.parent().unwrap_or(&self.folder);
        fs::create_dir_all(within)
            .and_then(|()| fs::write(&file, text))
            .with_context(|| format!("write {}", file.display()))
    }

    /// Name of the namespace of this member.
    pub(super) fn namespace(member: &str) -> String {
        format!("snproxy-{member}-{}", id())
    }

    /// Makes the namespace of a member, with this address and a cable to the switch.
    pub(super) fn add_member(&mut self, member: &str, address: &str) -> anyhow::Result<()> {
        let switch = Self::namespace(SWITCH);
        if self.namespaces.is_empty() {
            self.add_namespace(&switch)?;
            ip(&switch, "link add switch type bridge forward_delay 0")?;
            ip(&switch, "link set switch up")?;
        }
        let name = Self::namespace(member);
        self.add_namespace(&name)?;
        ip(
            &switch,
            &format!("link add {member} type veth peer name eth0 netns {name}"),
        )?;
        ip(&switch, &format!("link set {member} master switch up"))?;
        ip(&name, &format!("address add {address}/24 dev eth0"))?;
        ip(&name, "link set lo up")?;
        ip(&name, "link set eth0 up")
    }

    fn add_namespace(&mut self, name: &str) -> anyhow::Result<()> {
        self.go_on()?;
        run(own_group(Command::new("ip").args(["netns", "add", name])))?;
        self.namespaces.push(name.to_owned());
        Ok(())
    }

    /// A command in the namespace of a member.
    pub(super) fn inside(member: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &Self::namespace(member)])
            .arg(program);
        command
    }

    /// Starts a program whose log is shown from here on, and waits for a line with `ready` in it.
    pub(super) fn start(
        &mut self,
        name: &str,
        command: Command,
        ready: &'static str,
        limit: Duration,
    ) -> anyhow::Result<()> {
        self.go_on()?;
        let (program, is_ready) = Program::start(name, command, ready)?;
        self.running.push(program);
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

    pub(super) fn pid(&self, name: &str) -> Option<u32> {
        self.running
            .iter()
            .find(|program| program.name() == name)
            .and_then(Program::pid)
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

    /// Stays until Ctrl+C; a program that ends meanwhile comes back.
    pub(super) fn wait(&mut self) -> anyhow::Result<()> {
        while !self.interrupted() {
            for program in &mut self.running {
                program.watch()?;
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
        for end in [Program::ask_to_end, Program::wait_for_end] {
            // The proxies before their pods.
            for program in self.running.iter_mut().rev() {
                if let Err(error) = end(program) {
                    failures.push(format!("stop {}: {error:#}", program.name()));
                }
            }
        }
        self.running.clear();
        for name in self.namespaces.drain(..).rev() {
            let removed = run(own_group(Command::new("ip").args(["netns", "del", &name])));
            if let Err(error) = removed {
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

/// Runs `ip` with these words in a namespace.
fn ip(namespace: &str, words: &str) -> anyhow::Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-n", namespace]).args(words.split_whitespace());
    run(own_group(&mut ip))
}
