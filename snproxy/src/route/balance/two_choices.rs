//! `p2c`: two pods by chance, the one with fewer connections wins.
//!
//! Nearly as even as asking all, at the cost of asking two.
//! Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.

use super::below;

pub(super) fn pick(
    count: usize,
    eligible: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> u32,
    random: u64,
) -> Option<usize> {
    let first = below(random, count)?;
    // A second draw from bits that the first one barely used, over the others.
    let second = match below(random.rotate_left(32), count - 1) {
        Some(other) if other < first => other,
        Some(other) => other + 1,
        None => first,
    };
    match (eligible(first), eligible(second)) {
        (true, true) if load(second) < load(first) => Some(second),
        (true, _) => Some(first),
        (false, true) => Some(second),
        // Both are out: ask all, from the first draw on, so that ties stay spread.
        (false, false) => (first..count)
            .chain(0..first)
            .filter(|pod| eligible(*pod))
            .min_by_key(|pod| load(*pod)),
    }
}
