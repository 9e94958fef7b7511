//! `snproxy apps` on a host, a name server, and echo servers by another hand.

use rustix::process::Signal;
use serde_json::Value;
use snproxy_tests::{Host, Process, snproxy_binary};
use std::{
    fs::{self, Permissions},
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    process::{Command, ExitStatus, Output},
    time::Duration,
};

pub(super) const SOON: Duration = Duration::from_secs(20);

/// TTL of what [`NameServer`] answers.
pub(super) const TTL: Duration = Duration::from_secs(1);

/// `snproxy apps` on a host, with the file config.json of its folder and a /etc of its own.
pub(super) struct Apps<'h> {
    host: &'h Host,
    admin: String,
    process: Process,
}

impl<'h> Apps<'h> {
    /// Starts it and waits until it is ready.
    #[track_caller]
    pub(super) fn start(host: &'h Host, names: &NameServer<'_>, options: &[&str]) -> Self {
        let apps = Self::launch(host, names, options);
        apps.process.wait_for_line(SOON, " ready: ");
        apps
    }

    #[track_caller]
    pub(super) fn launch(host: &'h Host, names: &NameServer<'_>, options: &[&str]) -> Self {
        let admin = format!("ADMIN unix:{}", host.folder().join("apps.sock").display());
        let mut command = Command::new(own_etc(host, names));
        command
            .arg("apps")
            .arg("--config-file")
            .arg(host.folder().join("config.json"))
            .args(["--set", &admin])
            .args(options);
        let process = Process::spawn(host.namespace(), "snproxy apps", &mut command);
        Self {
            host,
            admin,
            process,
        }
    }

    /// A command that asks it, to its end.
    #[track_caller]
    pub(super) fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(snproxy_binary());
        command
            .args(words)
            .arg("--conf")
            .arg(self.host.folder().join("config.json"))
            .args(["--set", &self.admin]);
        self.host.namespace().output(&mut command)
    }

    #[track_caller]
    pub(super) fn status(&self) -> Value {
        let told = self.run(&["status", "--json"]);
        let text = String::from_utf8_lossy(&told.stdout);
        let error = String::from_utf8_lossy(&told.stderr);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("status: {text}{error}"))
    }

    #[track_caller]
    pub(super) fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().expect("a number")
    }

    #[track_caller]
    pub(super) fn ends(&self, end: &str) -> u64 {
        self.status()["ends"][end].as_u64().expect("a number")
    }

    pub(super) fn log(&self) -> String {
        self.process.log()
    }

    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// What Ctrl+C sends.
    #[track_caller]
    pub(super) fn interrupt(&self) {
        self.process.signal(Signal::INT);
    }
}

/// A script that runs snproxy with an empty /etc/hosts and the name server in /etc/resolv.conf.
pub(super) fn own_etc(host: &Host, names: &NameServer<'_>) -> std::path::PathBuf {
    host.overwrite("hosts", "")
        .overwrite("resolv.conf", &format!("nameserver {}\n", names.host.v4()));
    let script = host.folder().join("start");
    // The mounts are of this process alone, and gone with it.
    let inside = r#"mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/resolv.conf" /etc/resolv.conf && exec "$@""#;
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c '{inside}' '{}' '{}' \"$@\"\n",
        host.folder().display(),
        snproxy_binary().display()
    );
    fs::write(&script, text).expect("write the script");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("mode of the script");
    script
}

/// dnsmasq on a host: it knows the names that it is told and no others.
pub(super) struct NameServer<'h> {
    host: &'h Host,
    dnsmasq: Process,
}

impl<'h> NameServer<'h> {
    #[track_caller]
    pub(super) fn start(host: &'h Host, names: &[(&str, IpAddr)]) -> Self {
        write_names(host, names);
        let mut command = Command::new("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
            ])
            .args([
                "--no-resolv",
                "--no-hosts",
                "--user=root",
                "--log-facility=-",
            ])
            .args(["--bind-interfaces", "--local=/dev/", "--local=/testing/"])
            .arg(format!("--local-ttl={}", TTL.as_secs()))
            .arg(format!("--listen-address={}", host.v4()))
            .arg(format!(
                "--addn-hosts={}",
                host.folder().join("names").display()
            ));
        Self {
            host,
            dnsmasq: host.namespace().server("dnsmasq", &mut command, 53),
        }
    }

    /// From now on these are the names.
    #[track_caller]
    pub(super) fn tell(&self, names: &[(&str, IpAddr)]) {
        write_names(self.host, names);
        self.dnsmasq.signal(Signal::HUP);
    }

    /// It says nothing more, as a server that is away.
    #[track_caller]
    pub(super) fn freeze(&self) {
        self.dnsmasq.signal(Signal::STOP);
    }

    #[track_caller]
    pub(super) fn thaw(&self) {
        self.dnsmasq.signal(Signal::CONT);
    }
}

fn write_names(host: &Host, names: &[(&str, IpAddr)]) {
    let lines = names.iter().map(|(name, ip)| format!("{ip} {name}\n"));
    host.replace("names", &lines.collect::<String>());
}

/// socat on these ports of a host: it greets with `NAME PORT` and sends back what comes.
#[track_caller]
pub(super) fn echoes(host: &Host, ports: &[u16]) -> Vec<Process> {
    let echo = |port: &u16| {
        let name = host.name();
        let mut command = Command::new("socat");
        command
            .arg(format!("TCP-LISTEN:{port},fork,reuseaddr,backlog=128"))
            .arg(format!("SYSTEM:echo {name} {port}; exec cat"));
        host.namespace().server("socat", &mut command, *port)
    };
    ports.iter().map(echo).collect()
}
