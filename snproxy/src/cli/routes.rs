//! `snproxy routes`.

use std::path::Path;

use hyper::Method;

use crate::admin::api::{Route, Routes};

use super::{DONE, client};

pub(super) fn routes(conf: &Path, json: bool) -> anyhow::Result<u8> {
    let answer = client::ask(conf, &Method::GET, "/routes")?;
    if json {
        println!("{}", String::from_utf8_lossy(&answer));
    } else {
        print(&serde_json::from_slice(&answer)?);
    }
    Ok(DONE)
}

fn print(routes: &Routes) {
    if routes.hosts.is_empty() {
        println!("no other host in hosts.conf");
        return;
    }
    println!("{:<24} {:<24} STATE", "HOST", "ADDRESS");
    for host in &routes.hosts {
        let state = match host.retry_ms {
            Some(retry) => format!("down, tried again in {:.1} s", seconds(retry)),
            None if host.counts_pods => "up".to_owned(),
            None => "up, does not count its pods".to_owned(),
        };
        println!("{:<24} {:<24} {state}", host.name, host.address);
    }
    println!("\n{:<6} WHAT OTHER HOSTS ANSWERED", "PORT");
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
        println!("{:<6} {}", routes[0].port, said.join("; "));
    }
}

fn said(route: &Route) -> String {
    let Route {
        host,
        answer,
        pods,
        live,
        ..
    } = route;
    let age = seconds(route.age_ms);
    match pods {
        0 => format!("{host} {answer} ({age:.1} s ago, {live} live)"),
        1 => format!("{host} {answer} with 1 pod ({age:.1} s ago, {live} live)"),
        _ => format!("{host} {answer} with {pods} pods ({age:.1} s ago, {live} live)"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
