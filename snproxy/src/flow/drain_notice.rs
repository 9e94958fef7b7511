//! A planned end, as other hosts learn of it: the host that drains sends them a notice, each of them
//! probes it, and its reply to the probe says the same. So a notice that another program of that
//! host made up changes nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::route::Table;
use crate::route::peers::Peer;
use crate::wire::peer::{ProxyPort, Reply, Request};

use super::Shared;
use super::call::{self, Said};
use super::peer_tls::open;
use super::questions::{LIMITS, SILENCE, lives, note_state, options};

/// Longest wait for all hosts: one that is slow finds out by itself.
const NOTICE_LIMIT: Duration = Duration::from_secs(1);

/// Tells the hosts that are up that this one drains; returns how many took note. From now on this
/// host has no pods for them.
pub async fn send(shared: &Arc<Shared>) -> usize {
    shared.draining.store(true, Relaxed);
    let table = shared.table.load_full();
    let Some(proxy_port) = ProxyPort::new(table.conf.port) else {
        return 0;
    };
    let peers = table.peers.list().iter().filter(|peer| peer.is_up());
    let notices = peers.map(|peer| notify(shared, &table, peer, proxy_port));
    let taken = timeout(NOTICE_LIMIT, join_all(notices)).await;
    taken.map_or(0, |taken| taken.into_iter().filter(|taken| *taken).count())
}

async fn notify(shared: &Shared, table: &Table, peer: &Peer, proxy_port: ProxyPort) -> bool {
    // Few at once: there may be thousands of hosts.
    let _connecting = shared.questions.connects().await;
    let opened = open(shared, peer, options(table.conf.dial_from), LIMITS).await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            debug!(host = %peer.name, %error, "drain notice");
            return false;
        }
    };
    let request = Request::Drain { proxy_port };
    let deadline = Instant::now() + SILENCE;
    let said = call::ask(opened.connection.stream(), [request], deadline).await;
    // A proxy that does not know the notice closes.
    matches!(said, Said::Reply(Reply::Drains, _))
}

/// Finds out whether the host that sent a notice drains.
pub(super) async fn verify(
    shared: &Arc<Shared>,
    table: &Table,
    source: IpAddr,
    proxy_port: ProxyPort,
) {
    let is_it = |peer: &&Arc<Peer>| {
        let addr = peer.addr();
        addr.ip().to_canonical() == source.to_canonical() && addr.port() == proxy_port.get()
    };
    let Some(peer) = table.peers.list().iter().find(is_it) else {
        return;
    };
    if let Some(state) = lives(shared, peer, table.conf.dial_from).await {
        note_state(peer, state);
    }
    shared.answered.notify_waiters();
}
