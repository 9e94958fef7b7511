//! Where a client's connection goes next: to a pod of this host, to another host, or nowhere.
//!
//! Hosts share out their own clients' connections in proportion to pods: this host is one group of pods, each other host
//! is one, and a group is taken by its number of pods and by what we sent there already. Which pod it is within a group
//! is up to that group's host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conf::{Locality, PortConf};

use super::balance::{self, Draw, weighted};
use super::load::Permit;
use super::peers::{Answers, Peer, Peers, Share, Standing};
use super::service::{Exhausted, Pod, Service, Tried};

/// How long a host that failed once may still be tried where nobody else is left: it may just be slow.
const DOUBT: Duration = Duration::from_secs(3);
/// Most such hosts that one connection tries: each may cost it a wait.
const MAX_DOUBTS: u8 = 3;

/// One connection's way through the candidates.
pub struct Search<'t> {
    service: Option<Service<'t>>,
    peers: &'t Peers,
    answers: Arc<Answers>,
    conf: &'t PortConf,
    /// What the other hosts know this one by.
    identity: u64,
    /// Of the client.
    key: u64,
    tried: Tried,
    /// By host: asked already.
    called: Vec<bool>,
    /// No pod of this host is left to try.
    here_over: bool,
    /// How it ends if nobody is left.
    over: Over,
    /// Hosts of which nothing is known are worth a try: there was time to ask them.
    waited: bool,
    /// Hosts that were asked although they are known to be away.
    doubts: u8,
}

/// What to do next.
#[derive(Debug)]
pub enum Step<'t> {
    /// Dial this pod; the place under its maxConn is taken.
    Pod(&'t Pod, Permit, Share),
    /// Ask this host.
    Peer(usize, Share),
    /// Wait for what hosts answer that were asked for their pods.
    Await,
    Over(Over),
}

/// Why there is nobody left; a later one says more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Over {
    /// Nobody serves the port.
    NotMapped,
    /// Somebody serves the port, or may, and could not be reached.
    NoUpstream,
    /// Somebody serves the port and has no place.
    Busy,
}

impl<'t> Search<'t> {
    pub fn new(
        service: Option<Service<'t>>,
        peers: &'t Peers,
        answers: Arc<Answers>,
        conf: &'t PortConf,
        identity: u64,
        key: u64,
    ) -> Self {
        Self {
            service,
            called: vec![false; peers.list().len()],
            peers,
            answers,
            conf,
            identity,
            key,
            tried: Tried::default(),
            here_over: service.is_none(),
            over: Over::NotMapped,
            waited: false,
            doubts: 0,
        }
    }

    /// The hosts whose answer is missing or old, of those that count their pods: they are to be asked now.
    pub fn questions(&self, now: Instant) -> Vec<usize> {
        if !self.answers.begin_look(now) {
            return Vec::new();
        }
        let worth_it =
            |(_, peer): &(usize, &Arc<Peer>)| peer.is_up() && !self.peers.is_plain(peer, now);
        let peers = self.peers.list().iter().enumerate().filter(worth_it);
        peers
            .map(|(at, _)| at)
            .filter(|at| self.answers.begin_question(*at, now))
            .collect()
    }

    /// There was time to answer: from now on hosts that did not are candidates.
    pub fn stop_waiting(&mut self) {
        self.waited = true;
    }

    /// Takes note of what became of a candidate.
    pub fn note(&mut self, over: Over) {
        self.over = self.over.max(over);
    }

    /// The next candidate. Without `pods` only among other hosts: a dial of a pod is under way.
    pub fn next(&mut self, pods: bool, random: u64, now: Instant) -> Step<'t> {
        loop {
            let (weights, unanswered) = self.weigh(pods, now);
            let here_first = self.conf.locality == Locality::Prefer && weights[0] > 0;
            let group = if here_first {
                Some(0)
            } else {
                self.pick(&weights, random)
            };
            match group {
                Some(0) => match self.take(random) {
                    Some(step) => return step,
                    // Filled up meanwhile.
                    None => continue,
                },
                Some(group) => return self.call(group - 1),
                None => {}
            }
            if unanswered && !self.waited {
                return Step::Await;
            }
            return self.last_resort(pods, random, now);
        }
    }

    /// Weights of this host and of the others; and whether an answer is still missing.
    fn weigh(&mut self, pods: bool, now: Instant) -> (Vec<u32>, bool) {
        let here = self
            .service
            .filter(|_| pods && !self.here_over)
            .map_or(0, |service| service.room(&self.tried));
        let mut weights = Vec::with_capacity(self.called.len() + 1);
        weights.push(here);
        let mut unanswered = false;
        for (at, peer) in self.peers.list().iter().enumerate() {
            let weight = if self.called[at] || !peer.is_up() {
                0
            } else {
                match self.answers.standing(at, now) {
                    Standing::Serves(pods) => u32::from(pods),
                    Standing::Busy => {
                        self.note(Over::Busy);
                        0
                    }
                    Standing::Silent => 0,
                    Standing::NotHere => {
                        // A pod may just have come.
                        unanswered |=
                            self.answers.is_doubtful(at, now) && !self.peers.is_plain(peer, now);
                        0
                    }
                    Standing::Unknown if self.waited || self.peers.is_plain(peer, now) => 1,
                    Standing::Unknown => {
                        unanswered = true;
                        0
                    }
                }
            };
            weights.push(weight);
        }
        (weights, unanswered)
    }

    fn pick(&self, weights: &[u32], random: u64) -> Option<usize> {
        let draw = Draw {
            // Bits that the pick among pods does not use.
            random: random.rotate_left(16),
            turn: self.answers.next_turn(),
            key: self.key,
        };
        let identity = |group: usize| match group.checked_sub(1).map(|at| &self.peers.list()[at]) {
            Some(peer) => balance::name(&peer.name, peer.upstream.addr.port()),
            None => self.identity,
        };
        weighted::pick(
            self.conf.balance.policy,
            weights,
            identity,
            |group| self.answers.live(group.checked_sub(1)),
            draw,
        )
    }

    /// A place at a pod of this host.
    fn take(&mut self, random: u64) -> Option<Step<'t>> {
        let service = self.service.filter(|_| !self.here_over)?;
        match service.take(random, self.key, &mut self.tried) {
            Ok((pod, permit)) => Some(Step::Pod(pod, permit, self.answers.share(None))),
            Err(none) => {
                self.here_over = true;
                self.note(match none {
                    Exhausted::Full => Over::Busy,
                    Exhausted::Tried => Over::NoUpstream,
                });
                None
            }
        }
    }

    fn call(&mut self, peer: usize) -> Step<'t> {
        self.called[peer] = true;
        Step::Peer(peer, self.answers.share(Some(peer)))
    }

    /// Pods known to be down, then some hosts that were slow, or failed but served the port, or failed only just now: the
    /// knowledge may be old.
    fn last_resort(&mut self, pods: bool, random: u64, now: Instant) -> Step<'t> {
        if pods && let Some(step) = self.take(random) {
            return step;
        }
        if self.doubts < MAX_DOUBTS {
            let slow = |at: &usize| {
                let is_silent = self.answers.standing(*at, now) == Standing::Silent;
                is_silent && self.peers.list()[*at].is_up()
            };
            let served = |at: &usize| {
                let standing = self.answers.standing(*at, now);
                matches!(standing, Standing::Serves(_)) && !self.peers.list()[*at].is_up()
            };
            let new = |at: &usize| {
                let health = self.peers.list()[*at].upstream.health();
                health.failed_within(DOUBT, now)
            };
            let hosts = (0..self.called.len()).filter(|at| !self.called[*at]);
            let doubtful = hosts
                .clone()
                .find(slow)
                .or_else(|| hosts.clone().find(served))
                .or_else(|| hosts.clone().find(new));
            if let Some(at) = doubtful {
                self.doubts += 1;
                return self.call(at);
            }
        }
        // Whoever is away may have had it.
        if self.peers.list().iter().any(|peer| !peer.is_up()) {
            self.note(Over::NoUpstream);
        }
        Step::Over(self.over)
    }
}

#[cfg(test)]
mod tests;
