//! Targets that etcd names: `"Srv": "/srv/redis/debug"` stands for those of the keys `/srv/redis/debug/<ip:port>`.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{App, Target};
use crate::conf::text::Findings;
use crate::conf::{Conf, SendProxy, World};
use crate::diag::{Severity, printable};

/// Longest key of a service, in bytes.
pub(in crate::conf) const MAX_KEY: usize = 1024;

/// Most nodes of one service that are used.
pub const MAX_NODES: usize = 4096;

/// Most nodes of all services together that are used.
const MAX_ALL_NODES: usize = 65_536;

/// A service whose nodes etcd knows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Srv {
    /// Without a `/` at its end.
    pub key: Box<str>,
    /// Connections at once, at each node; 0: always busy.
    pub max_conn: u32,
    pub send_proxy: SendProxy,
    pub line: u32,
    pub col: u32,
}

/// Gives the apps that have a service its nodes as targets. Whatever etcd says is no error: the proxy serves what there is.
pub(in crate::conf) fn discover(conf: &mut Conf, world: &World<'_>, findings: &mut Findings<'_>) {
    let Conf {
        apps,
        etcd,
        target_nets,
        ..
    } = conf;
    let etcd = etcd.as_deref();
    let services = apps.iter().filter_map(|app| app.srv.as_ref());
    let mut keys: Vec<Box<str>> = services.clone().map(|srv| srv.key.clone()).collect();
    let Some(etcd) = etcd else {
        for Srv { line, col, .. } in services {
            let message = "`Srv` needs an etcd to ask: set ETCD in proxy.conf";
            findings.at(Severity::Error, *line, *col, message);
        }
        return;
    };
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        return;
    }
    let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
    let known = (world.discovered)(etcd, &keys);
    let known: HashMap<&str, _> = keys.iter().copied().zip(known).collect();
    let mut left = MAX_ALL_NODES;
    for App { srv, targets, .. } in apps {
        let Some(srv) = srv else { continue };
        let mut warn = |message: &str| {
            let message = format_args!("`{}`: {message}", printable(&srv.key));
            findings.at(Severity::Warning, srv.line, srv.col, message);
        };
        let nodes = match known.get(&*srv.key) {
            Some(Ok(nodes)) => nodes,
            unknown => {
                let why = unknown.and_then(|unknown| unknown.as_ref().err());
                let why = printable(why.map_or("", |why| why));
                warn(&format!(
                    "nothing is known of it yet, its ports are refused until etcd says what its nodes are: {why}"
                ));
                continue;
            }
        };
        let most = MAX_NODES.min(left);
        let why = |node: &&SocketAddr| target_nets.left_out(node.ip());
        if let Some((first, why)) = nodes.iter().find_map(|node| Some((node, why(&node)?))) {
            warn(&format!("nodes such as {first}, {why}, are left out"));
        }
        // Before the limit: what is left out must not crowd out the others.
        let nodes: Vec<&SocketAddr> = nodes.iter().filter(|node| why(node).is_none()).collect();
        if nodes.len() > most {
            warn(&format!(
                "{} nodes are too many: the first {most} are used",
                nodes.len()
            ));
        }
        let nodes = nodes.into_iter().take(most);
        *targets = nodes
            .map(|node| Target {
                host: node.ip().to_string().into(),
                addrs: [node.ip()].into(),
                port: node.port(),
                weight: 1,
                max_conn: srv.max_conn,
                send_proxy: srv.send_proxy,
                line: srv.line,
                col: srv.col,
            })
            .collect();
        left -= targets.len();
        if targets.is_empty() {
            warn("etcd has no node of it: its ports are refused until there is one");
        }
    }
}
