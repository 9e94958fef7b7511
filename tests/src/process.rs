use crate::{Namespace, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Lines of a log that a failing scenario shows.
const SHOWN: usize = 200;
const LAST_LINES: Duration = Duration::from_millis(500);
/// Time for all threads to stand still.
const STILL: Duration = Duration::from_secs(5);

/// A running program in a namespace. What it prints is kept, and shown when the scenario panics; dropped, it is killed.
pub struct Process {
    name: String,
    started: Instant,
    child: Mutex<Child>,
    pid: Pid,
    lines: Arc<Mutex<Vec<Line>>>,
    /// Holds its configuration until it is gone.
    folder: Option<TempDir>,
}

struct Line {
    after: Duration,
    text: String,
}

impl Process {
    #[track_caller]
    pub fn spawn(namespace: &Namespace, name: &str, command: &mut Command) -> Self {
        Self::spawned_by(name, command, |command| namespace.spawn(command))
    }

    /// Starts a command where this thread is: one that goes into a namespace by itself.
    #[track_caller]
    pub fn spawn_here(name: &str, command: &mut Command) -> Self {
        Self::spawned_by(name, command, Command::spawn)
    }

    #[track_caller]
    fn spawned_by(
        name: &str,
        command: &mut Command,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = match spawn(command) {
            Ok(child) => child,
            Err(error) => {
                panic!("{command:?}: {error} (`cargo xtask test` installs what scenarios need)")
            }
        };
        let lines = Arc::default();
        keep_lines(child.stdout.take(), &lines, started);
        keep_lines(child.stderr.take(), &lines, started);
        let pid = Pid::from_child(&child);
        Self {
            name: name.to_owned(),
            started,
            child: Mutex::new(child),
            pid,
            lines,
            folder: None,
        }
    }

    pub(crate) fn with_folder(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// All that it has printed so far, both streams, in the order it came.
    pub fn log(&self) -> String {
        let lines = locked(&self.lines);
        lines
            .iter()
            .flat_map(|line| [line.text.as_str(), "\n"])
            .collect()
    }

    /// Waits for a line that contains `text` and gives its time since exec; panics when the program ends before.
    #[track_caller]
    pub fn wait_for_line(&self, limit: Duration, text: &str) -> Duration {
        let found = || {
            locked(&self.lines)
                .iter()
                .find(|line| line.text.contains(text))
                .map(|line| line.after)
        };
        let mut status = None;
        eventually(
            limit,
            &format!("`{text}` in the log of {}", self.name),
            || {
                // Asked before the look at the log: lines printed just before the end still count.
                status = self.exit_status();
                found().is_some() || status.is_some()
            },
        );
        if let Some(status) = status {
            self.wait_for_the_last_lines();
            assert!(
                found().is_some(),
                "{} ended ({status}) before it printed `{text}`",
                self.name
            );
        }
        found().expect("the line just seen")
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        locked(&self.child).try_wait().expect("wait for a child")
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        // Under the lock nobody can have reaped it in between, so the pid is still its own.
        let mut child = locked(&self.child);
        if child.try_wait().expect("wait for a child").is_none() {
            kill_process(self.pid, signal)
                .unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
        }
    }

    #[track_caller]
    pub fn wait(&self, limit: Duration) -> ExitStatus {
        let mut status = None;
        eventually(limit, &format!("end of {}", self.name), || {
            status = self.exit_status();
            status.is_some()
        });
        self.wait_for_the_last_lines();
        status.expect("it has ended")
    }

    /// The readers are a moment behind an exit. Not for long, though: a child of its own may hold the pipes open.
    fn wait_for_the_last_lines(&self) {
        let end = Instant::now() + LAST_LINES;
        // Each reader holds the lines as well, until the end of its pipe.
        while Arc::strong_count(&self.lines) > 1 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends TERM and waits.
    #[track_caller]
    pub fn stop(&self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Ends it as a crash would.
    pub fn kill(&self) -> ExitStatus {
        let mut child = locked(&self.child);
        let _ = child.kill();
        let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
        drop(child);
        self.wait_for_the_last_lines();
        status
    }

    /// Stops it where it stands: its sockets stay open, and nobody reads from them. [`thaw`](Self::thaw) lets it go on.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/status", self.pid());
        eventually(STILL, &format!("{} stands still", self.name), || {
            let status = fs::read_to_string(&status).expect("a running process");
            status.lines().any(|line| line.starts_with("State:\tT"))
        });
    }

    #[track_caller]
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Resident memory in bytes.
    #[track_caller]
    pub fn rss(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("VmRSS of a running process")
            * 1024
    }

    /// Number of open descriptors.
    #[track_caller]
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a running process")
            .count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let status = self.exit_status();
        self.kill();
        if thread::panicking() {
            let state = status.map_or("still running".to_owned(), |status| status.to_string());
            let lines = locked(&self.lines);
            eprintln!("---- log of {} ({state})", self.name);
            for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                eprintln!("{:>9.3} {}", line.after.as_secs_f64(), line.text);
            }
            eprintln!("----");
        }
    }
}

/// A test that panicked elsewhere must not hide its reason behind a poisoned lock.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a pipe to its end on a thread of its own, so that the program never waits for us.
fn keep_lines(
    pipe: Option<impl Read + Send + 'static>,
    lines: &Arc<Mutex<Vec<Line>>>,
    started: Instant,
) {
    let (Some(pipe), lines) = (pipe, Arc::clone(lines)) else {
        return;
    };
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).into_owned();
            locked(&lines).push(Line {
                after: started.elapsed(),
                text,
            });
        }
    });
}
