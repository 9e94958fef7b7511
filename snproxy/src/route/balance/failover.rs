//! `fo`, `ovf`: the first by weight, others when it cannot.

use super::least_conn;
use super::pods::Pods;

/// The highest weight; of equal ones the first.
///
/// Source: Linux, `net/netfilter/ipvs/ip_vs_fo.c`.
pub(super) fn highest(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
) -> Option<usize> {
    heaviest(pods, pods.open())
}

/// The highest weight of those with fewer connections than their weight; when there are none, as `wlc`.
///
/// IPVS lets each have one connection more than its weight, and refuses when all have.
/// Source: Linux, `net/netfilter/ipvs/ip_vs_ovf.c`.
pub(super) fn overflow(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    turn: u32,
) -> Option<usize> {
    let has_place = |pod: &usize| pods.load(*pod) < pods.weight(*pod);
    heaviest(pods, pods.open().filter(has_place))
        .or_else(|| least_conn::fewest_per_weight(pods, turn))
}

fn heaviest(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    among: impl Iterator<Item = usize>,
) -> Option<usize> {
    among.reduce(|best, pod| {
        if pods.weight(pod) > pods.weight(best) {
            pod
        } else {
            best
        }
    })
}
