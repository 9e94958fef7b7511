//! What a set of files came to, as text.

use std::fmt::Write;

use crate::conf::*;
use crate::diag::Parsed;

pub(super) fn report(parsed: &Parsed<Option<Conf>>) -> String {
    let mut text = String::new();
    let verdict = if parsed.has_errors() {
        "refused"
    } else {
        "loads"
    };
    writeln!(text, "{verdict}").unwrap();
    if let Some(conf) = &parsed.value {
        for Explained {
            key, value, origin, ..
        } in explain(conf)
        {
            let derived = ["HOST", "PODHOST"].contains(&key);
            if derived || origin != "default" {
                writeln!(text, "{key} {value}  # {origin}").unwrap();
            }
        }
        let this = conf.this_host.and_then(|at| conf.hosts.get(at));
        let this = this.map_or(0, |host| host.line);
        writeln!(text, "{} hosts, this one in line {this}", conf.hosts.len()).unwrap();
        for other in conf.other_hosts() {
            let addr = other.addr().unwrap();
            writeln!(text, "{}: other host at {addr}", other.line).unwrap();
        }
        for mapping in conf.mappings.iter().take(8) {
            let Mapping {
                cluster_port,
                host_port,
                max_conn,
                send_proxy,
                line,
                col,
            } = mapping;
            writeln!(
                text,
                "{line}:{col} {cluster_port}:{host_port}:{max_conn}:{send_proxy}"
            )
            .unwrap();
        }
        writeln!(text, "{} mappings", conf.mappings.len()).unwrap();
        conf.apps.iter().for_each(|app| report_app(&mut text, app));
    }
    for found in &parsed.diagnostics {
        writeln!(text, "\n{found}").unwrap();
    }
    for found in &parsed.diagnostics {
        writeln!(text, "\n{}", found.block()).unwrap();
    }
    text
}

fn report_app(text: &mut String, app: &App) {
    let App {
        name,
        ports,
        targets,
        srv,
        line,
        col,
    } = app;
    writeln!(text, "{line}:{col} app {name:?}").unwrap();
    if let Some(Srv { key, line, col, .. }) = srv {
        writeln!(text, "{line}:{col}   service {key:?}").unwrap();
    }
    for PortRange {
        first,
        last,
        line,
        col,
    } in ports
    {
        writeln!(text, "{line}:{col}   ports {first}-{last}").unwrap();
    }
    for target in targets {
        let Target {
            host,
            addrs,
            port,
            weight,
            max_conn,
            send_proxy,
            line,
            col,
        } = target;
        writeln!(
            text,
            "{line}:{col}   target {host} port {port} at {addrs:?}, weight {weight}, max_conn {max_conn}, {send_proxy}"
        )
        .unwrap();
    }
}
