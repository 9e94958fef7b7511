//! Whether the pods of this host live: what listening sockets tell, and probes where they tell of a change.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use crate::flow::{Shared, header};
use crate::net::dial::dial;
use crate::route::Table;
use crate::route::service::Upstream;
use crate::steering::conflict::{Listening, owner_of};
use crate::wire::proxy;

/// What the last scan saw.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// Upstreams for which a listening socket was visible. A pod behind NAT or in a namespace of its
    /// own never is: that says nothing about it.
    seen: HashSet<SocketAddr>,
}

impl Pods {
    /// Upstreams to probe now: their listener went away or came back, or their next probe is due.
    pub(super) fn look(
        &mut self,
        table: &Table,
        listening: Option<&[Listening]>,
        now: Instant,
    ) -> Vec<Arc<Upstream>> {
        let mut seen = HashSet::new();
        let mut probes = Vec::new();
        // Without a scan nothing vanished and nothing appeared; due probes are made all the same.
        let Some(listening) = listening else {
            self.seen.clear();
            let due = |upstream: &&Arc<Upstream>| upstream.health().due(now);
            return table.upstreams().iter().filter(due).cloned().collect();
        };
        let mut by_port: HashMap<u16, Vec<&Listening>> = HashMap::new();
        for socket in listening {
            by_port.entry(socket.addr.port()).or_default().push(socket);
        }
        for upstream in table.upstreams() {
            let addr = upstream.addr;
            let sockets = by_port.get(&addr.port()).map_or(&[][..], Vec::as_slice);
            let visible = sockets.iter().any(|socket| owner_of(addr.ip(), socket));
            let before = self.seen.contains(&addr);
            if visible {
                seen.insert(addr);
            }
            let vanished = before && !visible;
            let appeared = visible && !before && !upstream.is_up();
            if vanished || appeared || upstream.health().due(now) {
                probes.push(Arc::clone(upstream));
            }
        }
        self.seen = seen;
        probes
    }
}

/// Connects once, without a permit, and notes how it went; nothing while a probe is under way.
pub(super) fn probe(shared: &Arc<Shared>, table: &Arc<Table>, upstream: Arc<Upstream>) {
    let Some(turn) = upstream.begin_probe() else {
        return;
    };
    let (shared, table) = (Arc::clone(shared), Arc::clone(table));
    tokio::spawn(async move {
        match dial(upstream.addr, table.conf.connect_timeout).await {
            Ok(mut stream) => {
                let mut greeting = BytesMut::new();
                if let Some(version) = header::version(table.send_proxy_of(upstream.addr)) {
                    proxy::encode_unknown(version, &mut greeting);
                }
                // The connection was the answer: a pod that cuts the greeting short is up all the same.
                let _ = stream.write_all(&greeting).await;
                shared.note(&upstream, true);
            }
            Err(error) => {
                debug!(%error, "probe");
                if error.blames_upstream() {
                    shared.note(&upstream, false);
                }
            }
        }
        drop(turn);
    });
}
