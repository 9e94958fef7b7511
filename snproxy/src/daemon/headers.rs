//! PROXY headers of clients, as `explain` and `status` show them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::conf::{PortConf, ProxyMode, SendProxy};
use crate::net::own::is_own;
use crate::route::Table;

use super::Daemon;

impl Daemon {
    /// What holds for the PROXY header of a client, or of all clients.
    pub(super) fn headers(&self, table: &Table, port: u16, from: Option<IpAddr>) -> Vec<String> {
        let conf = table.conf.of_port(port);
        let (rule, wait) = (&conf.client_proxy, conf.proxy_wait);
        let mode = match from {
            Some(from) => conf.header_rule(from, is_own).mode,
            None => rule.mode,
        };
        let whose = match (from, mode) {
            (Some(from), _) => from.to_string(),
            (None, ProxyMode::Never) => "a client".to_owned(),
            (None, _) => "a client of these sources".to_owned(),
        };
        let is_ahead = conf.client_tls.is_some() && rule.mode != ProxyMode::Never;
        let tls = if is_ahead {
            " (CLIENTTLS: of listed networks only)"
        } else {
            ""
        };
        let effect = match mode {
            ProxyMode::Never => format!("no header of {whose} is read, nothing waits for one"),
            ProxyMode::Detect => format!("a header of {whose} is read"),
            ProxyMode::Require => format!("{whose} must send a header within {wait:?}"),
        };
        let mut lines = vec![format!("CLIENTPROXY {rule}: {effect}{tls}")];
        if mode == ProxyMode::Detect && !wait.is_zero() && may_send_header(table, port) {
            lines.push(format!(
                "PROXYWAIT {wait:?}: if the client sends nothing, its header for the pod waits this \
                 long; if clients send no header, set CLIENTPROXY {port} never"
            ));
        }
        let delayed = self.shared.header_delays.of(port);
        if delayed > 0 {
            lines.push(format!("PROXYWAIT delayed the header of {delayed} clients"));
        }
        lines
    }

    /// The ports on which silent clients waited and still do.
    pub(super) fn header_delays(&self, table: &Table) -> BTreeMap<u16, u64> {
        let delays = self.shared.header_delays.all().into_iter();
        let still = |port: u16| may_wait(table.conf.of_port(port));
        delays.filter(|(port, _)| still(*port)).collect()
    }
}

fn may_wait(conf: &PortConf) -> bool {
    conf.client_proxy.mode == ProxyMode::Detect && !conf.proxy_wait.is_zero()
}

/// Whether some pod of the port gets a header: one of this host does, or other hosts have pods.
fn may_send_header(table: &Table, port: u16) -> bool {
    let service = table.service(port);
    let pods = service.into_iter().flat_map(|service| service.pods.iter());
    let has_other_hosts = !table.peers.list().is_empty();
    has_other_hosts || pods.into_iter().any(|pod| pod.send_proxy != SendProxy::No)
}
