//! One cluster port: its pods, and the next one to try.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::addr::ClusterPort;
use crate::conf::{PortConf, SendProxy};

use super::balance::{Draw, Scheme};
use super::health::Health;
use super::load::{Limit, Load, Permit};

/// What we dial: one host:host port. Shared by all pods at that address, and kept across reloads.
#[derive(Debug)]
pub struct Upstream {
    pub addr: SocketAddr,
    /// Mirrors `health`, for picks.
    up: AtomicBool,
    health: Mutex<Health>,
    probing: AtomicBool,
}

/// The right to probe an upstream, one at a time; dropping it gives it back.
#[derive(Debug)]
pub struct Probe(Arc<Upstream>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.probing.store(false, Relaxed);
    }
}

impl Upstream {
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            up: AtomicBool::new(true),
            health: Mutex::new(Health::Up),
            probing: AtomicBool::new(false),
        }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    pub fn health(&self) -> Health {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while a probe is under way.
    pub fn begin_probe(self: &Arc<Self>) -> Option<Probe> {
        (!self.probing.swap(true, Relaxed)).then(|| Probe(Arc::clone(self)))
    }

    /// Notes how a dial or probe ended; true when the upstream went up or down by it.
    pub fn report(&self, connected: bool, now: Instant) -> bool {
        if connected && self.is_up() {
            return false;
        }
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        *health = health.after(connected, now);
        self.up.swap(connected, Relaxed) != connected
    }
}

/// One mapping, or one address of a target, as a service sees it: an upstream and what may be asked of it.
#[derive(Debug)]
pub struct Pod {
    pub upstream: Arc<Upstream>,
    pub load: Arc<Load>,
    /// 0: takes nothing new.
    pub weight: u32,
    pub max_conn: u32,
    pub send_proxy: SendProxy,
}

/// The pods of one cluster port, in the order of the file.
#[derive(Clone, Copy)]
pub struct Service<'t> {
    pub port: ClusterPort,
    pub conf: &'t PortConf,
    pub scheme: &'t Scheme,
    pub pods: &'t [Pod],
    /// Its pods are the targets of an app, and those of the app's other ports too.
    pub is_app: bool,
    pub(super) turn: &'t AtomicU32,
}

/// Which pods a connection has tried already.
#[derive(Debug, Default)]
pub struct Tried(Vec<usize>);

impl Tried {
    pub fn contains(&self, pod: usize) -> bool {
        self.0.contains(&pod)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why no pod is left to try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exhausted {
    /// Every pod that could be tried has `maxConn` connections.
    Full,
    /// Every pod was tried.
    Tried,
}

impl<'t> Service<'t> {
    /// Takes a place at the next pod by policy, and marks the pod as tried. `key` is the client's.
    ///
    /// Pods known to be down are left for last: the knowledge may be old.
    /// Errors: none left; the connection ends.
    pub fn take(
        &self,
        random: u64,
        key: u64,
        tried: &mut Tried,
    ) -> Result<(&'t Pod, Permit), Exhausted> {
        let draw = Draw {
            random,
            turn: self.turn.fetch_add(1, Relaxed),
            key,
        };
        for down_too in [false, true] {
            // A pod that fills up between pick and admit is not eligible in the next round.
            for _ in 0..=self.pods.len() {
                let eligible = |pod: usize| {
                    (down_too || self.pods[pod].upstream.is_up()) && self.has_place(pod, tried)
                };
                let load = |pod: usize| self.pods[pod].load.active();
                let Some(picked) = self.scheme.pick(self.pods.len(), eligible, load, draw) else {
                    break;
                };
                let pod = &self.pods[picked];
                if let Some(permit) = pod.load.admit(self.limit(pod)) {
                    tried.0.push(picked);
                    return Ok((pod, permit));
                }
            }
        }
        if (0..self.pods.len()).all(|pod| tried.contains(pod)) {
            Err(Exhausted::Tried)
        } else {
            Err(Exhausted::Full)
        }
    }

    /// How many pods have a place, of those that are up and not tried.
    pub fn room(&self, tried: &Tried) -> u32 {
        let open = |pod: &usize| self.pods[*pod].upstream.is_up() && self.has_place(*pod, tried);
        let pods = (0..self.pods.len()).filter(open).count();
        u32::try_from(pods).unwrap_or(u32::MAX)
    }

    fn has_place(&self, pod: usize, tried: &Tried) -> bool {
        let candidate = &self.pods[pod];
        candidate.weight > 0
            && candidate.load.has_room(self.limit(candidate))
            && !tried.contains(pod)
    }

    fn limit(&self, pod: &Pod) -> Limit {
        Limit::new(Some(pod.max_conn), self.conf.reopen)
    }

    /// Whether a connection to this port could be carried now, as far as is known.
    pub fn alive(&self) -> bool {
        self.pods
            .iter()
            .any(|pod| pod.upstream.is_up() && pod.weight > 0)
    }
}
