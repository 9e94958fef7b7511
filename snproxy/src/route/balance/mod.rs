//! Which of several pods: pure functions of what they are given.
//!
//! What a policy needs of weights and names is prepared once, in a [`Scheme`]; a pick never allocates. A new policy is a
//! function in one of the files here, one arm in [`Scheme::pick`], one name in `conf`, one file of vectors.

mod by_weight;
mod failover;
mod hash;
mod least_conn;
mod maglev;
mod pods;
mod round_robin;
mod scheme;
mod two_choices;
pub mod weighted;

pub use hash::{identity, key, name};
pub use scheme::Scheme;

/// Highest weight; larger ones count as this. Source: the weights of IPVS's users, as HAProxy's `weight`, 0 to 256.
pub const MAX_WEIGHT: u32 = 256;

/// All of a pick that is not the pods: given, never fetched, so that a test can repeat it.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Uniform bits.
    pub random: u64,
    /// Picks of this service so far.
    pub turn: u32,
    /// [`key`] of the client.
    pub key: u64,
}

/// A number below `limit` from uniform bits; `None` for a limit of 0.
fn below(random: u64, limit: usize) -> Option<usize> {
    // Multiply and shift in place of a remainder: no division, and no bias worth a name below 2^32.
    let scaled = (u128::from(random) * limit as u128) >> 64;
    (limit > 0).then(|| usize::try_from(scaled).unwrap_or(0))
}

#[cfg(test)]
mod tests;
