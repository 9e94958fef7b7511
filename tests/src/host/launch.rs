//! How snproxy is started: limits, user, environment.

use super::Host;
use crate::process::locked;
use std::{
    env, fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Default)]
pub(super) struct Launch {
    binary: Option<PathBuf>,
    nofile: Option<u64>,
    user: Option<User>,
    environment: Vec<(String, String)>,
}

struct User {
    uid: u32,
    capabilities: Vec<String>,
}

impl Launch {
    pub(super) fn binary(&self) -> PathBuf {
        self.binary.clone().unwrap_or_else(snproxy_binary)
    }

    /// The command without arguments; `folder` is where an ordinary user may read and write.
    pub(super) fn command(&self, folder: &Path) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(limit) = self.nofile {
            words.extend([
                "prlimit".to_owned(),
                format!("--nofile={limit}:{limit}"),
                "--".to_owned(),
            ]);
        }
        let mut binary = self.binary();
        if let Some(user) = &self.user {
            binary = user.own_copy(&binary, folder);
            words.extend(user.words());
        }
        words.push(binary.to_string_lossy().into_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir("/");
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }
}

impl User {
    /// The build may lie where this user cannot look.
    fn own_copy(&self, binary: &Path, folder: &Path) -> PathBuf {
        let (draft, own) = (folder.join(".snproxy.new"), folder.join("snproxy"));
        // By rename: a copy that runs still cannot be written to.
        fs::copy(binary, &draft)
            .and_then(|_| fs::rename(&draft, &own))
            .expect("copy snproxy");
        chown(folder, Some(self.uid), Some(self.uid)).expect("owner of the folder");
        own
    }

    fn words(&self) -> Vec<String> {
        let uid = self.uid;
        let granted: Vec<_> = self
            .capabilities
            .iter()
            .map(|name| format!(",+{name}"))
            .collect();
        let granted = granted.concat();
        vec![
            "setpriv".to_owned(),
            format!("--reuid={uid}"),
            format!("--regid={uid}"),
            "--clear-groups".to_owned(),
            format!("--inh-caps=-all{granted}"),
            format!("--ambient-caps=-all{granted}"),
            "--".to_owned(),
        ]
    }
}

impl Host {
    /// Uses this executable instead of the build under test.
    pub fn binary(&self, path: &Path) -> &Self {
        locked(&self.launch).binary = Some(path.to_owned());
        self
    }

    /// Starts snproxy with this limit on open descriptors, soft and hard.
    pub fn limit_nofile(&self, limit: u64) -> &Self {
        locked(&self.launch).nofile = Some(limit);
        self
    }

    /// Starts snproxy as an ordinary user with these ambient capabilities (`net_admin`, `bpf`) and no other.
    pub fn as_user(&self, uid: u32, capabilities: &[&str]) -> &Self {
        let capabilities = capabilities.iter().copied().map(str::to_owned).collect();
        locked(&self.launch).user = Some(User { uid, capabilities });
        self
    }

    pub fn env(&self, key: &str, value: &str) -> &Self {
        locked(&self.launch)
            .environment
            .push((key.to_owned(), value.to_owned()));
        self
    }
}

/// The snproxy under test: `SNPROXY_BIN`, else the binary beside the test executable.
pub fn snproxy_binary() -> PathBuf {
    if let Some(named) = env::var_os("SNPROXY_BIN") {
        let named = PathBuf::from(named);
        assert!(
            named.is_file(),
            "SNPROXY_BIN names {}, which is not there",
            named.display()
        );
        return named;
    }
    // target/<profile>/deps/scenarios-<hash>
    let executable = env::current_exe().expect("path of the test executable");
    let beside = executable
        .parent()
        .and_then(Path::parent)
        .expect("a target folder")
        .join("snproxy");
    assert!(
        beside.is_file(),
        "{} is not there: run `cargo build -p snproxy` first, or set SNPROXY_BIN",
        beside.display()
    );
    beside
}
