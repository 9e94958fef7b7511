//! A program of the demonstration: started, watched, started again, stopped.

use crate::root::run;
use anyhow::{Context, bail};
use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, channel},
    },
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

/// How long a program that ended stays away: long enough to see how the others do without it.
pub(super) const AWAY: Duration = Duration::from_secs(10);
/// Time to end by TERM before it is killed.
const GRACE: Duration = Duration::from_secs(3);

pub(super) struct Program {
    name: String,
    command: Command,
    /// What the line of its log has in it that says it is ready.
    ready: &'static str,
    /// Its log is not shown any more.
    hush: Arc<AtomicBool>,
    child: Option<Child>,
    ended: Instant,
}

impl Program {
    /// Starts it; the receiver hears of the line that says it is ready, and of the log's end.
    pub(super) fn start(
        name: &str,
        mut command: Command,
        ready: &'static str,
    ) -> anyhow::Result<(Self, Receiver<()>)> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        own_group(&mut command);
        let mut program = Self {
            name: name.to_owned(),
            command,
            ready,
            hush: Arc::default(),
            child: None,
            ended: Instant::now(),
        };
        let is_ready = program.spawn()?;
        Ok((program, is_ready))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// `None` between its end and its next start.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn spawn(&mut self) -> anyhow::Result<Receiver<()>> {
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        let log = child.stderr.take().context("log of a child")?;
        self.child = Some(child);
        Ok(show_log(
            self.name.clone(),
            log,
            self.ready,
            Arc::clone(&self.hush),
        ))
    }

    /// Says when it has ended, and starts it again after [`AWAY`].
    pub(super) fn watch(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            if let Some(status) = child.try_wait()? {
                self.was_seen_to_end(status);
            }
        } else if self.ended.elapsed() >= AWAY {
            self.spawn()?;
            if let Some(pid) = self.pid() {
                println!("  {} | started again, pid {pid}", self.name);
            }
        }
        Ok(())
    }

    fn was_seen_to_end(&mut self, status: ExitStatus) {
        println!(
            "  {} | ended, {status}: it is started again in {AWAY:?}",
            self.name
        );
        self.child = None;
        self.ended = Instant::now();
    }

    /// Sends TERM; nothing more of its log is shown.
    pub(super) fn ask_to_end(&mut self) -> anyhow::Result<()> {
        self.hush.store(true, Relaxed);
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        // `ip netns exec` becomes the program itself, so the child's pid is the program's.
        run(own_group(
            Command::new("kill").args(["-TERM", &child.id().to_string()]),
        ))
    }

    /// Waits for its end, and makes it end when that takes too long.
    pub(super) fn wait_for_end(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let end = Instant::now() + GRACE;
        while child.try_wait()?.is_none() {
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                bail!("it did not end by TERM, and was killed");
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Out of reach of the terminal's Ctrl+C: we end our children in order.
pub(super) fn own_group(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

/// Prints a log line by line from the line with `ready` in it on; all of it when that line never comes.
fn show_log(
    name: String,
    log: impl Read + Send + 'static,
    ready: &'static str,
    hush: Arc<AtomicBool>,
) -> Receiver<()> {
    let (sender, receiver) = channel();
    spawn(move || {
        let mut sender = Some(sender);
        let mut before = Vec::new();
        let show = |line: &str| {
            if !hush.load(Relaxed) {
                println!("  {name} | {line}");
            }
        };
        for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.is_none() {
                show(&line);
            } else if line.contains(ready) {
                show(&line);
                let _ = sender.take().map(|sender| sender.send(()));
            } else {
                before.push(line);
            }
        }
        if sender.is_some() {
            for line in &before {
                show(line);
            }
        }
    });
    receiver
}
