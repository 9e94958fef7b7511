//! `cargo xtask run`: snproxy at work, on a cluster of its own.
//!
//! Steering must never be attached in the namespace that we were started in: it would take the machine's own
//! connections away. So the hosts and their client are network namespaces.

mod ground;
pub(crate) mod pod;
mod program;
mod story;

use crate::root::{as_root, build, find};
use anyhow::{Context, bail};
use ground::Ground;
use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
};

/// Runs this configuration in the foreground; returns only when that is impossible.
pub(crate) fn foreground(conf: &Path) -> anyhow::Result<()> {
    let conf = fs::canonicalize(conf).with_context(|| conf.display().to_string())?;
    let snproxy = build_snproxy()?;
    let mut command = as_root(&snproxy)?;
    command.arg("--conf").arg(&conf);
    println!("{} --conf {}", snproxy.display(), conf.display());
    Err(command.exec()).with_context(|| snproxy.display().to_string())
}

/// Builds as whoever calls, then goes on as root.
pub(crate) fn demonstrate_as_root(hosts: u8) -> anyhow::Result<()> {
    let snproxy = build_snproxy()?;
    let own = env::current_exe().context("path of xtask")?;
    let mut command = as_root(&own)?;
    command
        .args(["demonstrate", "--hosts", &hosts.to_string(), "--snproxy"])
        .arg(snproxy);
    Err(command.exec()).with_context(|| own.display().to_string())
}

fn build_snproxy() -> anyhow::Result<PathBuf> {
    println!("==> building snproxy (release; the first time takes a few minutes)");
    build(&["build", "--release", "--package", "snproxy"], "snproxy")
}

/// Makes the hosts and the client, shows requests going through, and stays until Ctrl+C.
pub(crate) fn demonstrate(snproxy: &Path, hosts: u8) -> anyhow::Result<()> {
    if find("ip").is_none() {
        bail!("the demonstration needs ip: apt-get install iproute2");
    }
    let mut ground = Ground::new()?;
    let shown = story::tell(&mut ground, snproxy, hosts);
    let interrupted = ground.interrupted();
    println!("\n==> cleaning up");
    let cleaned = ground.clean_up();
    match shown {
        // Ctrl+C is how it ends, however far it came.
        Err(_) if interrupted => cleaned,
        shown => shown.and(cleaned),
    }
}
