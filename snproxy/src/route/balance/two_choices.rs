//! `p2c`, `twos`: two pods by chance, the one with fewer connections per weight wins.
//!
//! Of two that differ by one connection at most, `p2c` takes one and the other in turn, by weight: an idle connection
//! would keep short ones away from its pod otherwise (seen: 62 of 200).
//!
//! Nearly as even as asking all, at the cost of asking two.
//! Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.

use super::pods::{Pods, Slots};
use super::{below, by_weight as weighted, least_conn};

/// `p2c`: two different pods, all alike. `ring` are those that have a weight, where some have none.
pub(super) fn pick(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    ring: Option<&Slots>,
    random: u64,
    turn: u32,
) -> Option<usize> {
    let count = ring.map_or(pods.count, Slots::len);
    let first = below(random, count)?;
    // A second draw from bits that the first one barely used, over the others.
    let second = match below(random.rotate_left(32), count - 1) {
        Some(other) if other < first => other,
        Some(other) => other + 1,
        None => first,
    };
    let at = |slot| ring.map_or(Some(slot), |ring| ring.get(slot));
    let (first, second) = (at(first)?, at(second)?);
    match (pods.is_open(first), pods.is_open(second)) {
        (true, true) => {
            if pods.is_clearly_less_loaded(second, first) {
                Some(second)
            } else if pods.is_clearly_less_loaded(first, second) {
                Some(first)
            } else {
                let (low, high) = (first.min(second), first.max(second));
                let place = turn.checked_rem(pods.weight(low) + pods.weight(high))?;
                Some(if place < pods.weight(low) { low } else { high })
            }
        }
        (true, false) => Some(first),
        (false, true) => Some(second),
        (false, false) => least_conn::fewest_per_weight(pods, turn),
    }
}

/// `twos`: two draws by weight, which may be the same pod.
///
/// Source: Linux, `net/netfilter/ipvs/ip_vs_twos.c`, without its small favour for the first pod.
pub(super) fn by_weight(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    sums: &[u32],
    random: u64,
) -> Option<usize> {
    let first = weighted::pick(pods, sums, random)?;
    let second = weighted::pick(pods, sums, random.rotate_left(32))?;
    Some(if pods.is_less_loaded(second, first) {
        second
    } else {
        first
    })
}
