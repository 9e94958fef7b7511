//! Whether the other hosts are there: all of them at the start, then those that are away.

use std::sync::Arc;
use std::time::Instant;

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
