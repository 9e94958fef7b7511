//! Members of etcd, each on a machine of its own, and what is asked of them by other programs than snproxy.

use rustix::process::Signal;
use serde_json::{Value, json};
use snproxy_tests::{Conn, Host, Issued, Net, Process, eventually};
use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::Mutex,
    time::Duration,
};
use tempfile::TempDir;

pub(super) const SOON: Duration = Duration::from_secs(20);
/// The service of these scenarios.
pub(super) const SRV: &str = "/srv/echo";
/// The port that its nodes are behind.
pub(super) const PORT: u16 = 5001;
/// One app whose targets are the nodes of the service.
pub(super) const FILE: &str =
    r#"{"Apps":[{"Name":"echo","Ports":[5001],"Srv":"/srv/echo","BALANCE":"ordered"}]}"#;

const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

/// An etcd whose members are on these hosts of a net.
pub(super) struct Etcd<'n> {
    members: Vec<Member<'n>>,
    options: Vec<String>,
    scheme: &'static str,
    /// What etcdctl is told besides where etcd is.
    asked_as: Mutex<Vec<String>>,
    folder: TempDir,
}

struct Member<'n> {
    host: &'n Host,
    data: PathBuf,
    process: Mutex<Option<Process>>,
}

impl<'n> Etcd<'n> {
    /// Starts a member on each of these hosts, and waits until they have a leader.
    #[track_caller]
    pub(super) fn start(net: &'n Net, hosts: &[&str]) -> Self {
        Self::start_with(net, hosts, None)
    }

    /// The same over https, for clients that show a certificate.
    #[track_caller]
    pub(super) fn start_with(net: &'n Net, hosts: &[&str], tls: Option<&Issued>) -> Self {
        let folder = TempDir::new().expect("folder of etcd");
        let members = hosts.iter().map(|name| Member {
            host: net.host(name),
            data: folder.path().join(name),
            process: Mutex::default(),
        });
        let mut etcd = Self {
            members: members.collect(),
            options: Vec::new(),
            scheme: "http",
            asked_as: Mutex::default(),
            folder,
        };
        if let Some(issued) = tls {
            let certs = etcd.folder.path().join("certs");
            issued.write_folder(&certs);
            let file = |name: &str| certs.join(name).display().to_string();
            let option = |name: &str, file: String| format!("--{name}={file}");
            etcd.scheme = "https";
            etcd.options = vec![
                option("trusted-ca-file", file("ca.pem")),
                option("cert-file", file("cert.pem")),
                option("key-file", file("key.pem")),
                "--client-cert-auth".to_owned(),
            ];
            etcd.ask_with(&[
                &option("cacert", file("ca.pem")),
                &option("cert", file("cert.pem")),
                &option("key", file("key.pem")),
            ]);
        }
        for at in 0..etcd.members.len() {
            etcd.go_on(at);
        }
        eventually(SOON, "etcd has a leader", || {
            etcd.ctl(&["get", "none"]).status.success()
        });
        etcd
    }

    /// What etcdctl is told from here on.
    pub(super) fn ask_with(&self, options: &[&str]) {
        let options = options.iter().copied().map(str::to_owned).collect();
        *self.asked_as.lock().expect("options") = options;
    }

    /// Starts a member, on what it has stored if it ran before.
    #[track_caller]
    pub(super) fn go_on(&self, at: usize) {
        let Member {
            host,
            data,
            process,
        } = &self.members[at];
        let peers = |host: &Host| format!("http://{}", host.port(PEERS));
        let cluster = self.members.iter();
        let cluster = cluster.map(|other| format!("{}={}", other.host.name(), peers(other.host)));
        let cluster: Vec<String> = cluster.collect();
        let mut etcd = Command::new("etcd");
        etcd.args(["--name", host.name()])
            .arg("--data-dir")
            .arg(data)
            .args([
                "--listen-client-urls",
                &format!("{}://0.0.0.0:{CLIENTS}", self.scheme),
            ])
            .args(["--advertise-client-urls", &self.url(at)])
            .args(["--listen-peer-urls", &peers(host)])
            .args(["--initial-advertise-peer-urls", &peers(host)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--log-level", "error"])
            .args(&self.options);
        let started = Process::spawn(host.namespace(), "etcd", &mut etcd);
        *process.lock().expect("member") = Some(started);
    }

    /// Ends a member as a crash would.
    pub(super) fn kill(&self, at: usize) {
        let killed = self.members[at].process.lock().expect("member").take();
        killed.expect("a member that runs").kill();
    }

    /// Removes all that a member has stored, which does not run.
    #[track_caller]
    pub(super) fn forget(&self, at: usize) {
        std::fs::remove_dir_all(&self.members[at].data).expect("what the member stored");
    }

    /// Has a member stand still, or go on.
    #[track_caller]
    pub(super) fn signal(&self, at: usize, signal: Signal) {
        let process = self.members[at].process.lock().expect("member");
        process.as_ref().expect("a member that runs").signal(signal);
    }

    fn url(&self, at: usize) -> String {
        format!("{}://{}", self.scheme, self.members[at].host.port(CLIENTS))
    }

    /// All members, as ETCD has them.
    pub(super) fn urls(&self) -> String {
        let urls = (0..self.members.len()).map(|at| self.url(at));
        urls.collect::<Vec<_>>().join(",")
    }

    /// A connection to a member, from its own machine.
    #[track_caller]
    pub(super) fn connect(&self, at: usize) -> Conn {
        let host = self.members[at].host;
        host.open_locally(host.port(CLIENTS))
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn ctl(&self, words: &[&str]) -> Output {
        let mut etcdctl = Command::new("etcdctl");
        etcdctl
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.urls()])
            .args(["--dial-timeout", "1s", "--command-timeout", "3s"])
            .args(&*self.asked_as.lock().expect("options"))
            .args(words);
        self.members[0].host.namespace().output(&mut etcdctl)
    }

    /// What etcdctl prints to these words, once etcd does what they say.
    #[track_caller]
    pub(super) fn done(&self, words: &[&str]) -> String {
        let mut output = None;
        eventually(SOON, &format!("etcdctl {words:?}"), || {
            let done = self.ctl(words);
            let is_done = done.status.success();
            output = is_done.then_some(done.stdout);
            is_done
        });
        String::from_utf8(output.expect("what it printed")).expect("etcdctl writes text")
    }

    /// Registers a node of the service.
    #[track_caller]
    pub(super) fn put(&self, node: &str) {
        self.done(&["put", &format!("{SRV}/{node}"), ""]);
    }

    #[track_caller]
    pub(super) fn delete(&self, node: &str) {
        self.done(&["del", &format!("{SRV}/{node}")]);
    }

    /// What etcd has of the service, without its own part of the keys.
    #[track_caller]
    pub(super) fn nodes(&self) -> Vec<String> {
        let prefix = format!("{SRV}/");
        let keys = self.done(&["get", &prefix, "--prefix", "--keys-only"]);
        let keys = keys.lines().filter_map(|key| key.strip_prefix(&prefix));
        keys.map(str::to_owned).collect()
    }

    pub(super) fn revision(&self) -> u64 {
        let found = self.done(&["get", "none", "--write-out", "json"]);
        let found: Value = serde_json::from_str(&found).expect("JSON of etcdctl");
        found["header"]["revision"].as_u64().expect("a revision")
    }

    /// The member that leads.
    #[track_caller]
    pub(super) fn leader(&self) -> usize {
        let status = self.done(&["endpoint", "status", "--write-out", "json"]);
        let status: Value = serde_json::from_str(&status).expect("JSON of etcdctl");
        let leads = |member: &Value| {
            let status = &member["Status"];
            status["leader"] == status["header"]["member_id"]
        };
        let members = status.as_array().expect("members");
        let leader = members.iter().find(|member| leads(member));
        let url = leader.expect("a leader")["Endpoint"].clone();
        let at = (0..self.len()).find(|at| url == json!(self.url(*at)));
        at.expect("a member of this etcd")
    }
}

/// Starts the proxy of a host with one app and this ETCD.
#[track_caller]
pub(super) fn proxy(host: &Host, etcd: &str, apps: &str) {
    host.replace("config.json", apps);
    for (key, value) in [
        ("PORT", "none"),
        ("CLUSTERPORTS", "none"),
        ("CLUSTER", "none"),
        ("APPSCONF", "config.json"),
        ("ETCD", etcd),
    ] {
        host.conf(key, value);
    }
    host.start();
}

/// What `status` says of the service.
#[track_caller]
pub(super) fn service(host: &Host) -> Value {
    host.status()["services"][0].clone()
}

/// `snproxy register` on a host, for the service of these scenarios.
#[track_caller]
pub(super) fn register(host: &Host, etcd: &str, node: &str, options: &[&str]) -> Process {
    let mut command = host.command();
    command
        .args(["register", "--srv", SRV, "--addr", node, "--dsc", etcd])
        .args(options);
    Process::spawn(host.namespace(), "register", &mut command)
}
