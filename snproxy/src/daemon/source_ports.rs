//! How many source ports connections to each upstream may take: said before they run out.
//!
//! A connection that this host ended first keeps its port for a minute in `TIME_WAIT`. Which ones do is the kernel's to
//! know: here all that ended lately count, so that the figure is the most that there can be.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::net::own::is_own;
use crate::net::source_ports::SourcePorts;
use crate::route::Table;
use crate::route::dial_from::FURTHER;
use crate::route::service::Pod;

/// Time between two looks at the figures.
const LOOK: Duration = Duration::from_secs(2);
/// Time between two notes of the figures.
const NOTE: Duration = Duration::from_secs(15);
/// How long a port stays in `TIME_WAIT`.
///
/// Source: Linux, `TCP_TIMEWAIT_LEN`.
const TIME_WAIT: Duration = Duration::from_mins(1);
/// Time between two lines about one upstream, and between two tries of an address that had no port.
const AGAIN: Duration = Duration::from_mins(1);
/// Percent of the ports from which on they are said to run short.
const SHORT: u64 = 80;

type UseByAddr = HashMap<SocketAddr, Use>;

/// What connections to one address took.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Use {
    live: u32,
    /// So far; wraps around.
    made: u32,
}

/// What was seen of the upstreams' source ports.
#[derive(Debug, Default)]
pub(super) struct Watched {
    looked: Option<Instant>,
    went_back: Option<Instant>,
    past: Past,
    said: HashMap<SocketAddr, Instant>,
}

impl Watched {
    /// Warns of upstreams whose source ports run short, and has those tried again that had none.
    pub(super) fn look(&mut self, table: &Table, now: Instant) {
        let is_past = |at: Option<Instant>, time| {
            at.is_none_or(|at: Instant| now.saturating_duration_since(at) >= time)
        };
        let goes_back = is_past(self.went_back, AGAIN);
        if goes_back {
            self.went_back = Some(now);
        }
        for peer in table.peers.list() {
            peer.upstream.dial_from.look_again();
        }
        for (upstream, _) in table.upstreams() {
            upstream.dial_from.look_again();
            if goes_back {
                upstream.dial_from.go_back();
            }
        }
        if !is_past(self.looked, LOOK) {
            return;
        }
        self.looked = Some(now);
        // Anew each time: the settings may change.
        let ports = SourcePorts::read();
        let uses = uses(table);
        self.said
            .retain(|_, said| now.saturating_duration_since(*said) < AGAIN);
        for (addr, taken) in &uses {
            let is_reused = ports.are_reused_at(addr.ip());
            let up_to = if is_reused {
                taken.live
            } else {
                self.past.most(*addr, *taken)
            };
            if !is_short(up_to, ports.count) || self.said.contains_key(addr) {
                continue;
            }
            let of = ports.count.saturating_mul(addresses(addr.ip()));
            if is_short(up_to, of) {
                self.said.insert(*addr, now);
                let counted = if is_reused {
                    "live connections"
                } else {
                    "live connections, and those of the last minute"
                };
                warn!(
                    upstream = %addr,
                    "source ports run short: up to {up_to} of {of} towards it are taken ({counted}); without one a connection ends as \
                     source_ports (more: net.ipv4.ip_local_port_range, net.ipv4.tcp_tw_reuse=1)"
                );
            }
        }
        self.past.note(uses, now);
    }
}

/// How many source addresses a pod is dialled from.
fn addresses(pod: IpAddr) -> u32 {
    if pod.is_ipv4() && is_own(pod) {
        u32::from(FURTHER) + 1
    } else {
        1
    }
}

fn is_short(taken: u32, of: u32) -> bool {
    u64::from(taken) * 100 >= u64::from(of) * SHORT
}

/// Notes of the last minute, the oldest in front.
#[derive(Debug, Default)]
struct Past(VecDeque<(Instant, UseByAddr)>);

impl Past {
    fn note(&mut self, uses: UseByAddr, now: Instant) {
        let age = |at: Instant| now.saturating_duration_since(at);
        match self.0.back() {
            // Nothing was before the first look.
            None => self.0.push_back((now, UseByAddr::new())),
            Some((at, _)) if age(*at) < NOTE => return,
            Some(_) => self.0.push_back((now, uses)),
        }
        while self.0.get(1).is_some_and(|(at, _)| age(*at) >= TIME_WAIT) {
            self.0.pop_front();
        }
    }

    /// Most connections to `addr` that live or may be in `TIME_WAIT`: whatever lived a minute ago or was made since.
    fn most(&self, addr: SocketAddr, now: Use) -> u32 {
        let before = self.0.front().and_then(|(_, uses)| uses.get(&addr));
        let before = before.copied().unwrap_or_default();
        // Of an upstream that a reload replaced the count begins anew: for a minute it says less.
        let made = now.made.saturating_sub(before.made);
        before.live.saturating_add(made).max(now.live)
    }
}

/// What all upstreams and hosts take to which connections were made.
fn uses(table: &Table) -> UseByAddr {
    let mut uses = UseByAddr::new();
    let hosts = table.peers.list();
    let upstreams = table.upstreams().iter().map(|(upstream, _)| upstream);
    for upstream in upstreams.chain(hosts.iter().map(|host| &host.upstream)) {
        let made = upstream.dial_from.made();
        if made > 0 {
            let taken = uses.entry(upstream.addr).or_default();
            taken.made = taken.made.wrapping_add(made);
        }
    }
    if uses.is_empty() {
        return uses;
    }
    let mut count = |pods: &[Pod]| {
        for pod in pods {
            if let Some(taken) = uses.get_mut(&pod.upstream.addr) {
                taken.live += pod.load.active();
            }
        }
    };
    for service in table.services().filter(|service| !service.is_app) {
        count(service.pods);
    }
    for (_, pods) in table.apps() {
        count(pods);
    }
    let dialled: Vec<_> = hosts
        .iter()
        .enumerate()
        .filter(|(_, host)| uses.contains_key(&host.addr()))
        .collect();
    if dialled.is_empty() {
        return uses;
    }
    for (_, answers) in table.peers.remembered() {
        for (at, host) in &dialled {
            if let Some(taken) = uses.get_mut(&host.addr()) {
                taken.live += answers.live(Some(*at));
            }
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_ended_within_a_minute_counts_and_what_ended_before_does_not() {
        let addr = "10.0.0.1:80".parse().unwrap();
        let start = Instant::now();
        let mut past = Past::default();
        let mut made = 0;
        let mut figures = Vec::new();
        // One connection a second, each over at once, for a minute; then none.
        for second in 0..180 {
            made += u32::from(second < 60);
            let now = Use { live: 0, made };
            figures.push(past.most(addr, now));
            past.note([(addr, now)].into(), start + SECOND * second);
        }
        assert_eq!(figures[..3], [1, 2, 3]);
        assert_eq!(figures[59], 60, "all of the last minute");
        // At most a note too many.
        assert!((35..=50).contains(&figures[90]), "{}", figures[90]);
        assert_eq!(figures[140], 0);
    }

    #[test]
    fn what_lives_counts_once() {
        let addr = "10.0.0.1:80".parse().unwrap();
        let start = Instant::now();
        let mut past = Past::default();
        let held = Use { live: 9, made: 9 };
        for second in 0..100 {
            assert_eq!(past.most(addr, held), 9, "at {second} s");
            past.note([(addr, held)].into(), start + SECOND * second);
        }
        // The upstream is another one since a reload, and counts from 0 while the old connections live on.
        let after = Use { live: 9, made: 0 };
        assert_eq!(past.most(addr, after), 9);
    }

    #[test]
    fn four_fifths_are_short() {
        assert!(!is_short(79, 100));
        assert!(is_short(80, 100));
        assert!(is_short(0, 0));
    }
}
