//! A port that floods the one accept queue gets a queue of its own, until it is calm again.
//!
//! Clients of other ports then wait behind none of its connections, and what this queue cannot hold the kernel turns
//! away before anybody has work with it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::addr::loopback;
use crate::conf::Family;
use crate::net::dial::tune_anew;
use crate::net::listener;
use crate::steering::conflict;

use super::workers::Workers;

/// How long nobody must have come until the ports go back to where the others are, and again until this queue is closed.
const CALM: Duration = Duration::from_secs(2);

/// The second listener and the ports that are steered to it.
pub(super) struct Aside {
    pub(super) ports: BTreeSet<u16>,
    pub(super) listener: Arc<TcpListener>,
    pub(super) inode: u32,
    accepting: Vec<AbortHandle>,
    accepted: Arc<AtomicU64>,
    seen: u64,
    calm_since: Instant,
}

impl Aside {
    /// Listens, for nobody yet.
    pub(super) fn open(
        host: IpAddr,
        family: Family,
        keepalive: Option<Duration>,
        workers: &Workers,
    ) -> io::Result<Self> {
        let listener = Arc::new(listener::bind(address(host, family), family, keepalive)?);
        let accepted = Arc::default();
        Ok(Self {
            ports: BTreeSet::new(),
            inode: conflict::inode(&listener)?,
            accepting: workers.accept_aside(&listener, &accepted),
            listener,
            accepted,
            seen: 0,
            calm_since: Instant::now(),
        })
    }

    /// Whether nobody came for some time; the time begins anew when that is said.
    pub(super) fn is_calm(&mut self, now: Instant) -> bool {
        let accepted = self.accepted.load(Relaxed);
        if accepted != self.seen {
            self.seen = accepted;
            self.calm_since = now;
        }
        let is_calm = now.saturating_duration_since(self.calm_since) >= CALM;
        if is_calm {
            self.calm_since = now;
        }
        is_calm
    }

    pub(super) fn keep_alive(&self, keepalive: Option<Duration>) {
        tune_anew(&self.listener, keepalive);
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        for accepting in &self.accepting {
            accepting.abort();
        }
    }
}

/// Where it is bound: the program gives it connections to any address, but nobody else should find it.
fn address(host: IpAddr, family: Family) -> SocketAddr {
    let ip = match host {
        // Both families, and yet on loopback only.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if family != Family::V6 => {
            Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()
        }
        host => loopback(host),
    };
    SocketAddr::new(ip, 0)
}
