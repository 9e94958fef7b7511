//! One cluster port: its pods, and the next one to try.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::addr::ClusterPort;
use crate::conf::{PortConf, SendProxy};

use super::balance::{Draw, Scheme};
use super::last_resort::Turn;
use super::load::{Limit, Load, Permit};
use super::silence::{self, Source};

pub use super::upstream::{Probe, Secured, Socket, Upstream, Verdict};

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
        let load = |pod: usize| self.pods[pod].load.working();
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
        for at in failed {
            tried.add(at);
        }
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

    /// Whether `upstream` may go down by a client from `source` that it did not answer.
    pub fn may_eject(&self, upstream: &Upstream, source: Source) -> bool {
        let others = || {
            let pods = self.pods.iter().filter(|pod| pod.weight > 0);
            pods.map(|pod| &*pod.upstream)
                .filter(|other| !std::ptr::eq(*other, upstream))
        };
        let down = others().filter(|other| !other.is_up()).count();
        silence::may_eject(others().count() + 1, down, self.conf.eject_max)
            && !others().any(|other| other.is_down_for(source))
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
