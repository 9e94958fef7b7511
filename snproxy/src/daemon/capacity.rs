//! The connections that the descriptors and the memory of this process allow: MAXCONN where the files set none.

use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tracing::info;

use crate::conf::MaxConn;
use crate::sys::cgroup;

use super::Daemon;
use super::report::descriptors_open;
use super::steer::wanted_listeners;
use super::workers::Workers;

/// Descriptors of one connection: those of the client and of the upstream.
const DESCRIPTORS_EACH: u64 = 2;
/// A share of the descriptors, in percent, for reloads, commands, checks and pipes; at least [`MIN_SPARE`], at most
/// [`MAX_SPARE`].
const SPARE_PERCENT: u64 = 5;
const MIN_SPARE: u64 = 12;
const MAX_SPARE: u64 = 1024;

/// Memory of the process without connections, that of a reload included.
const BASE_MEMORY: u64 = 12 << 20;
/// Memory of one connection with both sockets, kernel and process together. Idle ones take 5 KiB each; the rest is for
/// bytes that are under way (2026-12-01).
const MEMORY_EACH: u64 = 16 << 10;

/// Time between two looks at limits that may change while the process runs.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the limits come to, and when they were read.
#[derive(Debug)]
pub(super) struct Capacity {
    /// Descriptors that were open before the first connection.
    base: u64,
    read: Option<Instant>,
    logged: Option<u32>,
}

impl Capacity {
    pub(super) fn new() -> Self {
        Self {
            base: descriptors_open().unwrap_or(0),
            read: None,
            logged: None,
        }
    }
}

impl Daemon {
    /// Reads the limits now and then.
    pub(super) fn look_at_capacity(&mut self, now: Instant) {
        let is_due = |read: Instant| now.saturating_duration_since(read) >= INTERVAL;
        if self.capacity.read.is_none_or(is_due) {
            self.measure_capacity(now);
        }
    }

    /// Reads the limits, and tells the connections.
    pub(super) fn measure_capacity(&mut self, now: Instant) {
        self.capacity.read = Some(now);
        let table = self.shared.table.load();
        let listeners = match self.steerer.mechanism() {
            "listeners" => wanted_listeners(&table),
            _ => 0,
        };
        // The runtime of a worker has an epoll instance, its waker and the listener.
        let own = 4 * Workers::count(&table.conf) + listeners;
        let own = u64::try_from(own)
            .unwrap_or(u64::MAX)
            .max(self.capacity.base);
        let descriptors = getrlimit(Resource::Nofile).current;
        let memory = cgroup::memory_limit();
        let connections = connections(descriptors, own, memory);
        self.shared.limits.set_capacity(connections);
        let is_used = table.conf.max_conn == MaxConn::Auto;
        if is_used && self.capacity.logged != Some(connections) {
            self.capacity.logged = Some(connections);
            info!(connections, descriptors, memory, "MAXCONN auto is set");
        }
    }
}

/// How many connections these limits allow; at least one.
fn connections(descriptors: Option<u64>, own: u64, memory: Option<u64>) -> u32 {
    let by_descriptors = descriptors.map(|all| {
        let spare = (all / 100 * SPARE_PERCENT).clamp(MIN_SPARE, MAX_SPARE);
        all.saturating_sub(own + spare) / DESCRIPTORS_EACH
    });
    let by_memory = memory.map(|all| all.saturating_sub(BASE_MEMORY) / MEMORY_EACH);
    let least = by_descriptors.into_iter().chain(by_memory).min();
    let least = least.map_or(u32::MAX, |least| u32::try_from(least).unwrap_or(u32::MAX));
    least.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scarcer_of_descriptors_and_memory_counts() {
        for (descriptors, own, memory, expected) in [
            (Some(1024), 40, None, 467),
            (Some(1_048_576), 40, None, 523_756),
            (Some(64), 30, None, 11),
            (Some(64), 100, None, 1),
            (Some(1024), 40, Some(24 << 20), 467),
            (Some(1_048_576), 40, Some(24 << 20), 768),
            (Some(1_048_576), 40, Some(8 << 20), 1),
            (None, 40, None, u32::MAX),
        ] {
            let found = connections(descriptors, own, memory);
            assert_eq!(found, expected, "{descriptors:?} {own} {memory:?}");
        }
    }
}
