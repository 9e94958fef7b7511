//! Which of several groups of pods: each by its weight, the number of its pods.

use crate::conf::Policy;

use super::{Draw, below, hash};

/// A group has more load than another only if it has so many connections more per pod, and such a part of its own.
///
/// The end of a connection that crosses to another host is seen a round trip later. Without a slack such a host would
/// get half of its share of short connections (seen: 68 of 100, 166 for the pod of this host).
const SLACK: u64 = 2;
const SLACK_PART: u64 = 8;

/// The group to take; groups of weight 0 are out. `identity` is what a group is known by, the same on every host, and
/// `load` its live connections.
///
/// `None` when all weights are 0. Policies that ask for the highest weight, which is a pod's, take the first group.
pub fn pick(
    policy: Policy,
    weights: &[u32],
    identity: impl Fn(usize) -> u64,
    load: impl Fn(usize) -> u32,
    draw: Draw,
) -> Option<usize> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let open = || (0..weights.len()).filter(|group| weights[*group] > 0);
    let by_pods = |random| at(weights, drawn(random, total)?);
    // Connections per pod, compared by cross-multiplication.
    let per = |group: usize, other: usize| u64::from(load(group)) * u64::from(weights[other]);
    let lighter = |first: usize, second: usize| {
        let (more, less) = (per(first, second), per(second, first));
        let one = u64::from(weights[first]) * u64::from(weights[second]);
        if less + SLACK * one + more / SLACK_PART < more {
            second
        } else {
            first
        }
    };
    match policy {
        Policy::Ordered | Policy::Fo | Policy::Ovf => open().next(),
        Policy::Rr | Policy::Wrr => at(weights, u64::from(draw.turn).checked_rem(total)?),
        Policy::Random => by_pods(draw.random),
        Policy::P2c | Policy::Twos => {
            let first = by_pods(draw.random)?;
            Some(lighter(first, by_pods(draw.random.rotate_left(32))?))
        }
        // One by chance, unless another has less: of groups that are as good each gets its part.
        Policy::Lc | Policy::Wlc | Policy::Sed | Policy::Nq => {
            let least = open().reduce(|least, group| {
                if per(group, least) < per(least, group) {
                    group
                } else {
                    least
                }
            })?;
            Some(lighter(by_pods(draw.random)?, least))
        }
        Policy::Sh | Policy::Mh => hash::rendezvous(
            draw.key,
            open().map(|group| (group, identity(group), weights[group])),
        ),
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
