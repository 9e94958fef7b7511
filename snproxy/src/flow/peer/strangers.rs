//! Who may use PORT, and what is said of who may not.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rustix::process::geteuid;
use tracing::warn;

use crate::flow::Shared;
use crate::flow::end::End;
use crate::route::Table;
use crate::steering::socket_owner::owner;

/// Where a peer that may use PORT calls from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// A host of the cluster, or whoever PEERS names.
    Listed,
    /// This host: whoever runs the program has to be one who may, see [`check_owner`].
    Local,
}

/// Errors: [`End::Stranger`] where PORT is not for `from`, which connected to `asked`; said now and then, as long as they come.
pub(super) fn check(
    shared: &Shared,
    table: &Table,
    from: IpAddr,
    asked: IpAddr,
) -> Result<Source, End> {
    let conf = &table.conf;
    if conf.peers.any {
        return Ok(Source::Listed);
    }
    let now = Instant::now();
    if from == asked || from.is_loopback() || shared.own_sources.has(from, now) {
        let may = conf.peers.local;
        return Ok(if may { Source::Listed } else { Source::Local });
    }
    // Hosts that only the directory names are hosts as well.
    if conf.allows_peer(from) || (conf.peers.hosts && table.peers.has(from)) {
        return Ok(Source::Listed);
    }
    if let Some(refused) = shared.strangers.count(now) {
        warn!(
            event = "peer_denied", source = %from, refused,
            "refused on PORT: add it to hosts.conf or to PEERS if it is one of the cluster"
        );
    }
    Err(End::Stranger)
}

/// Whether a program of this host may speak for clients: any local user may connect to PORT, and an address tells no
/// users apart.
///
/// Errors: [`End::Stranger`] where neither root nor the user of this process has the socket at `from`.
pub(super) fn check_owner(shared: &Shared, from: SocketAddr, asked: SocketAddr) -> Result<(), End> {
    let found = owner(from, asked);
    if let Ok(Some(owner)) = &found
        && (owner.uid == 0 || owner.uid == geteuid().as_raw())
    {
        return Ok(());
    }
    if let Some(refused) = shared.strangers.count(Instant::now()) {
        let who = match found {
            Ok(Some(owner)) => format!("uid {}", owner.uid),
            Ok(None) => "no local socket found".to_owned(),
            Err(error) => error.to_string(),
        };
        warn!(
            event = "peer_denied", source = %from, refused, %who,
            "refused a program of this host on PORT: run it as root or as the user of snproxy, or add `local` to PEERS"
        );
    }
    Err(End::Stranger)
}
