//! `snproxy routes`.

use hyper::Method;

use crate::admin::api::{App, Route, Routes, TargetAddress};
use crate::diag::printable;
use crate::discovery::Root;

use super::health::seconds;
use super::output::out;
use super::{DONE, client, health};

/// Upstreams shown as text; JSON has all.
const MOST_UPSTREAMS: usize = 50;

pub(super) fn routes(root: &Root, json: bool) -> anyhow::Result<u8> {
    let answer = client::ask(root, &Method::GET, "/routes")?;
    if json {
        out!("{}", String::from_utf8_lossy(&answer));
    } else {
        print(&client::parse(&answer)?);
    }
    Ok(DONE)
}

fn print(routes: &Routes) {
    print_upstreams(routes);
    print_hosts(routes);
    if !routes.apps.is_empty() {
        out!("");
        print_apps(&routes.apps);
    }
}

/// Apps, their ports, and where their targets are.
pub(super) fn print_apps(apps: &[App]) {
    out!("{:<24} {:<24} TARGETS", "APP", "PORTS");
    for app in apps {
        let name = printable(&app.name);
        let targets = app.targets.iter().map(|target| {
            let at = |at: &TargetAddress| {
                let state = if at.up { "up" } else { "down" };
                format!("{} {state}, {} live", at.upstream, at.active)
            };
            let addresses: Vec<String> = target.addresses.iter().map(at).collect();
            let addresses = match addresses.as_slice() {
                [] => "no address".to_owned(),
                addresses => addresses.join(", "),
            };
            let weight = match target.weight {
                1 => String::new(),
                weight => format!(", weight {weight}"),
            };
            format!("{} ({addresses}{weight})", target.target)
        });
        out!(
            "{name:<24} {:<24} {}",
            app.ports,
            targets.collect::<Vec<_>>().join("; ")
        );
    }
}

fn print_upstreams(routes: &Routes) {
    out!("{:<24} POD OF THIS HOST", "ADDRESS");
    for upstream in routes.upstreams.iter().take(MOST_UPSTREAMS) {
        let health = health::text(upstream.up, &upstream.health);
        let check = &upstream.health.check;
        out!("{:<24} {health}; HEALTH {check}", upstream.address);
    }
    let more = routes.upstreams.len().saturating_sub(MOST_UPSTREAMS);
    if more > 0 {
        out!("and {more} more: --json has them all");
    }
    out!("");
}

fn print_hosts(routes: &Routes) {
    if routes.hosts.is_empty() {
        out!("no other host");
        return;
    }
    out!("{:<24} {:<24} STATE", "HOST", "ADDRESS");
    for host in &routes.hosts {
        let state = match host.retry_ms {
            _ if host.draining => "drains, gets no new connections".to_owned(),
            Some(retry) => format!("down, tried again in {:.1} s", seconds(retry)),
            None if host.published => "up, in the cluster directory".to_owned(),
            None if host.counts_pods => "up".to_owned(),
            None => "up, does not count its pods".to_owned(),
        };
        out!("{:<24} {:<24} {state}", host.name, host.address);
    }
    if routes.routes.is_empty() {
        return;
    }
    out!("\n{:<6} WHAT OTHER HOSTS ANSWERED OR PUBLISHED", "PORT");
    for routes in routes.routes.chunk_by(|a, b| a.port == b.port) {
        let mut said: Vec<String> = routes
            .iter()
            .filter(|route| route.answer != "not here")
            .map(said)
            .collect();
        // Most hosts serve few of all ports: how many they are is enough.
        let without = routes.len() - said.len();
        if without > 0 {
            let hosts = if without == 1 { "host" } else { "hosts" };
            said.push(format!("not on {without} {hosts}"));
        }
        out!("{:<6} {}", routes[0].port, said.join("; "));
    }
}

fn said(route: &Route) -> String {
    let Route {
        host,
        answer,
        pods,
        pods_counted,
        live,
        ..
    } = route;
    let counted = pods_counted.map_or_else(String::new, |counted| format!(", {counted} count"));
    let source = match route.age_ms {
        Some(age) => format!("{:.1} s ago", seconds(age)),
        None => "published".to_owned(),
    };
    match pods {
        0 => format!("{host} {answer} ({source}, {live} live)"),
        1 => format!("{host} {answer} with 1 pod ({source}, {live} live)"),
        _ => format!("{host} {answer} with {pods} pods{counted} ({source}, {live} live)"),
    }
}
