//! One cluster port: its pods, and the next one to try.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;

use crate::addr::ClusterPort;
use crate::conf::{Check, PortConf, SendProxy, UpstreamTls};

use super::balance::{Draw, Scheme};
use super::dial_from::DialFrom;
use super::health::{self, Event, Health};
use super::last_resort::{Dials, Turn};
use super::load::{Limit, Load, Permit};

/// What we dial: one host:host port under one check, plain or in TLS. Shared by all pods at that address whose ports do alike, and
/// kept across reloads.
#[derive(Debug)]
pub struct Upstream {
    pub addr: SocketAddr,
    pub check: Arc<Check>,
    /// `None`: it is spoken to plain.
    pub tls: Option<Arc<Secured>>,
    /// Mirrors `known`, for picks.
    up: AtomicBool,
    /// Failures are being counted: a success is worth the lock.
    is_doubtful: AtomicBool,
    /// Its last failure was a refused connection.
    was_refused: AtomicBool,
    /// A [`Socket`].
    socket: AtomicU8,
    known: Mutex<Known>,
    probing: AtomicBool,
    pub dial_from: DialFrom,
}

/// An upstream that is spoken to in TLS.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Secured {
    pub how: Arc<UpstreamTls>,
    /// Who it has to be.
    pub name: ServerName<'static>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    health: Health,
    last: Option<Verdict>,
    /// When it last took a connection and did not answer in time.
    silent_at: Option<Instant>,
    /// Boxed: few upstreams were ever a last candidate.
    last_dials: Option<Box<Dials>>,
}

/// What the scan of listening sockets tells of an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Socket {
    /// Nothing: its address is not of this host, or there was no scan.
    Unknown,
    /// No socket listens on this address of this host.
    Missing,
    Seen,
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
        Self::under(addr, Arc::clone(&PASSIVE), None, None, None)
    }

    /// One under this check; what is known of it under another check holds on.
    ///
    /// `came`: when it did, if that is known.
    pub fn under(
        addr: SocketAddr,
        check: Arc<Check>,
        tls: Option<Arc<Secured>>,
        before: Option<&Self>,
        came: Option<Instant>,
    ) -> Self {
        let mut known = before
            .map(|before| before.known().clone())
            .unwrap_or_default();
        if let (None, Some(came)) = (before, came) {
            known.health = known.health.came(came);
        }
        known.health = known.health.with_next(None);
        Self {
            addr,
            check,
            tls,
            up: AtomicBool::new(known.health.is_up()),
            is_doubtful: AtomicBool::new(known.health.is_doubtful()),
            was_refused: AtomicBool::new(
                before.is_some_and(|before| before.was_refused.load(Relaxed)),
            ),
            socket: AtomicU8::new(before.map_or(0, |before| before.socket.load(Relaxed))),
            known: Mutex::new(known),
            probing: AtomicBool::new(false),
            dial_from: before
                .map(|before| before.dial_from.inherited())
                .unwrap_or_default(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Whether it is down, and a dial would tell nothing new: the kernel of this host refuses it, or `expect` of HEALTH
    /// says which answer brings it back.
    pub fn is_surely_down(&self) -> bool {
        let is_gone =
            || self.was_refused.load(Relaxed) && self.socket.load(Relaxed) == Socket::Missing as u8;
        !self.is_up() && (!self.check.expect.is_empty() || is_gone())
    }

    /// Notes what the scan tells; true where it tells another thing than before of one that is down.
    pub fn set_socket(&self, socket: Socket) -> bool {
        self.socket.swap(socket as u8, Relaxed) != socket as u8 && !self.is_up()
    }

    /// Whether the failure that is noted next is a refused connection.
    pub fn set_refused(&self, is_refused: bool) {
        self.was_refused.store(is_refused, Relaxed);
    }

    /// Whether a connection that came to its last candidates at `came` may dial this one, which is down.
    pub fn last_turn(&self, came: Instant, now: Instant) -> Turn {
        let mut known = self.known();
        known.last_dials.get_or_insert_default().turn(came, now)
    }

    /// A dial that began at `began` failed: connections that wait for what it finds need not dial.
    pub fn note_failed_dial(&self, began: Instant) {
        if let Some(dials) = &mut self.known().last_dials {
            dials.note_failure(began);
        }
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

    /// Takes note of one.
    pub fn add(&mut self, pod: usize) {
        self.0.push(pod);
    }

    /// It was not tried after all.
    pub fn remove(&mut self, pod: usize) {
        self.0.retain(|tried| *tried != pod);
    }
}

/// Why no pod is left to try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exhausted {
    /// Every pod that is left has `maxConn` connections.
    Full,
    /// Every pod was tried, or is known to be down.
    Tried,
}

/// A pod that is down, for a connection that has no other candidate left.
#[derive(Debug)]
pub enum LastPod<'t> {
    /// Dial this one; the place under its maxConn is taken.
    Dial(&'t Pod, Permit),
    /// Look again then, or when a pod is up.
    Wait(Instant),
    None,
}

/// Least part of its share that a pod has at once when it comes, in 1/65,536.
const FIRST_SHARE: u64 = 1 << 12;

/// Who wants a pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker {
    /// What the policies that hash know it by.
    pub key: u64,
    /// Where it was carried last, by PERSIST.
    pub kept: Option<SocketAddr>,
}

impl<'t> Service<'t> {
    /// Takes a place at the next pod by policy, and marks the pod as tried.
    ///
    /// Errors: none left; the connection ends, or waits.
    pub fn take(
        &self,
        asker: Asker,
        random: u64,
        now: Instant,
        tried: &mut Tried,
    ) -> Result<(&'t Pod, Permit), Exhausted> {
        let turn = self.next_turn();
        // A pod that fills up between pick and admit is not eligible in the next round.
        for _ in 0..=self.pods.len() {
            let Some(picked) = self.pick(asker, random, turn, now, tried) else {
                break;
            };
            let pod = &self.pods[picked];
            if let Some(permit) = self.admit(picked) {
                tried.add(picked);
                return Ok((pod, permit));
            }
        }
        Err(self.exhausted(tried))
    }

    /// A place at this pod; `None` when it is full.
    pub fn admit(&self, pod: usize) -> Option<Permit> {
        let pod = &self.pods[pod];
        pod.load.admit(self.limit(pod))
    }

    /// Why no pod is left.
    pub fn exhausted(&self, tried: &Tried) -> Exhausted {
        let is_full = |pod: usize| !tried.contains(pod) && self.standing(pod) == Standing::Full;
        if (0..self.pods.len()).any(is_full) {
            Exhausted::Full
        } else {
            Exhausted::Tried
        }
    }

    /// Picks so far.
    pub fn turn(&self) -> u32 {
        self.turn.load(Relaxed)
    }

    /// Counts a pick.
    pub fn next_turn(&self) -> u32 {
        self.turn.fetch_add(1, Relaxed)
    }

    /// The pod at this address, if it can take a connection and was not tried.
    pub fn open_at(&self, addr: SocketAddr, tried: &Tried) -> Option<usize> {
        let is_it = |pod: &usize| {
            let is_open = || self.standing(*pod) == Standing::Open && !tried.contains(*pod);
            self.pods[*pod].upstream.addr == addr && is_open()
        };
        (0..self.pods.len()).find(is_it)
    }

    /// The next pod by policy, of those that can take a connection and were not tried; `turn` counts picks.
    pub fn pick(
        &self,
        asker: Asker,
        random: u64,
        turn: u32,
        now: Instant,
        tried: &Tried,
    ) -> Option<usize> {
        let is_open = |pod: usize| self.standing(pod) == Standing::Open && !tried.contains(pod);
        let kept = asker.kept.filter(|_| tried.is_empty());
        if let Some(pod) = kept.and_then(|kept| self.open_at(kept, tried)) {
            return Some(pod);
        }
        let draw = Draw {
            random,
            turn,
            key: asker.key,
        };
        let load = |pod: usize| self.pods[pod].load.active();
        let count = self.pods.len();
        // A client that is hashed belongs to one pod, and is not sent back and forth while that one warms up.
        let slow_start = self.conf.slow_start;
        let slow_start = slow_start.filter(|_| !self.conf.balance.policy.hashes());
        let warm = slow_start.and_then(|time| {
            let is_due = |pod| is_open(pod) && self.has_its_share(pod, time, random, now);
            self.scheme.pick(count, is_due, load, draw)
        });
        warm.or_else(|| self.scheme.pick(count, is_open, load, draw))
    }

    /// The pods that are down and worth a dial all the same, beginning with that of number `first`.
    pub fn last_pods(&self, first: usize, tried: &Tried) -> impl Iterator<Item = usize> {
        let count = self.pods.len();
        (0..count)
            .map(move |step| (first % count + step) % count)
            .filter(|pod| self.standing(*pod) == Standing::Down)
            .filter(|pod| !self.pods[*pod].upstream.is_surely_down() && !tried.contains(*pod))
    }

    /// The next one of [`last_pods`](Self::last_pods) for a connection that came to its last candidates at `came`, and
    /// marks it as tried.
    pub fn last_pod(
        &self,
        first: usize,
        tried: &mut Tried,
        came: Instant,
        now: Instant,
    ) -> LastPod<'t> {
        let mut wait = None;
        let mut failed = Vec::new();
        let mut dial = None;
        for at in self.last_pods(first, tried) {
            let pod = &self.pods[at];
            match pod.upstream.last_turn(came, now) {
                Turn::Dial => {
                    failed.push(at);
                    if let Some(permit) = self.admit(at) {
                        dial = Some(LastPod::Dial(pod, permit));
                        break;
                    }
                }
                Turn::Wait(until) => {
                    wait = Some(wait.map_or(until, |wait: Instant| wait.min(until)));
                }
                Turn::Failed => failed.push(at),
            }
        }
        failed.into_iter().for_each(|at| tried.add(at));
        dial.or(wait.map(LastPod::Wait)).unwrap_or(LastPod::None)
    }

    /// Whether a pod that came lately may be picked this time: as often as it has been there of `time`.
    fn has_its_share(&self, pod: usize, time: Duration, random: u64, now: Instant) -> bool {
        let Some(came) = self.pods[pod].upstream.health().since() else {
            return true;
        };
        let age = now.saturating_duration_since(came);
        if age >= time {
            return true;
        }
        let part = (age.as_nanos() << 16) / time.as_nanos();
        let share = u64::try_from(part).unwrap_or(u64::MAX).max(FIRST_SHARE);
        // Other bits for each pod.
        let salt = (pod as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (random ^ salt).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 48 < share
    }

    /// What speaks against a new connection to a pod.
    pub fn standing(&self, pod: usize) -> Standing {
        let pod = &self.pods[pod];
        if pod.weight == 0 {
            Standing::Weightless
        } else if !pod.upstream.is_up() {
            Standing::Down
        } else if !pod.load.has_room(self.limit(pod)) {
            Standing::Full
        } else {
            Standing::Open
        }
    }

    /// How many pods have a place, of those that are up and not tried.
    pub fn room(&self, tried: &Tried) -> u32 {
        let is_open = |pod: &usize| self.standing(*pod) == Standing::Open && !tried.contains(*pod);
        let pods = (0..self.pods.len()).filter(is_open).count();
        u32::try_from(pods).unwrap_or(u32::MAX)
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

    /// Whether a dial may find that a pod is back.
    pub fn may_be_back(&self) -> bool {
        self.pods
            .iter()
            .any(|pod| pod.weight > 0 && !pod.upstream.is_up() && !pod.upstream.is_surely_down())
    }
}

/// Whether a pod takes new connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    Open,
    Full,
    Down,
    Weightless,
}

#[cfg(test)]
mod tests;
