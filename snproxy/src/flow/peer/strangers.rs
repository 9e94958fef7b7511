//! Who may use PORT, and what is said of who may not.

use std::net::IpAddr;
use std::time::Instant;

use tracing::warn;

use crate::flow::end::End;
use crate::flow::seldom::Seldom;
use crate::net::own::is_own;
use crate::route::Table;

/// Errors: [`End::Stranger`] where PORT is not for `from`, which connected to `asked`; said now and then, as long as they come.
pub(super) fn check(said: &Seldom, table: &Table, from: IpAddr, asked: IpAddr) -> Result<(), End> {
    let conf = &table.conf;
    // Hosts that only the directory names are hosts as well.
    let is_host = || conf.peers.hosts && table.peers.has(from);
    // Asked last: it makes a system call or two.
    if conf.allows_peer(from) || is_host() || from == asked || is_own(from) {
        return Ok(());
    }
    if let Some(refused) = said.count(Instant::now()) {
        warn!(
            source = %from, refused,
            "refused on PORT: add it to hosts.conf or to PEERS if it is one of the cluster"
        );
    }
    Err(End::Stranger)
}
