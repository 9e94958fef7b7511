//! The other hosts: whether their proxies are reached, and what each of them answered for each port.
//!
//! Answers age: one is true for a while, then nothing is known. A changed hosts.conf forgets all of them.

mod answers;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::directory::view::View;
use super::service::Upstream;

use answers::millis;

pub use answers::{Answer, Answers, Remembered, Share, Standing};

/// How long a proxy that does not count its pods is not asked to.
const PLAIN_FOR: Duration = Duration::from_mins(1);
/// How long a host that drained and does not come back is shown as one that drains.
const DRAIN_SHOWN: Duration = Duration::from_mins(5);
/// Answers that are remembered (24 bytes each): 65,536 ports of four other hosts, or 2,600 ports of a hundred.
const MAX_CELLS: usize = 1 << 18;

/// Another host's proxy.
#[derive(Debug)]
pub struct Peer {
    pub name: Box<str>,
    /// Where it is dialled, and whether it answers.
    pub upstream: Arc<Upstream>,
    /// Until when it is not asked for its pods, in milliseconds of [`Peers`]: it does not count them.
    plain_until: AtomicU64,
    /// It drains: it gets no new connections. As long-lived as `upstream`.
    draining: Arc<AtomicBool>,
}

/// A host that claimed more pods of a port than is plausible beside the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CappedClaim {
    /// Number of the host.
    pub host: usize,
    pub claimed: u16,
    /// Of these so many count.
    pub counted: u16,
}

/// The other hosts in the order of hosts.conf, and their answers.
pub struct Peers {
    list: Box<[Arc<Peer>]>,
    start: Instant,
    /// By cluster port; made when first asked for. Read by every connection, so without a lock.
    answers: Box<[ArcSwapOption<Answers>]>,
    count: AtomicUsize,
    /// What they publish; `None`: no directory was read.
    view: ArcSwapOption<View>,
    /// A claim of pods that was too high, packed: see [`CappedClaim`]; 0: none.
    capped: AtomicU64,
    /// Addresses of all hosts that may call, sorted: also where the list is empty.
    ips: Box<[IpAddr]>,
}

impl Peers {
    /// The hosts of `list`, and who may call; where these are the same of `old`, that is `old` itself with all that it
    /// remembers.
    pub fn build<'h>(
        list: impl Iterator<Item = (&'h str, SocketAddr)>,
        ips: Vec<IpAddr>,
        old: Option<&Arc<Self>>,
        now: Instant,
    ) -> Arc<Self> {
        let list: Vec<_> = list.collect();
        let same = |old: &&Arc<Self>| {
            let old = old.list.iter().map(|peer| (&*peer.name, peer.addr()));
            old.eq(list.iter().copied())
        };
        let ips = sorted(ips);
        if let Some(old) = old.filter(|old| old.ips == ips).filter(same) {
            return Arc::clone(old);
        }
        let known = old.iter().flat_map(|old| &old.list);
        let known: HashMap<_, _> = known.map(|peer| (peer.addr(), peer)).collect();
        let list: Box<[_]> = list
            .iter()
            .map(|(name, addr)| {
                // Whether a host is reached, and drains, stays known: that is not in the file.
                let known = known.get(addr);
                Arc::new(Peer {
                    name: (*name).into(),
                    upstream: known.map_or_else(
                        || Arc::new(Upstream::new(*addr)),
                        |peer| Arc::clone(&peer.upstream),
                    ),
                    draining: known
                        .map(|peer| Arc::clone(&peer.draining))
                        .unwrap_or_default(),
                    plain_until: AtomicU64::new(0),
                })
            })
            .collect();
        let ports = if list.is_empty() { 0 } else { 65_536 };
        Arc::new(Self {
            list,
            view: ArcSwapOption::empty(),
            capped: AtomicU64::new(0),
            ips,
            start: now,
            answers: (0..ports).map(|_| ArcSwapOption::empty()).collect(),
            count: AtomicUsize::new(0),
        })
    }

    pub fn list(&self) -> &[Arc<Peer>] {
        &self.list
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The answers for a port; `None` without other hosts.
    pub fn answers(&self, port: u16, now: Instant) -> Option<Arc<Answers>> {
        let slot = self.answers.get(usize::from(port))?;
        let now = self.at(now);
        let answers = slot.load_full().unwrap_or_else(|| {
            if self.count.load(Relaxed) >= MAX_CELLS / self.list.len() {
                self.forget_oldest();
            }
            let new = Arc::new(Answers::new(self.list.len(), self.start, now));
            let before = slot.compare_and_swap(&None::<Arc<Answers>>, Some(Arc::clone(&new)));
            if let Some(answers) = &*before {
                return Arc::clone(answers);
            }
            self.count.fetch_add(1, Relaxed);
            new
        });
        answers.used_at(now);
        self.tell(port, &answers);
        Some(answers)
    }

    /// The answers for a port that are remembered; none is made, and none becomes younger by it.
    pub fn answers_as_they_are(&self, port: u16) -> Option<Arc<Answers>> {
        let answers = self.answers.get(usize::from(port))?.load_full()?;
        self.tell(port, &answers);
        Some(answers)
    }

    /// Enters what the directory says by now.
    fn tell(&self, port: u16, answers: &Answers) {
        if let Some(view) = &*self.view.load() {
            answers.tell(|old| view.told(port, old));
        }
    }

    /// From now on the directory says this of the hosts of this list.
    pub fn set_view(&self, view: Option<Arc<View>>) {
        let is_off = view.is_none();
        self.view.store(view);
        if is_off {
            for answers in self.answers.iter().filter_map(ArcSwapOption::load_full) {
                answers.forget_told();
            }
        }
    }

    pub fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Whether another host may serve a port, as far as is known.
    pub fn may_serve(&self, port: u16) -> bool {
        match &*self.view.load() {
            Some(view) if view.is_complete => view.serves(port),
            _ => !self.list.is_empty(),
        }
    }

    /// Whether those that may call are at these addresses.
    pub fn are_at(&self, ips: Vec<IpAddr>) -> bool {
        self.ips == sorted(ips)
    }

    /// Whether one of the hosts is at this address.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.ips.binary_search(&ip.to_canonical()).is_ok()
    }

    /// The number of the host that is dialled there.
    pub fn number(&self, addr: SocketAddr) -> Option<usize> {
        self.list.iter().position(|peer| peer.addr() == addr)
    }

    /// Ports with answers, ascending.
    pub fn remembered(&self) -> impl Iterator<Item = (u16, Arc<Answers>)> + '_ {
        let answers = (0..=u16::MAX).zip(&self.answers);
        answers.filter_map(|(port, slot)| Some((port, slot.load_full()?)))
    }

    /// Drops the quarter of the answers that was not used for longest. Their live connections keep their own.
    fn forget_oldest(&self) {
        let mut used: Vec<u64> = self
            .remembered()
            .map(|(_, answers)| answers.last_used())
            .collect();
        if used.is_empty() {
            return;
        }
        let quarter = used.len() / 4;
        let (_, oldest, _) = used.select_nth_unstable(quarter);
        for slot in &self.answers {
            let old = slot
                .load()
                .as_ref()
                .is_some_and(|answers| answers.last_used() <= *oldest);
            if old && slot.swap(None).is_some() {
                self.count.fetch_sub(1, Relaxed);
            }
        }
    }

    /// Takes note of a claim that was too high, for the log.
    pub fn note_capped(&self, host: usize, claimed: u32, counted: u32) {
        let word = |number: u32| u64::from(number.min(0xffff));
        let host = u32::try_from(host).unwrap_or(u32::MAX);
        let packed = 1 << 48 | word(host) << 32 | word(claimed) << 16 | word(counted);
        if self.capped.load(Relaxed) != packed {
            self.capped.store(packed, Relaxed);
        }
    }

    /// The last claim that was too high, once.
    pub fn take_capped(&self) -> Option<CappedClaim> {
        if self.capped.load(Relaxed) == 0 {
            return None;
        }
        let packed = self.capped.swap(0, Relaxed);
        let word = |shift: u32| u16::try_from(packed >> shift & 0xffff).unwrap_or(u16::MAX);
        (packed != 0).then(|| CappedClaim {
            host: word(32).into(),
            claimed: word(16),
            counted: word(0),
        })
    }

    fn at(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.start))
    }

    /// Notes that a host does not count its pods: for a minute it is asked for none.
    pub fn note_plain(&self, peer: &Peer, now: Instant) {
        let until = self.at(now) + millis(PLAIN_FOR);
        peer.plain_until.store(until, Relaxed);
    }

    /// Whether a host is known not to count its pods.
    pub fn is_plain(&self, peer: &Peer, now: Instant) -> bool {
        peer.plain_until.load(Relaxed) > self.at(now)
    }
}

fn sorted(mut ips: Vec<IpAddr>) -> Box<[IpAddr]> {
    ips.sort_unstable();
    ips.dedup();
    ips.into()
}

impl Peer {
    pub fn addr(&self) -> SocketAddr {
        self.upstream.addr
    }

    /// Whether it gets new connections: its proxy answers, and does not drain.
    pub fn is_up(&self) -> bool {
        self.upstream.is_up() && !self.is_draining()
    }

    /// Whether its last notice is of a drain; it may have ended by now.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Whether it counts as a host that drains, not as one that is down: for some minutes after it
    /// stopped accepting.
    pub fn drains(&self, now: Instant) -> bool {
        let stopped = || self.upstream.health().since();
        let is_new = |since| now.saturating_duration_since(since) < DRAIN_SHOWN;
        self.is_draining() && (self.upstream.is_up() || stopped().is_none_or(is_new))
    }

    /// Notes whether it drains; returns whether that is news.
    pub fn set_draining(&self, draining: bool) -> bool {
        self.draining.swap(draining, Relaxed) != draining
    }
}

#[cfg(test)]
mod tests;
