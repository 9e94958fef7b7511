//! Control groups with a limit.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use crate::{Host, Process, eventually, snproxy_binary};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A control group below that of this process; dropped, it is removed. Its programs must have ended by then.
pub struct Cgroup {
    path: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// One with this controller (`memory` or `pids`), of cgroup v2 if the controller is there, else of v1.
    #[track_caller]
    pub fn new(controller: &str) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").expect("own cgroups");
        let path_of = |names: &str| {
            own.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let is_it = fields.next()?.split(',').any(|name| name == names);
                fields.next().filter(|_| is_it).map(str::to_owned)
            })
        };
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mount = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                let has_it = option.is_empty() || fields[3].split(',').any(|have| have == option);
                (fields[2] == kind && has_it).then(|| PathBuf::from(fields[1]))
            })
        };
        let v2 = mount("cgroup2", "").filter(|root| {
            let controllers = fs::read_to_string(root.join("cgroup.controllers"));
            controllers.is_ok_and(|found| found.split_whitespace().any(|name| name == controller))
        });
        let is_v2 = v2.is_some();
        let root = v2.or_else(|| mount("cgroup", controller));
        let root = root.unwrap_or_else(|| panic!("no cgroup with the {controller} controller"));
        // In v2 a cgroup that holds processes has no children with controllers.
        let below = if is_v2 {
            String::new()
        } else {
            path_of(controller).unwrap_or_default()
        };
        let parent = root.join(below.trim_start_matches('/'));
        if is_v2 {
            let _ = fs::write(
                parent.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
        let number = NEXT.fetch_add(1, Relaxed);
        let path = parent.join(format!("snproxy-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, is_v2 }
    }

    /// Sets the most bytes of memory.
    #[track_caller]
    pub fn limit_memory(&self, bytes: u64) -> &Self {
        let file = if self.is_v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        self.write(file, bytes)
    }

    /// Sets the most threads.
    #[track_caller]
    pub fn limit_threads(&self, threads: u64) -> &Self {
        self.write("pids.max", threads)
    }

    /// Threads now.
    #[track_caller]
    pub fn threads(&self) -> u64 {
        self.read("pids.current")
    }

    /// Bytes of memory now, those of the kernel included.
    #[track_caller]
    pub fn memory(&self) -> u64 {
        self.read(if self.is_v2 {
            "memory.current"
        } else {
            "memory.usage_in_bytes"
        })
    }

    /// A script that runs snproxy in this cgroup, for [`Host::binary`].
    #[track_caller]
    pub fn binary(&self, host: &Host) -> PathBuf {
        let script = format!(
            "#!/bin/sh\necho $$ > {}/cgroup.procs || exit 99\nexec {} \"$@\"\n",
            self.path.display(),
            snproxy_binary().display()
        );
        let path = host.folder().join("snproxy-in-cgroup");
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        path
    }

    /// Whether this process is in it.
    pub fn holds(&self, process: &Process) -> bool {
        let members = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        members.lines().any(|pid| pid == process.pid().to_string())
    }

    #[track_caller]
    fn write(&self, file: &str, value: u64) -> &Self {
        let path = self.path.join(file);
        let written: io::Result<()> = fs::write(&path, value.to_string());
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self
    }

    #[track_caller]
    fn read(&self, file: &str) -> u64 {
        let path = self.path.join(file);
        let text = fs::read_to_string(&path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().parse().expect("a number")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::remove_dir(&self.path);
            return;
        }
        eventually(SOON, "the cgroup is removed", || {
            fs::remove_dir(&self.path).is_ok() || !self.path.exists()
        });
    }
}
