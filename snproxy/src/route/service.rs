//! One cluster port: its pods, and the next one to try.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::addr::ClusterPort;
use crate::conf::{Check, PortConf, SendProxy};

use super::balance::{Draw, Scheme};
use super::health::{self, Event, Health};
use super::load::{Limit, Load, Permit};

/// What we dial: one host:host port under one check. Shared by all pods at that address whose ports check alike, and
/// kept across reloads.
#[derive(Debug)]
pub struct Upstream {
    pub addr: SocketAddr,
    pub check: Arc<Check>,
    /// Mirrors `known`, for picks.
    up: AtomicBool,
    /// Failures are being counted: a success is worth the lock.
    is_doubtful: AtomicBool,
    known: Mutex<Known>,
    probing: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Known {
    health: Health,
    last: Option<Verdict>,
    /// When it last took a connection and did not answer in time.
    silent_at: Option<Instant>,
}

/// The last failure, or the last check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    pub at: Instant,
    /// `None`: the check passed.
    pub error: Option<Box<str>>,
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
    /// One of which dials alone tell.
    pub fn new(addr: SocketAddr) -> Self {
        static PASSIVE: LazyLock<Arc<Check>> = LazyLock::new(|| Arc::new(health::passive()));
        Self::under(addr, Arc::clone(&PASSIVE), None)
    }

    /// One under this check; what is known of it under another check holds on.
    pub fn under(addr: SocketAddr, check: Arc<Check>, before: Option<&Self>) -> Self {
        let mut known = before
            .map(|before| before.known().clone())
            .unwrap_or_default();
        known.health = known.health.with_next(None);
        Self {
            addr,
            check,
            up: AtomicBool::new(known.health.is_up()),
            is_doubtful: AtomicBool::new(known.health.is_doubtful()),
            known: Mutex::new(known),
            probing: AtomicBool::new(false),
        }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    pub fn health(&self) -> Health {
        self.known().health
    }

    /// The last failure, or the last check; `None` before there was one.
    pub fn last(&self) -> Option<Verdict> {
        self.known().last.clone()
    }

    /// Whether it has been silent, and no more from `began` on: what it answered on a connection that is as new is news.
    pub fn was_silent_before(&self, began: Instant) -> bool {
        if self.is_up() && !self.is_doubtful.load(Relaxed) {
            return false;
        }
        self.known().silent_at.is_some_and(|at| at < began)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while a probe is under way.
    pub fn begin_probe(self: &Arc<Self>) -> Option<Probe> {
        (!self.probing.swap(true, Relaxed)).then(|| Probe(Arc::clone(self)))
    }

    /// Plans the next check of one that is up, or none.
    pub fn plan_check(&self, at: Option<Instant>) {
        let mut known = self.known();
        known.health = known.health.with_next(at);
    }

    /// Notes what happened, and `error`, why it did; true when the upstream went up or down by it. `bits` as for
    /// [`Health::after`].
    pub fn note(
        &self,
        event: Event,
        error: Option<&dyn fmt::Display>,
        bits: u64,
        now: Instant,
    ) -> bool {
        let of_client = matches!(event, Event::Dialled | Event::Served);
        if of_client && self.is_up() && !self.is_doubtful.load(Relaxed) {
            return false;
        }
        let mut known = self.known();
        known.health = known.health.after(event, &self.check, bits, now);
        if event == Event::Silent {
            known.silent_at = Some(now);
        }
        if event == Event::Passed || error.is_some() {
            let error = error.map(|error| error.to_string().into_boxed_str());
            known.last = Some(Verdict { at: now, error });
        }
        self.is_doubtful.store(known.health.is_doubtful(), Relaxed);
        let up = known.health.is_up();
        self.up.swap(up, Relaxed) != up
    }

    /// Notes whether a connection could be made; true when the upstream went up or down by it.
    pub fn report(&self, connected: bool, now: Instant) -> bool {
        let event = if connected {
            Event::Dialled
        } else {
            Event::NotDialled
        };
        self.note(event, None, 0, now)
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
