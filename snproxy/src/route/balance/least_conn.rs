//! `lc`, `wlc`, `sed`, `nq`: the one with the least to do, after asking all.
//!
//! Of several such pods one is taken by chance and by weight. IPVS takes the first, which then gets every connection of
//! a service that is mostly idle; nginx goes round among them by weight, HAProxy goes round.
//! Source: Linux, `net/netfilter/ipvs/ip_vs_{lc,wlc,sed,nq}.c`, without their count of connections that have ended.

use super::pods::Pods;
use super::{below, hash};

/// `lc`: fewest connections.
pub(super) fn fewest(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    random: u64,
) -> Option<usize> {
    least(pods, random, |pod| (pods.load(pod).into(), 1))
}

/// `wlc`: fewest connections per weight.
pub(super) fn fewest_per_weight(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    random: u64,
) -> Option<usize> {
    least(pods, random, |pod| {
        (pods.load(pod).into(), pods.weight(pod))
    })
}

/// `sed`: fewest connections per weight, the new one counted in.
pub(super) fn shortest_delay(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    random: u64,
) -> Option<usize> {
    least(pods, random, |pod| {
        (u64::from(pods.load(pod)) + 1, pods.weight(pod))
    })
}

/// `nq`: an idle one if there is any, else as `sed`.
pub(super) fn never_queue(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    random: u64,
) -> Option<usize> {
    least(pods, random, |pod| {
        let work = match pods.load(pod) {
            0 => 0,
            load => u64::from(load) + 1,
        };
        (work, pods.weight(pod))
    })
}

/// The open pod with the least work per weight, both as `cost` says.
fn least(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    random: u64,
    cost: impl Fn(usize) -> (u64, u32),
) -> Option<usize> {
    let mut best = None;
    let mut least = (0, 1);
    // The weights of those that are as good as the best.
    let mut alike: u32 = 0;
    let mut bits = random;
    for pod in pods.open() {
        let (work, weight) = cost(pod);
        // Multiplied out: a division would call 1/3 and 2/7 equal.
        let (new, old) = (work * u64::from(least.1), least.0 * u64::from(weight));
        if best.is_none() || new < old {
            (best, least, alike) = (Some(pod), (work, weight), weight);
        } else if new == old {
            alike += weight;
            // Each of them stays with the chance of its weight among those so far.
            bits = hash::step(bits);
            if below(bits, alike as usize).is_some_and(|place| place < weight as usize) {
                best = Some(pod);
                least = (work, weight);
            }
        }
    }
    best
}
