//! Which of several groups of pods: each by its weight, the number of its pods.

use crate::conf::Policy;

use super::{Draw, below};

/// A group has more load than another only if it has so many connections more per pod, and such a part of its own.
///
/// The end of a connection that crosses to another host is seen a round trip later. Without a slack such a host would
/// get half of its share of short connections (seen: 68 of 100, 166 for the pod of this host).
const SLACK: u64 = 2;
const SLACK_PART: u64 = 8;

/// The group to take; groups of weight 0 are out. `load` is live connections.
///
/// `None` when all weights are 0. `ordered` takes the first.
pub fn pick(
    policy: Policy,
    weights: &[u32],
    load: impl Fn(usize) -> u32,
    draw: Draw,
) -> Option<usize> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    match policy {
        Policy::Ordered => weights.iter().position(|weight| *weight > 0),
        Policy::Rr => at(weights, u64::from(draw.turn).checked_rem(total)?),
        Policy::Random => at(weights, drawn(draw.random, total)?),
        _ => {
            let first = at(weights, drawn(draw.random, total)?)?;
            let second = at(weights, drawn(draw.random.rotate_left(32), total)?)?;
            // Connections per pod, compared by cross-multiplication.
            let per =
                |group: usize, other: usize| u64::from(load(group)) * u64::from(weights[other]);
            let (more, less) = (per(first, second), per(second, first));
            let one = u64::from(weights[first]) * u64::from(weights[second]);
            Some(if less + SLACK * one + more / SLACK_PART < more {
                second
            } else {
                first
            })
        }
    }
}

/// A place among all pods.
fn drawn(random: u64, total: u64) -> Option<u64> {
    below(random, usize::try_from(total).ok()?).map(|place| place as u64)
}

/// The group in which this place falls.
fn at(weights: &[u32], mut place: u64) -> Option<usize> {
    weights.iter().position(|weight| {
        let weight = u64::from(*weight);
        let inside = place < weight;
        place = place.saturating_sub(weight);
        inside
    })
}
