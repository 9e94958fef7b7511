//! Where a client's connection goes next: to a pod of this host, to another host, or nowhere.
//!
//! Hosts share out their own clients' connections in proportion to pods: this host is one group of pods, each other host
//! is one, and a group is taken by its number of pods and by what we sent there already. Which pod it is within a group
//! is up to that group's host.

mod plausible;

use std::sync::Arc;
use std::time::Instant;

use crate::conf::{Locality, PortConf};

use super::balance::{self, Draw, weighted};
use super::directory::view::Told;
use super::last_resort::Turn;
use super::load::Permit;
use super::peers::{Answers, Peer, Peers, Share, Standing};
use super::service::{Asker, Exhausted, Pod, Service, Tried};

/// Most hosts that one connection tries although they are silent or down: each may cost it a wait.
const MAX_DOUBTS: u8 = 3;

/// One connection's way through the candidates.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of one connection that do not depend on each other"
)]
pub struct Search<'t> {
    service: Option<Service<'t>>,
    peers: &'t Peers,
    answers: Arc<Answers>,
    /// What the directory says of the port.
    told: Option<Arc<Told>>,
    conf: &'t PortConf,
    /// What the other hosts know this one by.
    identity: u64,
    asker: Asker,
    tried: Tried,
    /// By host: asked already.
    called: Vec<bool>,
    /// No pod of this host is left to try.
    here_over: bool,
    /// How it ends if nobody is left.
    over: Over,
    /// Hosts of which nothing is known are worth a try: there was time to ask them.
    waited: bool,
    /// Hosts that were asked although they are silent or down.
    doubts: u8,
    /// When no other candidate was left but those.
    last_since: Option<Instant>,
    /// The pods that are down were tried.
    last_pods: bool,
    /// For show: takes no turns.
    is_dry: bool,
}

/// A candidate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Choice {
    /// The pod of this number.
    Pod(usize),
    /// The host of this number.
    Peer(usize),
    /// None before hosts have answered that were asked for their pods.
    Await,
    /// The pods of this host that are down.
    LastPods,
    /// None before this instant, unless a host or pod is up earlier: other connections dial those that are down.
    Hold(Instant),
    Over(Over),
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
    /// Dial the pods of this host that are down.
    LastPods(Share),
    /// Ask again at this instant, or as soon as a host or pod is up.
    Hold(Instant),
    Over(Over),
}

impl From<Exhausted> for Over {
    fn from(none: Exhausted) -> Self {
        match none {
            Exhausted::Full => Self::Busy,
            Exhausted::Tried => Self::NoUpstream,
        }
    }
}

/// Why there is nobody left; a later one says more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Over {
    /// Nobody serves the port.
    NotMapped,
    /// Somebody serves the port, or may, and could not be reached.
    NoUpstream,
    /// All source ports towards it are taken.
    SourcePorts,
    /// A pod here is a port that this proxy serves.
    Loop,
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
        asker: Asker,
    ) -> Self {
        Self {
            service,
            called: vec![false; peers.list().len()],
            peers,
            told: answers.told(),
            answers,
            conf,
            identity,
            asker,
            tried: Tried::default(),
            here_over: service.is_none(),
            over: Over::NotMapped,
            waited: false,
            doubts: 0,
            last_since: None,
            last_pods: false,
            is_dry: false,
        }
    }

    /// The same, without a trace.
    #[must_use]
    pub fn dry(mut self) -> Self {
        self.is_dry = true;
        self
    }

    /// The hosts whose answer is missing or old, of those that count their pods: they are to be asked now.
    pub fn questions(&self, now: Instant) -> Vec<usize> {
        if !self.answers.begin_look(now) {
            return Vec::new();
        }
        let worth_it = |(at, peer): &(usize, &Arc<Peer>)| {
            peer.is_up() && !self.peers.is_plain(peer, now) && !self.is_told(*at)
        };
        let peers = self.peers.list().iter().enumerate().filter(worth_it);
        peers
            .map(|(at, _)| at)
            .filter(|at| self.answers.begin_question(*at, now))
            .collect()
    }

    fn standing(&self, host: usize, now: Instant) -> Standing {
        self.answers.standing_by(self.told.as_deref(), host, now)
    }

    /// Whether a host says by itself what it serves.
    fn is_told(&self, host: usize) -> bool {
        let said = self.told.as_ref().and_then(|told| told.of(host));
        said.is_some_and(|said| said.is_sure)
    }

    /// There was time to answer: from now on hosts that did not are candidates.
    pub fn stop_waiting(&mut self) {
        self.waited = true;
    }

    /// Takes note of what became of a candidate.
    pub fn note(&mut self, over: Over) {
        self.over = self.over.max(over);
    }

    /// The next candidate, with what it takes to use it. Without `pods` only among other hosts: a dial of a pod is under
    /// way.
    pub fn next(&mut self, pods: bool, random: u64, now: Instant) -> Step<'t> {
        loop {
            return match (self.choose(pods, random, now), self.service) {
                (Choice::Pod(pod), Some(service)) => {
                    let Some(permit) = service.admit(pod) else {
                        // Filled up meanwhile.
                        self.tried.remove(pod);
                        continue;
                    };
                    Step::Pod(&service.pods[pod], permit, self.answers.share(None))
                }
                (Choice::Pod(_), None) => Step::Over(self.over),
                (Choice::Peer(peer), _) => Step::Peer(peer, self.answers.share(Some(peer))),
                (Choice::Await, _) => Step::Await,
                (Choice::LastPods, _) => Step::LastPods(self.answers.share(None)),
                (Choice::Hold(until), _) => Step::Hold(until),
                (Choice::Over(over), _) => Step::Over(over),
            };
        }
    }

    /// The next candidate, which counts as tried from now on.
    pub fn choose(&mut self, pods: bool, random: u64, now: Instant) -> Choice {
        if let Some(kept) = self.kept(pods, now) {
            return kept;
        }
        loop {
            let (weights, unanswered) = self.weigh(pods, now);
            let here_first = self.conf.locality == Locality::Prefer && weights[0] > 0;
            let group = if here_first {
                Some(0)
            } else {
                self.pick(&weights, random)
            };
            match group {
                Some(0) => match self.pick_pod(random, now) {
                    Some(pod) => return Choice::Pod(pod),
                    // Filled up meanwhile.
                    None => continue,
                },
                Some(group) => return self.call(group - 1),
                None => {}
            }
            if unanswered && !self.waited {
                return Choice::Await;
            }
            return self.last_resort(pods, random, now);
        }
    }

    /// Where the client was last, if that can take it; asked once.
    fn kept(&mut self, pods: bool, now: Instant) -> Option<Choice> {
        let kept = self.asker.kept.take()?;
        if let Some(service) = self.service.filter(|_| pods)
            && let Some(pod) = service.open_at(kept, &self.tried)
        {
            self.tried.add(pod);
            return Some(Choice::Pod(pod));
        }
        let at = self
            .peers
            .list()
            .iter()
            .position(|peer| peer.addr() == kept && peer.is_up())?;
        let may_serve = matches!(
            self.standing(at, now),
            Standing::Serves(_) | Standing::Unknown
        );
        (may_serve && !self.called[at]).then(|| self.call(at))
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
                match self.standing(at, now) {
                    Standing::Serves(pods) => u32::from(pods),
                    Standing::Busy => {
                        self.note(Over::Busy);
                        0
                    }
                    Standing::Silent => 0,
                    Standing::NotHere => {
                        // A pod may just have come.
                        unanswered |= self.answers.is_doubtful(at, now)
                            && !self.peers.is_plain(peer, now)
                            && !self.is_told(at);
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
        if let Some(capped) = plausible::cap(&mut weights)
            && !self.is_dry
        {
            let (claimed, counted) = (capped.claimed, capped.counted);
            self.peers.note_capped(capped.group - 1, claimed, counted);
        }
        (weights, unanswered)
    }

    /// Pods that count of each host, by its number.
    pub fn counted(mut self, now: Instant) -> Vec<u32> {
        self.is_dry = true;
        let (mut weights, _) = self.weigh(true, now);
        weights.remove(0);
        weights
    }

    fn pick(&self, weights: &[u32], random: u64) -> Option<usize> {
        let draw = Draw {
            // Bits that the pick among pods does not use.
            random: random.rotate_left(16),
            turn: if self.is_dry {
                self.answers.turn()
            } else {
                self.answers.next_turn()
            },
            key: self.asker.key,
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

    /// A pod of this host.
    fn pick_pod(&mut self, random: u64, now: Instant) -> Option<usize> {
        let service = self.service.filter(|_| !self.here_over)?;
        let turn = if self.is_dry {
            service.turn()
        } else {
            service.next_turn()
        };
        let picked = service.pick(self.asker, random, turn, now, &self.tried);
        if let Some(pod) = picked {
            self.tried.add(pod);
        } else {
            self.here_over = true;
            self.note(service.exhausted(&self.tried).into());
        }
        picked
    }

    fn call(&mut self, peer: usize) -> Choice {
        self.called[peer] = true;
        Choice::Peer(peer)
    }

    /// What is silent or down is tried all the same, for what is remembered of it may be old.
    fn last_resort(&mut self, pods: bool, random: u64, now: Instant) -> Choice {
        if pods && let Some(pod) = self.pick_pod(random, now) {
            return Choice::Pod(pod);
        }
        let is_silent = |at: &usize| {
            let is_silent = self.standing(*at, now) == Standing::Silent;
            is_silent && self.peers.list()[*at].is_up() && !self.called[*at]
        };
        if self.doubts < MAX_DOUBTS
            && let Some(at) = (0..self.called.len()).find(is_silent)
        {
            self.doubts += 1;
            return self.call(at);
        }
        let came = *self.last_since.get_or_insert(now);
        if pods && !self.last_pods && self.has_last_pods(random) {
            self.last_pods = true;
            return Choice::LastPods;
        }
        if let Some(choice) = self.last_host(random, came, now) {
            return choice;
        }
        // A host that is away may have had it.
        let is_away = |(at, peer): (usize, &Arc<Peer>)| !peer.is_up() && !self.is_told(at);
        if self.peers.list().iter().enumerate().any(is_away) {
            self.note(Over::NoUpstream);
        }
        Choice::Over(self.over)
    }

    fn has_last_pods(&self, random: u64) -> bool {
        self.service.is_some_and(|service| {
            service
                .last_pods(first(random), &self.tried)
                .next()
                .is_some()
        })
    }

    /// One of the hosts that are down, those first that served the port.
    fn last_host(&mut self, random: u64, came: Instant, now: Instant) -> Option<Choice> {
        let count = self.called.len();
        let mut wait: Option<Instant> = None;
        for served in [true, false] {
            for step in 0..count {
                if self.doubts >= MAX_DOUBTS {
                    return None;
                }
                let at = (first(random) % count + step) % count;
                let peer = &self.peers.list()[at];
                let standing = self.standing(at, now);
                let has_served = matches!(standing, Standing::Serves(_));
                // Not what it answered: that was before it was down.
                let is_no = standing == Standing::NotHere && self.is_told(at);
                if has_served != served || is_no || peer.is_up() || self.called[at] {
                    continue;
                }
                let turn = if self.is_dry {
                    Turn::Dial
                } else {
                    peer.upstream.last_turn(came, now)
                };
                match turn {
                    Turn::Dial => {
                        self.doubts += 1;
                        return Some(self.call(at));
                    }
                    Turn::Wait(until) => wait = Some(wait.map_or(until, |wait| wait.min(until))),
                    Turn::Failed => {
                        self.doubts += 1;
                        self.called[at] = true;
                        self.note(Over::NoUpstream);
                    }
                }
            }
        }
        wait.map(Choice::Hold)
    }
}

/// Where a look at what is down begins: not always at the same one.
pub fn first(random: u64) -> usize {
    usize::try_from(random >> 40).unwrap_or(0)
}

#[cfg(test)]
mod tests;
