//! What the demonstration shows: hosts with pods, requests that cross between them, and what to try next.

use super::{ground::Ground, program::AWAY};
use crate::root::find;
use anyhow::{Context, bail};
use std::{
    env,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const CLIENT: &str = "client";
const CLIENT_ADDRESS: &str = "10.78.0.101";
const READY: Duration = Duration::from_secs(20);
/// More than the default DRAINTIMEOUT would not be patient but stuck.
const SERVED: Duration = Duration::from_secs(10);

/// Served by the last host alone.
const API: u16 = 1024;
/// Served by every host.
const WEB: u16 = 1025;
/// Served by nobody, until somebody adds a mapping.
const NOBODY: u16 = 2000;
const WEB_MAPPING: &str = "1025:30001:100:false\n";
const API_MAPPING: &str = "1024:30000:100:true\n";

/// Shows it all, and stays until Ctrl+C.
pub(super) fn tell(ground: &mut Ground, snproxy: &Path, hosts: u8) -> anyhow::Result<()> {
    let own = env::current_exe().context("path of xtask")?;
    make_cluster(ground, &own, snproxy, hosts)?;
    make_requests(ground, &own, hosts)?;
    print_what_to_try(ground, &own, snproxy, hosts);
    ground.wait()
}

fn name(host: u8) -> String {
    format!("host{host}")
}

fn address(host: u8) -> String {
    format!("10.78.0.{host}")
}

fn make_cluster(ground: &mut Ground, own: &Path, snproxy: &Path, hosts: u8) -> anyhow::Result<()> {
    let count = if hosts == 1 { "a host" } else { "hosts" };
    let all: Vec<_> = (1..=hosts).map(address).collect();
    println!(
        "==> {count} {}, and a client {CLIENT_ADDRESS}: each a network namespace of its own",
        all.join(" ")
    );
    for host in 1..=hosts {
        ground.add_member(&name(host), &address(host))?;
    }
    ground.add_member(CLIENT, CLIENT_ADDRESS)?;

    println!(
        "==> pods: `web` on every host; `api` on {}, told the client's address",
        name(hosts)
    );
    for host in 1..=hosts {
        start_pod(ground, own, "web", host, &["--port=30001"])?;
    }
    start_pod(ground, own, "api", hosts, &["--port=30000", "--proxy"])?;

    println!(
        "==> a snproxy on each host; one hosts.conf for all, and the mappings of its own pods"
    );
    let lines: Vec<_> = all.iter().map(|host| format!("{host}:32767\n")).collect();
    ground.write("hosts.conf", &lines.concat())?;
    for host in 1..=hosts {
        let name = name(host);
        let folder = ground.folder().join(&name);
        let conf = format!(
            "HOST {}\nHOSTSCONF ../hosts.conf\nADMIN unix:{}\n",
            address(host),
            folder.join("admin.sock").display()
        );
        let mut mappings = "# clusterPort:hostPort:maxConn:sendProxy\n".to_owned();
        if host == hosts {
            mappings.push_str(API_MAPPING);
        }
        mappings.push_str(WEB_MAPPING);
        ground.write(&format!("{name}/proxy.conf"), &conf)?;
        ground.write(&format!("{name}/portmappings.conf"), &mappings)?;
        let mut command = Ground::inside(&name, snproxy);
        command.arg("--conf").arg(folder.join("proxy.conf"));
        ground.start(&name, command, " ready: ", READY)?;
    }
    Ok(())
}

fn start_pod(
    ground: &mut Ground,
    own: &Path,
    pod: &str,
    host: u8,
    words: &[&str],
) -> anyhow::Result<()> {
    let name = name(host);
    let mut command = Ground::inside(&name, own);
    command
        .args(["pod", "--name", &format!("{pod} on {name}")])
        .args(words);
    ground.start(&format!("{name} {pod}"), command, "listens on", READY)
}

fn make_requests(ground: &Ground, own: &Path, hosts: u8) -> anyhow::Result<()> {
    println!("\n==> requests from the client, all of them to {}", name(1));
    let (api, web, nobody) = if hosts == 1 {
        (
            "a pod with sendProxy: it sees the client",
            "a plain pod: it sees the proxy",
            "nobody serves it: the kernel refuses it at once",
        )
    } else {
        (
            "only the last host serves it: the request crosses, and the pod sees the client",
            "every host serves it: requests spread",
            "nobody serves it: accepted, since another host might, and reset when all have said no",
        )
    };
    let requests = [
        (API, 1, true, api),
        (WEB, 4 + hosts, true, web),
        (NOBODY, 1, false, nobody),
    ];
    for (port, times, is_served, why) in requests {
        let (typed, mut command) = request(own, port);
        println!("{typed}    # {why}");
        for _ in 0..times {
            let output = ground.output_within(&mut command, SERVED)?;
            let text = [output.stdout, output.stderr].concat();
            println!("    {}", String::from_utf8_lossy(&text).trim_end());
            if output.status.success() != is_served {
                let not = if is_served { "" } else { "not " };
                bail!("port {port} should {not}have answered");
            }
        }
    }
    Ok(())
}

/// A request from the client to the first host: as it is typed, and as it is run.
fn request(own: &Path, port: u16) -> (String, Command) {
    let url = format!("http://{}:{port}/", address(1));
    let own = own.to_string_lossy();
    // No proxy of the environment reaches into a namespace.
    let curl = ["curl", "-sS", "--noproxy", "*", &url];
    let get = [&*own, "get", &url];
    let words = if find("curl").is_some() {
        curl.as_slice()
    } else {
        &get
    };
    let mut command = Ground::inside(CLIENT, Path::new(words[0]));
    command.args(&words[1..]).stdin(Stdio::null());
    let typed = words.join(" ").replace('*', "'*'");
    let client = Ground::namespace(CLIENT);
    (format!("{}ip netns exec {client} {typed}", sudo()), command)
}

fn print_what_to_try(ground: &Ground, own: &Path, snproxy: &Path, hosts: u8) {
    let (sudo, folder) = (sudo(), ground.folder().display());
    let last = name(hosts);
    let ask = |noun: &str| {
        let snproxy = snproxy.display();
        format!("{sudo}{snproxy} {noun} --conf {folder}/host1/proxy.conf")
    };
    let typed = |port: u16| request(own, port).0;
    println!("\n==> try this in another terminal");
    let mut tries = vec![
        ("how host1 is", ask("status")),
        ("every port and why", ask("ports")),
    ];
    if hosts > 1 {
        tries.push(("what it knows of others", ask("routes")));
    }
    if let Some(pid) = ground.pid(&last) {
        let why =
            format!("snproxy of {last}; it comes back after {AWAY:?}, and is noticed soon after");
        tries.push(("one dies", format!("{sudo}kill -9 {pid}    # {why}")));
        tries.push(("", typed(WEB)));
    }
    tries.extend([
        (
            "a new mapping, live",
            format!("echo {NOBODY}:30001:5:false | {sudo}tee -a {folder}/{last}/portmappings.conf"),
        ),
        ("", typed(NOBODY)),
        (
            "a mistake in a file",
            format!("echo 0:1:2 | {sudo}tee -a {folder}/host1/portmappings.conf"),
        ),
        ("", ask("status")),
    ]);
    for (what, how) in tries {
        println!("{what:<24}{how}");
    }
    println!("\nCtrl+C ends it and removes everything.");
}

/// What a user types before a command that needs root.
fn sudo() -> &'static str {
    if env::var_os("SUDO_USER").is_some() {
        "sudo "
    } else {
        ""
    }
}
