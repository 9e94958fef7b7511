//! `snproxy status`.

use clap::ValueEnum;
use hyper::Method;

use crate::admin::api::{Directory, HostCounts, Service, Status};
use crate::discovery::Root;

use super::output::out;
use super::{DONE, client, health, routes};

/// Pods shown as text; JSON has all.
const MOST_PODS: usize = 50;
/// Ports with delayed PROXY headers that are shown as text.
const MOST_DELAYS: usize = 10;

/// What `--check` finds; the first one found gives the exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Condition {
    /// The proxy takes no new connections.
    Draining,
    /// A port is not served as it should be.
    Pending,
    /// The files were refused: an older configuration is in force.
    Files,
    /// There is no mapping and no app.
    Mappings,
}

impl Condition {
    fn exit_code(self) -> u8 {
        match self {
            Self::Draining => 3,
            Self::Pending => 4,
            Self::Files => 5,
            Self::Mappings => 6,
        }
    }

    /// The condition in words, where it holds.
    fn of(self, status: &Status) -> Option<String> {
        let Status { reload, .. } = status;
        match self {
            Self::Draining => (status.state != "running").then(|| status.state.clone()),
            Self::Pending => status.pending.as_ref().map(|why| format!("pending: {why}")),
            Self::Files => (!reload.ok).then(|| {
                let first = reload.diagnostics.first().map_or("", String::as_str);
                format!("files not used: {first}")
            }),
            Self::Mappings => {
                let is_empty = status.pods.is_empty() && status.apps.is_empty();
                is_empty.then(|| "no mappings".to_owned())
            }
        }
    }
}

/// Prints the status; with `check`, fails on each of these conditions, on all of them if none is named.
pub(super) fn status(root: &Root, json: bool, check: Option<&[Condition]>) -> anyhow::Result<u8> {
    let answer = client::ask(root, &Method::GET, "/status")?;
    let status: Status = client::parse(&answer)?;
    let found: Vec<(Condition, String)> = Condition::value_variants()
        .iter()
        .filter(|one| check.is_some_and(|named| named.is_empty() || named.contains(one)))
        .filter_map(|one| Some((*one, one.of(&status)?)))
        .collect();
    if json {
        out!("{}", String::from_utf8_lossy(&answer));
    } else if check.is_none() {
        print(&status);
    } else if found.is_empty() {
        out!("ok");
    } else {
        for (_, words) in &found {
            out!("{words}");
        }
    }
    Ok(found.first().map_or(DONE, |(first, _)| first.exit_code()))
}

fn print(status: &Status) {
    print_head(status);
    print_hosts(&status.hosts);
    if let Some(directory) = &status.directory {
        print_directory(directory);
    }
    out!(
        "connections  {} live, {} waiting, {} in all",
        status.connections.live,
        status.connections.waiting,
        status.connections.total
    );
    print_ends(status);
    if let Some(kernel) = &status.kernel {
        out!(
            "kernel       {} steered, {} refused, {} above the rate of their port, {} without listener, {} failed (lookups)",
            kernel.steered,
            kernel.refused,
            kernel.limited,
            kernel.no_listener,
            kernel.failed
        );
    }
    if let Some(pending) = &status.pending {
        out!("pending      {pending} (retried all the time)");
    }
    for queue in &status.queues {
        let first = queue.waiting.first().map_or(0, |first| first.waited_ms);
        out!(
            "queue        {} wait for {}, the first for {first} ms",
            queue.waiting.len(),
            queue.what
        );
    }
    print_header_delays(status);
    let verdict = if status.reload.ok {
        "in force"
    } else {
        "NOT USED: the last good one stays in force"
    };
    out!("files        generation {}: {verdict}", status.generation);
    for found in &status.reload.diagnostics {
        out!("             {found}");
    }
    print_certificates(status);
    if !status.all_out.is_empty() {
        out!(
            "ALL DOWN     {}: refused until a check finds a pod that is up, or one comes",
            status.all_out
        );
    }
    let conflicts = [
        (
            &status.conflicts.held,
            "mapped, but another program listened first and has them",
        ),
        (
            &status.conflicts.shadowed,
            "another program listens and gets no connections",
        ),
    ];
    for (ports, what) in conflicts.into_iter().filter(|(ports, _)| !ports.is_empty()) {
        out!("CONFLICT     {ports}: {what}; `snproxy ports` names it");
    }
    for pod in status.pods.iter().take(MOST_PODS) {
        out!(
            "pod          {} -> {}  {}/{} connections, PROXY header {}, {}",
            pod.cluster_port,
            pod.upstream,
            pod.active,
            pod.max_conn,
            pod.send_proxy,
            health::text(pod.up, &pod.health)
        );
    }
    if let Some(more) = status
        .pods
        .len()
        .checked_sub(MOST_PODS)
        .filter(|more| *more > 0)
    {
        out!("             and {more} pods more: --json has them all");
    }
    for service in &status.services {
        print_service(service);
    }
    if !status.apps.is_empty() {
        out!("");
        routes::print_apps(&status.apps);
    }
}

fn print_ends(status: &Status) {
    let ends: Vec<_> = status
        .ends
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(end, count)| format!("{end} {count}"))
        .collect();
    out!(
        "ends         {}",
        if ends.is_empty() {
            "none".to_owned()
        } else {
            ends.join(", ")
        }
    );
}

fn print_hosts(hosts: &HostCounts) {
    if hosts.up + hosts.draining + hosts.down > 0 {
        let draining = match hosts.draining {
            0 => String::new(),
            draining => format!(", {draining} draining"),
        };
        out!(
            "other hosts  {} up{draining}, {} down",
            hosts.up,
            hosts.down
        );
    }
}

fn print_header_delays(status: &Status) {
    let ports = status.header_delays.iter().take(MOST_DELAYS);
    let ports: Vec<_> = ports
        .map(|(port, count)| format!("{port} ({count})"))
        .collect();
    if !ports.is_empty() {
        let more = match status.header_delays.len().saturating_sub(MOST_DELAYS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        out!(
            "header       PROXYWAIT delays PROXY headers of silent clients of port {}{more}; \
             if clients send none, set CLIENTPROXY PORT never",
            ports.join(", ")
        );
    }
}

fn print_certificates(status: &Status) {
    for certificate in &status.certificates {
        let days = certificate.seconds_left.div_euclid(24 * 3600);
        let left = match days {
            ..0 => "EXPIRED".to_owned(),
            days => format!("{days} days left"),
        };
        out!(
            "certificate  {}: {}, until {} ({left})",
            certificate.file,
            certificate.subject,
            certificate.expires
        );
    }
}

fn print_service(service: &Service) {
    let nodes = match service.nodes {
        Some(nodes) => format!("{nodes} nodes at revision {}", service.revision),
        None => "nothing known yet".to_owned(),
    };
    let ignored = match service.ignored {
        0 => String::new(),
        ignored => format!(", {ignored} keys ignored"),
    };
    out!("service      {}: {nodes}{ignored}", service.key);
    if let (Some(stale), Some(why)) = (service.stale_ms, &service.why_stale) {
        out!("             STALE for {} s: {why}", stale / 1000);
    }
}

fn print_directory(directory: &Directory) {
    let lost = directory.lost_ms.map_or_else(String::new, |lost| {
        format!(", etcd not reached for {:.1} s", health::seconds(lost))
    });
    let own = match (&directory.published_as, directory.published) {
        (None, _) => "nothing of this host is published".to_owned(),
        (Some(own), true) => format!("this host is published as {own}"),
        (Some(own), false) => format!("this host is not published now as {own}"),
    };
    let left_out = match directory.left_out {
        0 => String::new(),
        count => format!(", {count} outside TARGETNETS"),
    };
    out!(
        "directory    {}{lost}: cluster {} at {}, {} other hosts with {} ports{left_out}; {own}",
        directory.state,
        directory.cluster,
        directory.etcd,
        directory.hosts,
        directory.ports
    );
}

fn print_head(status: &Status) {
    let port = match status.port {
        0 => String::new(),
        port => format!(" port {port}"),
    };
    out!(
        "snproxy {} (pid {}) {} for {} s on {}{port}, steering by {}",
        status.version,
        status.pid,
        status.state,
        status.uptime_seconds,
        status.host,
        status.steering
    );
    out!(
        "ports        {} steered, {} refused, {} left alone",
        status.ports.steer,
        status.ports.refuse,
        status.ports.pass
    );
    if status.ports.closed > 0 {
        out!(
            "CLOSED       {} ports have no listener; `snproxy ports` says why",
            status.ports.closed
        );
    }
}
