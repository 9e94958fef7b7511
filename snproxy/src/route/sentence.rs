//! What becomes of the connections of pods that are gone: a sentence on all of a pod's, which each of them looks up when
//! it is called.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conf::Fate;

use super::Table;
use super::load::Load;
use super::service::{Pod, Service};

/// That the connections of a pod are to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sentence {
    pub cause: Cause,
    pub passed: Instant,
    /// In which they may end by themselves; those that are left are cut spread over its last quarter.
    pub grace: Duration,
}

/// Why they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The pod was taken out of the files.
    Removed,
    /// It is down.
    Down,
}

impl Sentence {
    /// Whether it is about a connection to the pod that was made at `made`.
    pub fn is_about(&self, made: Instant) -> bool {
        // One that was made to a pod that is down knows better.
        self.cause == Cause::Removed || made < self.passed
    }

    /// When one connection is cut; `random` bits choose its turn.
    pub fn turn(&self, random: u64) -> Instant {
        let spread = u64::try_from((self.grace / 4).as_nanos()).unwrap_or(u64::MAX);
        let late = (u128::from(random) * u128::from(spread)) >> 64;
        let late = Duration::from_nanos(u64::try_from(late).unwrap_or(spread));
        self.passed + self.grace.saturating_sub(self.grace / 4) + late
    }
}

/// Whom new sentences are about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sentenced {
    pub pods: usize,
    pub connections: u64,
}

impl Sentenced {
    fn pass(&mut self, load: &Load, cause: Cause, fate: Fate, now: Instant) {
        let grace = match fate {
            Fate::Keep => return,
            Fate::Drain(grace) => grace,
            Fate::Reset => Duration::ZERO,
        };
        load.sentence_to(Some(Sentence {
            cause,
            passed: now,
            grace,
        }));
        self.pods += 1;
        self.connections += u64::from(load.active());
    }
}

/// Sentences the pods that `old` has and `new` has not, as `old` says of their ports; those that came back live on.
pub fn pass_on_removed(old: &Table, new: &Table, now: Instant) -> Sentenced {
    for (_, pod) in pods(new) {
        take_back(&pod.load, Cause::Removed);
    }
    let mut sentenced = Sentenced::default();
    if old
        .conf
        .ports
        .kinds()
        .all(|(_, conf)| conf.on_remove == Fate::Keep)
    {
        return sentenced;
    }
    let stay: HashSet<*const Load> = pods(new).map(|(_, pod)| Arc::as_ptr(&pod.load)).collect();
    for (service, pod) in pods(old) {
        if !stay.contains(&Arc::as_ptr(&pod.load)) {
            sentenced.pass(&pod.load, Cause::Removed, service.conf.on_remove, now);
        }
    }
    sentenced
}

/// Sentences the pods that are down and were not yet; those that came back live on.
pub fn pass_on_down(table: &Table, now: Instant) -> Sentenced {
    let mut sentenced = Sentenced::default();
    for (service, pod) in pods(table) {
        let fate = service.conf.on_down;
        if pod.upstream.is_up() || fate == Fate::Keep {
            take_back(&pod.load, Cause::Down);
        } else if pod.load.sentence().is_none() {
            sentenced.pass(&pod.load, Cause::Down, fate, now);
        }
    }
    sentenced
}

/// Each pod once: the targets of an app are all of its ports', and judged as its first port is.
fn pods(table: &Table) -> impl Iterator<Item = (Service<'_>, &Pod)> {
    let is_first = |service: &Service<'_>| {
        let port = service.port.get();
        table.leads(port)
    };
    table.services().filter(is_first).flat_map(pods_of)
}

fn pods_of(service: Service<'_>) -> impl Iterator<Item = (Service<'_>, &Pod)> {
    service.pods.iter().map(move |pod| (service, pod))
}

fn take_back(load: &Load, cause: Cause) {
    if load
        .sentence()
        .is_some_and(|sentence| sentence.cause == cause)
    {
        load.sentence_to(None);
    }
}
