//! `random`: each by its weight.

use super::pods::Pods;
use super::{below, hash};

/// By pod: the weights up to and with it.
pub(super) fn sums(weights: &[u16]) -> Box<[u32]> {
    let mut sum = 0;
    let add = |weight: &u16| {
        sum += u32::from(*weight);
        sum
    };
    weights.iter().map(add).collect()
}

/// One of the open pods by chance. Without `sums` all weigh the same.
pub(super) fn pick(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    sums: &[u32],
    random: u64,
) -> Option<usize> {
    let first = match sums.last() {
        Some(total) => {
            let place = below(random, *total as usize)?;
            sums.partition_point(|sum| *sum as usize <= place)
        }
        None => below(random, pods.count)?,
    };
    if pods.is_open(first) {
        Some(first)
    } else {
        // As likely for each as if the others were not there.
        drawn(pods, hash::mix(random))
    }
}

/// One of the open pods by chance, after asking all.
pub(super) fn drawn(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    random: u64,
) -> Option<usize> {
    let total = pods.open().map(|pod| pods.weight(pod) as usize).sum();
    let mut place = below(random, total)?;
    let mut last = None;
    for pod in pods.open() {
        last = Some(pod);
        match place.checked_sub(pods.weight(pod) as usize) {
            Some(rest) => place = rest,
            None => break,
        }
    }
    // Past the end where some were taken meanwhile.
    last
}
