//! Network namespaces: made, entered, and removed again.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    env, fs,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    panic::resume_unwind,
    path::Path,
    process::{Child, Command, Output, exit, id},
    sync::{
        Mutex, Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
const PREFIX: &str = "snt";

/// A network namespace with a unique name; dropped, it is gone.
///
/// Sockets that were opened in it keep it alive unseen until they are closed.
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes a namespace with its loopback up. `label` is the readable end of its name.
    pub fn new(label: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The first `ip netns add` of a boot mounts /run/netns: two at once trip over each other.
        static MAKING: Mutex<()> = Mutex::new(());
        sweep_once();
        let name = format!(
            "{PREFIX}{}-{}-{label}",
            id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let making = MAKING.lock();
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        drop(making);
        match made {
            Ok(made) if made.status.success() => {}
            Ok(made) => not_privileged(&String::from_utf8_lossy(&made.stderr)),
            Err(error) => panic!("ip: {error} (iproute2; `cargo xtask test` installs it)"),
        }
        let handle = File::open(Path::new(NAMES).join(&name)).expect("the namespace just made");
        let namespace = Self { name, handle };
        namespace.ip("link set lo up");
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `body` on a fresh thread inside. Sockets made there stay in the namespace wherever they are used later.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("setns");
            body()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a command inside. Unlike `ip netns exec` this leaves /sys as it is.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        // A child belongs to the namespace of the thread that forks.
        self.run(|| command.spawn())
    }

    /// Runs a command inside to its end.
    #[track_caller]
    pub fn output(&self, command: &mut Command) -> Output {
        match self.run(|| command.output()) {
            Ok(output) => output,
            Err(error) => {
                panic!("{command:?}: {error} (`cargo xtask test` installs what scenarios need)")
            }
        }
    }

    /// Runs `ip` with these words inside.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let output = self.output(Command::new("ip").args(words.split_whitespace()));
        assert!(
            output.status.success(),
            "ip {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("ip writes text")
    }

    /// Runs `nft` inside with these words, which are one command: `add table ip faults`.
    #[track_caller]
    pub fn nft(&self, command: &str) {
        let output = self.output(Command::new("nft").arg(command));
        assert!(
            output.status.success(),
            "nft {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Sets a value under /proc/sys/net, such as `ipv4/ip_local_port_range`.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys/net").join(key);
        self.run(|| fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Whether a socket listens on this port, on any address. Unlike a connect it leaves no trace.
    pub fn listens(&self, port: u16) -> bool {
        // `sl local_address rem_address st`: the address ends in :PORT, both in hexadecimal; 0A is LISTEN.
        let listens = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().and_then(|local| local.rsplit_once(':'));
            local.and_then(|(_, local)| u16::from_str_radix(local, 16).ok()) == Some(port)
                && fields.nth(1) == Some("0A")
        };
        // /proc/self/net is that of the main thread.
        let tables = self.run(|| {
            ["tcp", "tcp6"]
                .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")))
        });
        tables
            .iter()
            .flatten()
            .any(|table| table.lines().any(listens))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        if !removed.is_ok_and(|status| status.success()) {
            eprintln!("ip netns del {}: still there", self.name);
        }
    }
}

/// Says why scenarios cannot run here: fails in strict mode, otherwise ends the run as passed.
///
/// It ends the process because what one scenario lacks, all lack; each of them would only repeat the line.
fn not_privileged(reason: &str) -> ! {
    let reason = reason.trim();
    let way_out = "scenarios make network namespaces, which takes root: `cargo xtask test`";
    let strict = env::var_os("SNPROXY_TEST_STRICT").is_some_and(|strict| strict != "0");
    assert!(!strict, "{reason}; {way_out}");
    let _ = writeln!(io::stderr(), "all scenarios skipped: {reason}; {way_out}");
    exit(0)
}

/// Removes what earlier test processes left behind that had no time to clean up (killed by a signal).
fn sweep_once() {
    static SWEEP: Once = Once::new();
    SWEEP.call_once(|| {
        let names = fs::read_dir(NAMES).into_iter().flatten().flatten();
        for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
            let maker = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split_once('-'));
            let Some(maker) = maker.and_then(|(pid, _)| pid.parse::<u32>().ok()) else {
                continue;
            };
            if !Path::new("/proc").join(maker.to_string()).exists() {
                remove_with_processes(&name);
            }
        }
    });
}

fn remove_with_processes(name: &str) {
    let inside = Command::new("ip").args(["netns", "pids", name]).output();
    let inside = inside
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    for pid in inside.split_whitespace() {
        let _ = Command::new("kill").args(["-KILL", pid]).status();
    }
    let _ = Command::new("ip").args(["netns", "del", name]).status();
}
