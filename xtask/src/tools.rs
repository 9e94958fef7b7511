//! Programs of others that the scenarios use, and the packages they come in.

use crate::root::{as_root, find, run};
use anyhow::bail;
use std::{fs, path::Path};

/// What must be there (a program, or a file by its path) and the Debian package that brings it.
type Needed = &'static [(&'static str, &'static str)];

/// For the image.
pub(crate) const IMAGE: Needed = &[("buildah", "buildah")];

/// For counting instructions.
pub(crate) const INSTRUCTIONS: Needed = &[("valgrind", "valgrind")];

/// For the scenarios.
pub(crate) const SCENARIOS: Needed = &[
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("setpriv", "util-linux"),
    ("prlimit", "util-linux"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    (
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "libnginx-mod-stream",
    ),
    ("haproxy", "haproxy"),
    ("curl", "curl"),
    ("bpftool", "bpftool"),
    ("kill", "procps"),
    ("dnsmasq", "dnsmasq-base"),
    ("socat", "socat"),
    ("openssl", "openssl"),
    ("nc", "netcat-openbsd"),
    ("prometheus", "prometheus"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("iperf3", "iperf3"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    // Its programs are where PATH does not lead.
    ("/usr/share/doc/postgresql", "postgresql"),
    ("/usr/lib/postfix/sbin/smtpd", "postfix"),
    ("/usr/lib/dovecot/imap-login", "dovecot-imapd"),
    ("setcap", "libcap2-bin"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("systemd-analyze", "systemd"),
];

/// For the benchmark.
pub(crate) const BENCH: Needed = &[
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    (
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "libnginx-mod-stream",
    ),
];

/// For flame graphs; what runs is of the benchmark.
pub(crate) const FLAME: Needed = &[("perf", "linux-perf")];

/// Installs packages, and keeps Debian from starting the services in them: a web server on this machine's port 80
/// is not what a test run should leave behind.
const INSTALL: &str = r#"
export DEBIAN_FRONTEND=noninteractive
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    trap 'exit 1' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
[ "$1" = fresh ] || apt-get update
shift
apt-get install --yes --no-install-recommends "$@" || {
    apt-get update
    apt-get install --yes --no-install-recommends "$@"
}
"#;

pub(crate) fn install_missing(needed: Needed) -> anyhow::Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        println!("all there");
        return Ok(());
    }
    println!("missing: {}", missing.join(" "));
    install(&missing)
}

pub(crate) fn install(missing: &[&str]) -> anyhow::Result<()> {
    if find("apt-get").is_none() {
        bail!("no apt-get here: install {} by hand", missing.join(", "));
    }
    let lists = if has_lists() { "fresh" } else { "missing" };
    let mut install = as_root("sh")?;
    run(install.args(["-ec", INSTALL, "sh", lists]).args(missing))
}

fn missing(needed: Needed) -> Vec<&'static str> {
    let is_there = |what: &str| {
        if what.starts_with('/') {
            Path::new(what).exists()
        } else {
            find(what).is_some()
        }
    };
    let mut packages: Vec<_> = needed
        .iter()
        .filter(|(what, _)| !is_there(what))
        .map(|&(_, package)| package)
        .collect();
    packages.dedup();
    packages
}

/// Images often come without package lists.
fn has_lists() -> bool {
    let lists = fs::read_dir("/var/lib/apt/lists")
        .into_iter()
        .flatten()
        .flatten();
    lists
        .into_iter()
        .any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}
