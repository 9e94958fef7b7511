//! One member of etcd, on a machine of its own.

use rustix::process::Signal;
use snproxy_tests::{Net, Process};
use std::{path::PathBuf, process::Command};
use tempfile::TempDir;

const PORT: u16 = 2379;

/// etcd at the address of one of the net's clients.
pub(super) struct Etcd {
    client: usize,
    process: Option<Process>,
    address: String,
    data: PathBuf,
    _folder: TempDir,
}

impl Etcd {
    #[track_caller]
    pub(super) fn start(net: &Net) -> Self {
        Self::start_at(net, 1)
    }

    #[track_caller]
    pub(super) fn start_at(net: &Net, client: usize) -> Self {
        let folder = TempDir::new().expect("folder of etcd");
        let mut etcd = Self {
            client,
            process: None,
            address: net.nth_client(client).v4().to_string(),
            data: folder.path().join("data"),
            _folder: folder,
        };
        etcd.go_on(net);
        etcd
    }

    /// Starts it on what it has stored.
    #[track_caller]
    pub(super) fn go_on(&mut self, net: &Net) {
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir")
            .arg(&self.data)
            .args(["--listen-client-urls", &format!("http://0.0.0.0:{PORT}")])
            .args(["--advertise-client-urls", &self.url()])
            .args(["--log-level", "warn"]);
        let namespace = net.nth_client(self.client).namespace();
        self.process = Some(namespace.server("etcd", &mut etcd, PORT));
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}:{PORT}", self.address)
    }

    /// Ends it; what it has stored stays.
    #[track_caller]
    pub(super) fn stop(&mut self) {
        let process = self.process.take().expect("it runs");
        process.signal(Signal::KILL);
        process.kill();
    }

    /// What `etcdctl` prints to these words.
    #[track_caller]
    pub(super) fn ctl(&self, net: &Net, words: &[&str]) -> String {
        let mut etcdctl = Command::new("etcdctl");
        etcdctl
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.url()])
            .args(words);
        let output = net.nth_client(self.client).namespace().output(&mut etcdctl);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {words:?}: {errors}");
        String::from_utf8(output.stdout).expect("etcdctl writes text")
    }

    /// Changes of anything since it was made.
    #[track_caller]
    pub(super) fn revision(&self, net: &Net) -> u64 {
        let status = self.ctl(net, &["get", "none", "--write-out", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON of etcdctl");
        status["header"]["revision"].as_u64().expect("a revision")
    }
}
