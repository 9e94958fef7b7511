//! `lc`, `wlc`, `sed`, `nq`: the one with the least to do, after asking all.
//!
//! Several such pods take turns by weight, as in nginx and HAProxy. IPVS takes the first, which then gets every
//! connection of a service that is mostly idle.
//! Source: Linux, `net/netfilter/ipvs/ip_vs_{lc,wlc,sed,nq}.c`, without their count of connections that have ended.

use std::cmp::Ordering;

use super::pods::Pods;

/// `lc`: fewest connections.
pub(super) fn fewest(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    turn: u32,
) -> Option<usize> {
    least(pods, turn, |pod| (pods.load(pod).into(), 1))
}

/// `wlc`: fewest connections per weight.
pub(super) fn fewest_per_weight(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    turn: u32,
) -> Option<usize> {
    least(pods, turn, |pod| (pods.load(pod).into(), pods.weight(pod)))
}

/// `sed`: fewest connections per weight, the new one counted in.
pub(super) fn shortest_delay(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    turn: u32,
) -> Option<usize> {
    least(pods, turn, |pod| {
        (u64::from(pods.load(pod)) + 1, pods.weight(pod))
    })
}

/// `nq`: an idle one if there is any, else as `sed`.
pub(super) fn never_queue(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    turn: u32,
) -> Option<usize> {
    least(pods, turn, |pod| {
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
    turn: u32,
    cost: impl Fn(usize) -> (u64, u32),
) -> Option<usize> {
    // The first of the best, their cost, and the sum of their weights.
    let (mut best, mut least, mut alike) = (None, None, 0);
    // Multiplied out: a division would call 1/3 and 2/7 equal.
    let compare = |(work, weight): (u64, u32), (least, of): (u64, u32)| {
        (work * u64::from(of)).cmp(&(least * u64::from(weight)))
    };
    for pod in pods.open() {
        let new = cost(pod);
        match least.map_or(Ordering::Less, |least| compare(new, least)) {
            Ordering::Less => (best, least, alike) = (Some(pod), Some(new), new.1),
            Ordering::Equal => alike += new.1,
            Ordering::Greater => {}
        }
    }
    let least = least?;
    let mut place = turn.checked_rem(alike)?;
    let its_turn = pods.open().find(|pod| {
        let new = cost(*pod);
        let is_alike = compare(new, least) == Ordering::Equal;
        let is_its_turn = is_alike && place < new.1;
        if is_alike {
            place = place.saturating_sub(new.1);
        }
        is_its_turn
    });
    // Other workers change the loads meanwhile, so that none may be as good as the best was.
    its_turn.or(best)
}
