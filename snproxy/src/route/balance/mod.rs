//! Which of several pods: pure functions of what they are given.
//!
//! A new policy is a file here, one arm in [`pick`] and one name in `conf`.

mod round_robin;
mod two_choices;
pub mod weighted;

use crate::conf::Policy;

/// All of a pick that is not the pods: given, never fetched, so that a test can repeat it.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Uniform bits.
    pub random: u64,
    /// Picks of this service so far.
    pub turn: u32,
}

/// The pod to take, out of `count`, among those that are `eligible`; `load` is live connections.
///
/// `None` when none is eligible. Never allocates.
pub fn pick(
    policy: Policy,
    count: usize,
    eligible: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> u32,
    draw: Draw,
) -> Option<usize> {
    match policy {
        Policy::Rr => round_robin::pick(count, eligible, draw.turn),
        Policy::Random => nth_eligible(count, &eligible, draw.random),
        Policy::Ordered => (0..count).find(|pod| eligible(*pod)),
        _ => two_choices::pick(count, eligible, load, draw.random),
    }
}

/// One of the eligible pods, each as likely as the others.
fn nth_eligible(count: usize, eligible: &impl Fn(usize) -> bool, random: u64) -> Option<usize> {
    let open = (0..count).filter(|pod| eligible(*pod)).count();
    (0..count)
        .filter(|pod| eligible(*pod))
        .nth(below(random, open)?)
}

/// A number below `limit` from uniform bits; `None` for a limit of 0.
fn below(random: u64, limit: usize) -> Option<usize> {
    // Multiply and shift in place of a remainder: no division, and no bias worth a name below 2^32.
    let scaled = (u128::from(random) * limit as u128) >> 64;
    (limit > 0).then(|| usize::try_from(scaled).unwrap_or(0))
}

#[cfg(test)]
mod tests;
