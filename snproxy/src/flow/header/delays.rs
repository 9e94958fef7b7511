//! Ports whose clients sent nothing for PROXYWAIT, so that their PROXY header was delayed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::flow::seldom::Seldom;

/// Delays by port.
///
/// Layout: one entry per port that had a delay, at most 65,536.
#[derive(Debug, Default)]
pub struct HeaderDelays {
    ports: Mutex<BTreeMap<u16, Delays>>,
    lines: Seldom,
}

#[derive(Clone, Copy, Debug, Default)]
struct Delays {
    count: u64,
    is_logged: bool,
}

impl HeaderDelays {
    /// Counts a client that sent nothing for `wait`. Logs one line per port.
    pub(in crate::flow) fn note(&self, client: SocketAddr, port: u16, wait: Duration) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let delays = ports.entry(port).or_default();
        delays.count += 1;
        if delays.is_logged || self.lines.count(Instant::now()).is_none() {
            return;
        }
        delays.is_logged = true;
        drop(ports);
        warn!(
            %client,
            port,
            ?wait,
            "PROXY header was delayed by PROXYWAIT: the client sent nothing; \
             if clients of this port send no PROXY header, set CLIENTPROXY {port} never"
        );
    }

    /// Returns the number of delayed headers of a port.
    pub fn of(&self, port: u16) -> u64 {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.get(&port).map_or(0, |delays| delays.count)
    }

    /// Returns all ports with delayed headers, and their numbers.
    pub fn all(&self) -> Vec<(u16, u64)> {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = ports.iter().map(|(port, delays)| (*port, delays.count));
        counts.collect()
    }
}
