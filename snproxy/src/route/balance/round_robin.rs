//! `rr`, `wrr`: one after the other.

use super::pods::{Pods, Slots};
use super::{by_weight, hash};

/// The pods that have a weight, each once.
pub(super) fn ring(weights: &[u16]) -> Slots {
    let pods = (0..).zip(weights).filter(|(_, weight)| **weight > 0);
    Slots::new(&pods.map(|(pod, _)| pod).collect::<Vec<u32>>())
}

/// Each pod as often as it weighs, the weights divided by what all have in common.
///
/// Pass after pass over all pods, from the highest weight down: in each pass those have a turn that weigh as much.
/// Source: Linux, `net/netfilter/ipvs/ip_vs_wrr.c`, `ip_vs_wrr_schedule`.
pub(super) fn weighted_ring(weights: &[u16]) -> Slots {
    let highest = weights.iter().copied().max().unwrap_or(0);
    let step = weights.iter().copied().fold(0, greatest_common_divisor);
    let mut pods = Vec::new();
    let mut level = highest;
    while level > 0 {
        let pass = (0..).zip(weights).filter(|(_, weight)| **weight >= level);
        pods.extend(pass.map(|(pod, _)| pod));
        level -= step;
    }
    Slots::new(&pods)
}

fn greatest_common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// The pod whose turn it is; the turns of pods that are out go round among the others.
pub(super) fn pick(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    ring: Option<&Slots>,
    turn: u32,
) -> Option<usize> {
    let turn = turn as usize;
    let length = ring.map_or(pods.count, Slots::len);
    let at = |slot| ring.map_or(Some(slot), |ring| ring.get(slot));
    let slot = turn.checked_rem(length)?;
    if let Some(next) = at(slot).filter(|pod| pods.is_open(*pod)) {
        return Some(next);
    }
    let open = pods.open().count();
    // Such turns are counted through all rounds, not by `turn`: of four pods with the second and the fourth out, every
    // one of their turns is odd.
    let is_out = |slot: &usize| at(*slot).is_none_or(|pod| !pods.is_open(pod));
    let before = (0..slot).filter(is_out).count();
    let number = (turn / length) * length.saturating_sub(open) + before;
    pods.open()
        .nth(number.checked_rem(open)?)
        // One that was open was taken meanwhile.
        .or_else(|| pods.open().next())
}

/// As [`pick`], by weight; the turns of pods that are out go to the others by weight, in no order.
pub(super) fn weighted(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    ring: Option<&Slots>,
    turn: u32,
) -> Option<usize> {
    let Some(ring) = ring else {
        return pick(pods, None, turn);
    };
    let next = ring.get((turn as usize).checked_rem(ring.len())?);
    next.filter(|pod| pods.is_open(*pod))
        .or_else(|| by_weight::drawn(pods, hash::mix(turn.into())))
}
