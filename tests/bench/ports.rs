//! Proxies with many cluster ports: when they are ready, what that takes, and when a changed mapping works.
//!
//! All ports lead to one pod; the last port's mapping is the one that changes, to another pod. snproxy gets a mapping per port.
//! HAProxy and nginx get it as cheap as they offer: one section with a range of ports, and one for the last port.

use crate::{
    ground::{Ground, Host},
    memory::{kernel, raise_descriptor_limit, resident, settle},
    results::{PortsRound, PortsRow, SNPROXY, Topology},
    rounds::Pace,
};
use anyhow::{Context, bail};
use rustix::process::Signal;
use snproxy_tests::Process;
use std::{
    fmt::Write as _,
    fs,
    io::{ErrorKind, Read, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const COUNTS: [u32; 4] = [1, 1000, 19_000, 61_000];
const FIRST_PORT: u32 = 1024;
/// Above all cluster ports, or a client would have a port that a proxy wants to listen on.
const EPHEMERAL: &str = "62100 65500";
const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PODS: [Pod; 2] = [
    Pod {
        port: 700,
        tells: b'a',
    },
    Pod {
        port: 701,
        tells: b'b',
    },
];
/// Between two tries of a client.
const PAUSE: Duration = Duration::from_millis(1);
const ANSWER: Duration = Duration::from_secs(1);
/// nginx compares each port with all others: minutes on a busy machine.
const READY: Duration = Duration::from_mins(5);
const STOP: Duration = Duration::from_secs(40);

/// A pod that says one byte to everybody.
#[derive(Clone, Copy)]
struct Pod {
    port: u16,
    tells: u8,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Proxy {
    Snproxy,
    Haproxy,
    Nginx,
}

const PROXIES: [Proxy; 3] = [Proxy::Snproxy, Proxy::Haproxy, Proxy::Nginx];

/// What came of one start.
enum Outcome {
    Measured(PortsRound),
    /// It ended before it was ready, and said this.
    Refused(String),
}

pub(crate) fn measure(snproxy: &Path, pace: &Pace) -> anyhow::Result<Vec<PortsRow>> {
    let rounds = pace.rounds;
    raise_descriptor_limit();
    let mut rows = Vec::new();
    for ports in COUNTS {
        let mut some: Vec<_> = PROXIES
            .iter()
            .map(|proxy| PortsRow {
                contestant: proxy.name().to_owned(),
                ports,
                rounds: Vec::new(),
                refused: None,
            })
            .collect();
        for round in 1..=rounds {
            for (proxy, row) in PROXIES.into_iter().zip(&mut some) {
                if row.refused.is_some() {
                    continue;
                }
                println!("{ports} ports, round {round} of {rounds}, {}", proxy.name());
                pace.go_on()?;
                let outcome = proxy.measure(snproxy, ports);
                match outcome.with_context(|| format!("{} with {ports} ports", proxy.name()))? {
                    Outcome::Measured(round) => {
                        println!(
                            "  ready {:.1} ms, {} KiB, kernel {} KiB, change {:.1} ms",
                            round.ready_ms, round.rss_kib, round.kernel_kib, round.change_ms
                        );
                        row.rounds.push(round);
                    }
                    Outcome::Refused(why) => {
                        println!("  refused: {why}");
                        row.refused = Some(why);
                    }
                }
            }
        }
        rows.append(&mut some);
    }
    Ok(rows)
}

impl Proxy {
    fn name(self) -> &'static str {
        match self {
            Self::Snproxy => SNPROXY,
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    fn measure(self, snproxy: &Path, ports: u32) -> anyhow::Result<Outcome> {
        let ground = Ground::new(Topology::OneHost, &format!("{}-ports", self.name()));
        let host = ground.first();
        host.namespace.sysctl("ipv4/ip_local_port_range", EPHEMERAL);
        for pod in PODS {
            pod.serve(host)?;
        }
        let folder = TempDir::new()?;
        let [before, after] = PODS.map(|pod| self.files(folder.path(), ports, pod));
        for (name, text) in &before {
            fs::write(folder.path().join(name), text)?;
        }
        // The last file is the one that says where the ports lead.
        let (changed, text) = after.last().context("files of a proxy")?;
        let draft = folder.path().join("draft");
        fs::write(&draft, text)?;

        let last = u16::try_from(FIRST_PORT + ports - 1)?;
        let mut command = self.command(host, folder.path(), snproxy);
        settle();
        let kernel_before = kernel(&[]);
        let process = Process::spawn_here(self.name(), &mut command);
        let Some(ready) = until(host, last, PODS[0], &process)? else {
            return Ok(Outcome::Refused(complaint(&process.log())));
        };
        let ready = ready.duration_since(process.started());
        let said_ready = (self == Self::Snproxy).then(|| process.wait_for_line(READY, " ready: "));
        settle();
        let pids = family(process.pid());
        let rss_kib = resident(&pids);
        let kernel_kib = kernel(&pids) - kernel_before;

        fs::rename(&draft, folder.path().join(changed))?;
        let start = Instant::now();
        match self {
            Self::Snproxy => {}
            Self::Haproxy => process.signal(Signal::USR2),
            Self::Nginx => process.signal(Signal::HUP),
        }
        let Some(works) = until(host, last, PODS[1], &process)? else {
            bail!("it ended instead of a reload: {}", process.log());
        };
        let change = works.duration_since(start);
        settle();
        let rss_changed_kib = resident(&family(process.pid()));
        process.stop(STOP);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Ok(Outcome::Measured(PortsRound {
            ready_ms: ms(ready),
            said_ready_ms: said_ready.map(ms),
            rss_kib,
            rss_changed_kib,
            kernel_kib,
            change_ms: ms(change),
        }))
    }

    /// Its files, with the last port at `pod` and all others at the first one.
    fn files(self, folder: &Path, ports: u32, pod: Pod) -> Vec<(&'static str, String)> {
        let last = FIRST_PORT + ports - 1;
        let [all, _] = PODS;
        match self {
            Self::Snproxy => {
                let mut mappings = String::new();
                for port in FIRST_PORT..=last {
                    let to = if port == last { pod } else { all };
                    let _ = writeln!(mappings, "{port}:{}:1000:false", to.port);
                }
                let admin = folder.join("admin.sock");
                let keys = format!(
                    "HOST {HOST}\nPORT 999\nCLUSTERPORTS 1024-65535\nADMIN unix:{}\n",
                    admin.display()
                );
                vec![("proxy.conf", keys), ("portmappings.conf", mappings)]
            }
            Self::Haproxy => {
                let mut text = "global\n maxconn 200\n\
                    defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"
                    .to_owned();
                let mut section = |name: &str, range: &str, to: Pod| {
                    let _ = write!(
                        text,
                        "listen {name}\n bind {HOST}:{range}\n server pod {HOST}:{}\n",
                        to.port
                    );
                };
                if ports > 1 {
                    section("all", &format!("{FIRST_PORT}-{}", last - 1), all);
                }
                section("last", &last.to_string(), pod);
                vec![("haproxy.cfg", text)]
            }
            Self::Nginx => {
                // Each listening socket takes a place among the connections of every worker.
                let mut text = format!(
                    "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
                     daemon off; pid nginx.pid; error_log stderr warn; worker_processes auto;\n\
                     events {{ worker_connections {}; }}\nstream {{\n",
                    ports + 500
                );
                let mut section = |range: &str, to: Pod| {
                    let _ = writeln!(
                        text,
                        "server {{ listen {HOST}:{range}; proxy_pass {HOST}:{}; }}",
                        to.port
                    );
                };
                if ports > 1 {
                    section(&format!("{FIRST_PORT}-{}", last - 1), all);
                }
                section(&last.to_string(), pod);
                text.push_str("}\n");
                vec![("nginx.conf", text)]
            }
        }
    }

    fn command(self, host: &Host, folder: &Path, snproxy: &Path) -> Command {
        let mut command = match self {
            Self::Snproxy => host.command(snproxy),
            Self::Haproxy => host.command("haproxy"),
            Self::Nginx => host.command("nginx"),
        };
        match self {
            Self::Snproxy => command.arg("--conf").arg(folder.join("proxy.conf")),
            // A master, as its unit has it: the reload is a signal to it.
            Self::Haproxy => command.args(["-W", "-f"]).arg(folder.join("haproxy.cfg")),
            Self::Nginx => command
                .arg("-p")
                .arg(folder)
                .arg("-c")
                .arg(folder.join("nginx.conf"))
                .args(["-e", "stderr"]),
        };
        command
    }
}

impl Pod {
    /// Serves until this process ends: its thread waits in accept.
    fn serve(self, host: &Host) -> anyhow::Result<()> {
        let bound = host.namespace.run(|| TcpListener::bind((HOST, self.port)));
        let listener = bound?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who is gone already asks again.
                let _ = (&stream).write_all(&[self.tells]);
            }
        });
        Ok(())
    }
}

/// When this pod answered at the port; `None` when the program ended before.
fn until(host: &Host, port: u16, pod: Pod, process: &Process) -> anyhow::Result<Option<Instant>> {
    let to = SocketAddr::from((HOST, port));
    let start = Instant::now();
    host.namespace.run(|| {
        loop {
            if asked(to)? == Some(pod.tells) {
                return Ok(Some(Instant::now()));
            }
            if process.exit_status().is_some() {
                return Ok(None);
            }
            if start.elapsed() >= READY {
                bail!("no answer of the pod at {to}: {}", process.log());
            }
            thread::sleep(PAUSE);
        }
    })
}

/// The byte that comes from there; `None` when nobody is there, or none comes.
fn asked(to: SocketAddr) -> anyhow::Result<Option<u8>> {
    let mut stream = match TcpStream::connect_timeout(&to, ANSWER) {
        Ok(stream) => stream,
        Err(error) if is_nobody(error.kind()) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    stream.set_read_timeout(Some(ANSWER))?;
    let mut byte = [0];
    // However it ends without a byte, it is asked again.
    Ok(stream.read_exact(&mut byte).is_ok().then_some(byte[0]))
}

fn is_nobody(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::TimedOut
    )
}

/// What a program that ended complained of, without what leads up to it.
fn complaint(log: &str) -> String {
    let marks = ["[ALERT]", "[emerg]", "ERROR", "error:"];
    let line = log
        .lines()
        .find(|line| marks.iter().any(|mark| line.contains(mark)))
        .or_else(|| log.lines().last());
    let line = line.unwrap_or_default();
    // Process ids and times differ from run to run.
    let text = line.rsplit_once(" : ").map_or(line, |(_, text)| text);
    text.rsplit_once("[emerg] ")
        .map_or(text, |(_, text)| text)
        .trim()
        .to_owned()
}

/// A process and all of its descendants.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    [pid].into_iter().chain(children.flat_map(family)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_shown_without_what_changes() {
        let cases = [
            (
                "[NOTICE] (1) : haproxy version is 2.6\n[ALERT]    (9) : [haproxy.main()] Cannot raise FD limit to 61430, limit is 20000.\n",
                "[haproxy.main()] Cannot raise FD limit to 61430, limit is 20000.",
            ),
            (
                "2026/11/21 12:00:00 [emerg] 7#7: socket() failed (24: Too many open files)\n",
                "7#7: socket() failed (24: Too many open files)",
            ),
            ("killed\n", "killed"),
        ];
        for (log, text) in cases {
            assert_eq!(complaint(log), text);
        }
    }
}
