//! `snproxy ports`.

use hyper::Method;

use crate::admin::api::Ports;
use crate::diag::printable;
use crate::discovery::Root;

use super::output::out;
use super::{DONE, client, owner};

pub(super) fn ports(root: &Root, json: bool) -> anyhow::Result<u8> {
    let mut ports: Ports = client::parse(&client::ask(root, &Method::GET, "/ports")?)?;
    owner::name(&mut ports);
    if json {
        out!("{}", serde_json::to_string(&ports)?);
    } else {
        print(&ports);
    }
    Ok(DONE)
}

fn print(ports: &Ports) {
    if let Some(note) = &ports.note {
        out!("{note}");
    }
    if ports.ranges.is_empty() {
        if ports.note.is_none() {
            out!("no cluster port");
        }
        return;
    }
    out!(
        "{:<13} {:<7} {:>10} {:>10}  REASON",
        "PORTS",
        "ACTION",
        "LOOKUPS",
        "LIMITED"
    );
    for range in &ports.ranges {
        let span = if range.first == range.last {
            range.first.to_string()
        } else {
            format!("{}-{}", range.first, range.last)
        };
        let owner = range.owner.as_ref().map_or_else(String::new, |owner| {
            let name = owner.name.as_deref().unwrap_or("unknown program");
            let pid = owner
                .pid
                .map_or_else(String::new, |pid| format!(", pid {pid}"));
            let shadowed = if owner.shadowed {
                "; gets no connections"
            } else {
                ""
            };
            let (uid, address) = (owner.uid, &owner.address);
            format!(": {name}{pid}, uid {uid}, on {address}{shadowed}")
        });
        let app = range.app.as_deref();
        let app = app.map_or_else(String::new, |app| format!(" ({})", printable(app)));
        let state = range.state.as_ref();
        let state = state.map_or_else(String::new, |state| format!("; {state}"));
        out!(
            "{span:<13} {:<7} {:>10} {:>10}  {}{app}{owner}{state}",
            range.action,
            range.lookups,
            range.limited,
            range.reason
        );
    }
}
