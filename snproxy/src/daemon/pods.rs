//! Whether the pods of this host live: what listening sockets tell, and probes where they tell of a change.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::conf::SendProxy;
use crate::flow::{Shared, header};
use crate::net::dial::{Options, dial};
use crate::route::Table;
use crate::route::service::Upstream;
use crate::steering::conflict::{Listening, owner_of};
use crate::wire::proxy;

/// What the last scan saw.
#[derive(Debug)]
pub(super) struct Pods {
    /// Upstreams for which a listening socket was visible. A pod behind NAT or in a namespace of its
    /// own never is: that says nothing about it.
    seen: HashSet<SocketAddr>,
    /// A runtime that stops takes all of its pods at once: their probes must not take all descriptors.
    places: Arc<Semaphore>,
}

/// Probes at once.
const PROBES: usize = 64;

impl Default for Pods {
    fn default() -> Self {
        Self {
            seen: HashSet::new(),
            places: Arc::new(Semaphore::new(PROBES)),
        }
    }
}

impl Pods {
    /// Upstreams to probe now: their listener went away, or is there while they are down, or their next probe is due.
    /// With the header that their pods expect.
    pub(super) fn look(
        &mut self,
        table: &Table,
        listening: Option<&[Listening]>,
        now: Instant,
    ) -> Vec<(Arc<Upstream>, SendProxy)> {
        let mut seen = HashSet::new();
        let mut probes = Vec::new();
        // Without a scan nothing vanished and nothing appeared; due probes are made all the same.
        let Some(listening) = listening else {
            let due = |(upstream, _): &&(Arc<Upstream>, _)| upstream.health().due(now);
            return table.upstreams().iter().filter(due).cloned().collect();
        };
        let mut by_port: HashMap<u16, Vec<&Listening>> = HashMap::new();
        for socket in listening {
            by_port.entry(socket.addr.port()).or_default().push(socket);
        }
        for (upstream, send_proxy) in table.upstreams() {
            let addr = upstream.addr;
            let sockets = by_port.get(&addr.port()).map_or(&[][..], Vec::as_slice);
            let visible = sockets.iter().any(|socket| owner_of(addr.ip(), socket));
            let before = self.seen.contains(&addr);
            if visible {
                seen.insert(addr);
            }
            let vanished = before && !visible;
            // Not only when it appears: one that was restarted between two looks was never seen to be away.
            let waiting = visible && !upstream.is_up();
            if vanished || waiting || upstream.health().due(now) {
                probes.push((Arc::clone(upstream), *send_proxy));
            }
        }
        self.seen = seen;
        probes
    }

    /// Connects once, without a permit, and notes how it went; nothing while a probe is under way.
    pub(super) fn probe(
        &mut self,
        shared: &Arc<Shared>,
        table: &Table,
        (upstream, send_proxy): (Arc<Upstream>, SendProxy),
    ) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            // As if it had been seen: what vanished does so again at the next look.
            self.seen.insert(upstream.addr);
            return;
        };
        let Some(turn) = upstream.begin_probe() else {
            return;
        };
        let shared = Arc::clone(shared);
        let limit = table.conf.ports.common().connect_timeout;
        tokio::spawn(async move {
            match dial(upstream.addr, Options::default(), limit).await {
                Ok(stream) => {
                    let mut greeting = BytesMut::new();
                    if let Some(version) = header::version(send_proxy) {
                        proxy::encode_unknown(version, &mut greeting);
                    }
                    // The connection was the answer: a pod that cuts the greeting short is up all the same.
                    let _ = stream.try_write(&greeting);
                    shared.note(&upstream, true);
                }
                Err(error) => {
                    debug!(%error, "probe");
                    if let Some(lives) = error.upstream_lives() {
                        shared.note(&upstream, lives);
                    }
                }
            }
            drop((turn, place));
        });
    }
}
