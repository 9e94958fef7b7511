//! Whether the other hosts are there: all of them at the start, then those that are away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::flow::{Shared, questions};
use crate::route::Table;

/// Calls all other hosts: who is away is known before a client comes, and they know that this one is back.
pub(super) fn greet(shared: &Arc<Shared>, table: &Table) {
    for at in 0..table.peers.list().len() {
        questions::probe(shared, &table.peers, at, table.conf.dial_from);
    }
}

/// Asks those of the other hosts that are away and due, and those that drain: whether they have ended.
pub(super) fn probe(shared: &Arc<Shared>, table: &Table, now: Instant) {
    for (at, peer) in table.peers.list().iter().enumerate() {
        let drains = peer.is_draining() && peer.upstream.is_up();
        if drains || peer.upstream.health().due(now) {
            questions::probe(shared, &table.peers, at, table.conf.dial_from);
        }
    }
}

/// Time between two lines about claims.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Log of hosts that claim more pods than is plausible.
#[derive(Debug, Default)]
pub(super) struct ClaimLog {
    logged: Option<Instant>,
}

impl ClaimLog {
    /// Logs the last such claim, now and then.
    pub(super) fn look(&mut self, table: &Table, now: Instant) {
        if self.logged.is_some_and(|at| now < at + LOG_INTERVAL) {
            return;
        }
        let Some(claim) = table.peers.take_capped() else {
            return;
        };
        let Some(peer) = table.peers.list().get(claim.host) else {
            return;
        };
        self.logged = Some(now);
        warn!(
            event = "peer_claim_capped",
            peer = %peer.name,
            claimed = claim.claimed,
            counted = claim.counted,
            "a peer claims more than 8 times the pods of the others, the rest does not count; see `snproxy routes`"
        );
    }
}
