//! `cargo xtask run`: snproxy at work, on a host of its own.
//!
//! Steering must never be attached in the namespace that we were started in: it would take the machine's own
//! connections away. So the host and its client are network namespaces.

mod ground;
pub(crate) mod pod;

use crate::root::{as_root, build, find};
use anyhow::{Context, bail};
use ground::Ground;
use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const HOST: &str = "10.78.0.1";
const CLIENT: &str = "10.78.0.2";
const READY: Duration = Duration::from_secs(20);
/// More than the default DRAINTIMEOUT would not be patient but stuck.
const SERVED: Duration = Duration::from_secs(10);

/// Two pods, three cluster ports. The last has both pods: they share its connections.
const MAPPINGS: &str = "\
# clusterPort:hostPort:maxConn:sendProxy
1024:30000:100:false
1025:30001:100:true
1026:30000:100:false 1026:30001:100:true
";

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
pub(crate) fn demonstrate_as_root() -> anyhow::Result<()> {
    let snproxy = build_snproxy()?;
    let own = env::current_exe().context("path of xtask")?;
    let mut command = as_root(&own)?;
    command.args(["demonstrate", "--snproxy"]).arg(snproxy);
    Err(command.exec()).with_context(|| own.display().to_string())
}

fn build_snproxy() -> anyhow::Result<PathBuf> {
    println!("==> building snproxy (release; the first time takes a few minutes)");
    build(&["build", "--release", "--package", "snproxy"], "snproxy")
}

/// Makes the host and the client, shows requests going through, and stays until Ctrl+C.
pub(crate) fn demonstrate(snproxy: &Path) -> anyhow::Result<()> {
    if find("ip").is_none() {
        bail!("the demonstration needs ip: apt-get install iproute2");
    }
    let mut ground = Ground::new()?;
    let shown = show(&mut ground, snproxy);
    let interrupted = ground.interrupted();
    println!("\n==> cleaning up");
    let cleaned = ground.clean_up();
    match shown {
        // Ctrl+C is how it ends, however far it came.
        Err(_) if interrupted => cleaned,
        shown => shown.and(cleaned),
    }
}

fn show(ground: &mut Ground, snproxy: &Path) -> anyhow::Result<()> {
    println!("==> a host {HOST} and a client {CLIENT}, each in a network namespace of its own");
    ground.add_namespaces(HOST, CLIENT)?;
    let own = env::current_exe().context("path of xtask")?;

    println!(
        "==> two pods on the host: `a` on host port 30000, `b` on 30001; b is told the client's address"
    );
    for (name, words) in [
        ("pod a", ["--name=a", "--port=30000"].as_slice()),
        ("pod b", &["--name=b", "--port=30001", "--proxy"]),
    ] {
        ground.start(
            name,
            ground.on_host(&own).arg("pod").args(words),
            "listens on",
            READY,
        )?;
    }

    let conf = ground.folder().join("proxy.conf");
    let admin = ground.folder().join("admin.sock");
    ground.write(
        "proxy.conf",
        &format!("HOST {HOST}\nADMIN unix:{}\n", admin.display()),
    )?;
    ground.write("hosts.conf", &format!("{HOST}:32767\n"))?;
    ground.write("portmappings.conf", MAPPINGS)?;
    println!("==> snproxy with these mappings");
    print!("{MAPPINGS}");
    ground.start(
        "snproxy",
        ground.on_host(snproxy).arg("--conf").arg(&conf),
        " ready: ",
        READY,
    )?;

    println!("\n==> requests from the client");
    let requests = [
        (1024, true, "a plain pod: it sees the proxy"),
        (1025, true, "a pod with sendProxy: it sees the client"),
        (1026, true, "two pods share this port"),
        (1026, true, "…"),
        (1026, true, "…"),
        (
            2000,
            false,
            "a cluster port that nobody serves: the kernel refuses it at once",
        ),
    ];
    for (port, is_served, why) in requests {
        let (typed, mut command) = request(ground, &own, &format!("http://{HOST}:{port}/"));
        println!("{typed}    # {why}");
        let output = ground.output_within(&mut command, SERVED)?;
        let text = [output.stdout, output.stderr].concat();
        println!("    {}", String::from_utf8_lossy(&text).trim_end());
        if output.status.success() != is_served {
            bail!(
                "port {port} should {}have answered",
                if is_served { "" } else { "not " }
            );
        }
    }

    print_what_to_try(ground, &own, snproxy, &conf);
    ground.wait()
}

/// A request from the client: as it is typed, and as it is run.
fn request(ground: &Ground, own: &Path, url: &str) -> (String, Command) {
    let own = own.to_string_lossy();
    // No proxy of the environment reaches into a namespace.
    let curl = ["curl", "-sS", "--noproxy", "*", url];
    let get = [&*own, "get", url];
    let words = if find("curl").is_some() {
        curl.as_slice()
    } else {
        &get
    };
    let mut command = ground.on_client(Path::new(words[0]));
    command.args(&words[1..]).stdin(Stdio::null());
    let typed = words.join(" ").replace('*', "'*'");
    (
        format!("{}ip netns exec {} {typed}", sudo(), ground.client()),
        command,
    )
}

fn print_what_to_try(ground: &Ground, own: &Path, snproxy: &Path, conf: &Path) {
    let (sudo, snproxy, conf) = (sudo(), snproxy.display(), conf.display());
    let folder = ground.folder().display();
    let typed = |port: u16| request(ground, own, &format!("http://{HOST}:{port}/")).0;
    println!(
        "
==> try this in another terminal
a connection            {}
what it does            {sudo}{snproxy} status --conf {conf}
every port and why      {sudo}{snproxy} ports --conf {conf}
a new mapping, live     echo 2000:30000:5:false | {sudo}tee -a {folder}/portmappings.conf
                        {}
a mistake in a file     echo 0:1:2 | {sudo}tee -a {folder}/portmappings.conf
                        {sudo}{snproxy} status --conf {conf}
a port nobody serves    {}

Ctrl+C ends it and removes everything.",
        typed(1026),
        typed(2000),
        typed(2001),
    );
}

/// What a user types before a command that needs root.
fn sudo() -> &'static str {
    if env::var_os("SUDO_USER").is_some() {
        "sudo "
    } else {
        ""
    }
}
