//! `snproxy status`.

use hyper::Method;

use crate::admin::api::{Directory, Service, Status};
use crate::discovery::Root;

use super::{DONE, client, health, routes};

/// Pods shown as text; JSON has all.
const MOST_PODS: usize = 50;
/// Ports with delayed PROXY headers that are shown as text.
const MOST_DELAYS: usize = 10;

pub(super) fn status(root: &Root, json: bool) -> anyhow::Result<u8> {
    let answer = client::ask(root, &Method::GET, "/status")?;
    if json {
        println!("{}", String::from_utf8_lossy(&answer));
    } else {
        print(&serde_json::from_slice(&answer)?);
    }
    Ok(DONE)
}

fn print(status: &Status) {
    print_head(status);
    let hosts = &status.hosts;
    if hosts.up + hosts.draining + hosts.down > 0 {
        let draining = match hosts.draining {
            0 => String::new(),
            draining => format!(", {draining} draining"),
        };
        println!(
            "other hosts  {} up{draining}, {} down",
            hosts.up, hosts.down
        );
    }
    if let Some(directory) = &status.directory {
        print_directory(directory);
    }
    println!(
        "connections  {} live, {} waiting, {} in all",
        status.connections.live, status.connections.waiting, status.connections.total
    );
    let ends: Vec<_> = status
        .ends
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(end, count)| format!("{end} {count}"))
        .collect();
    println!(
        "ends         {}",
        if ends.is_empty() {
            "none".to_owned()
        } else {
            ends.join(", ")
        }
    );
    if let Some(kernel) = &status.kernel {
        println!(
            "kernel       {} steered, {} refused, {} above the rate of their port, {} without listener, {} failed (lookups)",
            kernel.steered, kernel.refused, kernel.limited, kernel.no_listener, kernel.failed
        );
    }
    if let Some(pending) = &status.pending {
        println!("pending      {pending} (retried all the time)");
    }
    for queue in &status.queues {
        let first = queue.waiting.first().map_or(0, |first| first.waited_ms);
        println!(
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
    println!("files        generation {}: {verdict}", status.generation);
    for found in &status.reload.diagnostics {
        println!("             {found}");
    }
    print_certificates(status);
    if !status.all_out.is_empty() {
        println!(
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
        println!("CONFLICT     {ports}: {what}; `snproxy ports` names it");
    }
    for pod in status.pods.iter().take(MOST_PODS) {
        println!(
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
        println!("             and {more} pods more: --json has them all");
    }
    for service in &status.services {
        print_service(service);
    }
    if !status.apps.is_empty() {
        println!();
        routes::print_apps(&status.apps);
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
        println!(
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
        println!(
            "certificate  {}: {}, until {} ({left})",
            certificate.file, certificate.subject, certificate.expires
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
    println!("service      {}: {nodes}{ignored}", service.key);
    if let (Some(stale), Some(why)) = (service.stale_ms, &service.why_stale) {
        println!("             STALE for {} s: {why}", stale / 1000);
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
    println!(
        "directory    {}{lost}: cluster {} at {}, {} other hosts with {} ports; {own}",
        directory.state, directory.cluster, directory.etcd, directory.hosts, directory.ports
    );
}

fn print_head(status: &Status) {
    let port = match status.port {
        0 => String::new(),
        port => format!(" port {port}"),
    };
    println!(
        "snproxy {} (pid {}) {} for {} s on {}{port}, steering by {}",
        status.version,
        status.pid,
        status.state,
        status.uptime_seconds,
        status.host,
        status.steering
    );
    println!(
        "ports        {} steered, {} refused, {} left alone",
        status.ports.steer, status.ports.refuse, status.ports.pass
    );
}
