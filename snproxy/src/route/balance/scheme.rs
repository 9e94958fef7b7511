//! A policy with what it needs prepared of the pods of one service.

use std::sync::Arc;

use crate::conf::Policy;

use super::hash::Buckets;
use super::maglev;
use super::pods::{Pods, Slots};
use super::{Draw, MAX_WEIGHT, by_weight, failover, hash, least_conn, round_robin, two_choices};

/// How the pods of one service are picked: made at reload, immutable. Clones share what was prepared.
///
/// Shape: 16 bytes, and nothing beside them where no policy needs more: one pod, or equal weights and neither `sh` nor
/// `mh`.
#[derive(Clone, Debug)]
pub struct Scheme {
    policy: Policy,
    strict: bool,
    /// Of every pod, where there is no list.
    weight: u16,
    prepared: Option<Arc<Prepared>>,
}

const _: () = assert!(size_of::<Scheme>() == 2 * size_of::<usize>());

#[derive(Debug)]
struct Prepared {
    /// By pod; empty where all weigh the same.
    weights: Box<[u16]>,
    table: Table,
}

#[derive(Debug)]
enum Table {
    None,
    /// Pods in the order of their turns.
    Ring(Slots),
    /// By pod: the weights up to and with it.
    Sums(Box<[u32]>),
    Buckets(Buckets),
}

/// Of no pods.
impl Default for Scheme {
    fn default() -> Self {
        Self::build(Policy::Ordered, false, &[])
    }
}

impl Scheme {
    /// The scheme of pods that are given by the [`identity`](super::identity) of their address and their weight, of
    /// which those above [`MAX_WEIGHT`] count as this.
    ///
    /// With `strict` `sh` and `mh` give a client whose pod is not eligible no other one.
    pub fn build(policy: Policy, strict: bool, pods: &[(u64, u32)]) -> Self {
        let weights: Box<[u16]> = pods.iter().map(|(_, weight)| weight_of(*weight)).collect();
        let first = weights.first().copied().unwrap_or(0);
        let are_equal = weights.iter().all(|weight| *weight == first);
        let open = weights.iter().filter(|weight| **weight > 0).count();
        let table = match policy {
            Policy::Sh if open > 1 => Table::Buckets(Buckets::by_rendezvous(pods, &weights)),
            Policy::Mh if open > 1 => Table::Buckets(maglev::build(pods, &weights)),
            Policy::Wrr if !are_equal => Table::Ring(round_robin::weighted_ring(&weights)),
            Policy::Rr | Policy::P2c if !are_equal && open < pods.len() => {
                Table::Ring(round_robin::ring(&weights))
            }
            Policy::Random | Policy::Twos if !are_equal => Table::Sums(by_weight::sums(&weights)),
            _ => Table::None,
        };
        let needs_none = are_equal && matches!(table, Table::None);
        Self {
            policy,
            strict,
            weight: if are_equal { first } else { 0 },
            prepared: (!needs_none).then(|| {
                let weights = if are_equal { Box::default() } else { weights };
                Arc::new(Prepared { weights, table })
            }),
        }
    }

    /// As [`build`](Self::build), after a reload: a table of `sh` or `mh` of the same pods is kept.
    #[must_use]
    pub fn rebuild(&self, policy: Policy, strict: bool, pods: &[(u64, u32)]) -> Self {
        if self.policy == policy && self.hashes(pods) {
            return Self {
                strict,
                ..self.clone()
            };
        }
        Self::build(policy, strict, pods)
    }

    /// Whether it has a table of just these pods to hash by.
    fn hashes(&self, pods: &[(u64, u32)]) -> bool {
        let Some(prepared) = self.prepared.as_deref() else {
            return false;
        };
        let Table::Buckets(buckets) = &prepared.table else {
            return false;
        };
        let weights = &prepared.weights;
        let same = |(at, (identity, weight)): (usize, &(u64, u32))| {
            buckets.identities[at] == *identity
                && weights.get(at).copied().unwrap_or(self.weight) == weight_of(*weight)
        };
        buckets.identities.len() == pods.len() && pods.iter().enumerate().all(same)
    }

    /// The pod to take, out of the `count` that the scheme was built of, among those that are `eligible` and have a
    /// weight; `load` is live connections.
    ///
    /// `None` when there is none, or, with `strict`, when the client's own is not. Never allocates.
    pub fn pick(
        &self,
        count: usize,
        eligible: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
        draw: Draw,
    ) -> Option<usize> {
        let prepared = self.prepared.as_deref();
        let pods = Pods {
            count,
            weights: prepared.map_or(&[], |prepared| &prepared.weights),
            weight: self.weight,
            eligible,
            load,
        };
        let table = prepared.map_or(&Table::None, |prepared| &prepared.table);
        let ring = match table {
            Table::Ring(ring) => Some(ring),
            _ => None,
        };
        let sums: &[u32] = match table {
            Table::Sums(sums) => sums,
            _ => &[],
        };
        match self.policy {
            Policy::Ordered => pods.open().next(),
            Policy::Fo => failover::highest(&pods),
            Policy::Ovf => failover::overflow(&pods, draw.turn),
            Policy::Rr => round_robin::pick(&pods, ring, draw.turn),
            Policy::Wrr => round_robin::weighted(&pods, ring, draw.turn),
            Policy::Random => by_weight::pick(&pods, sums, draw.random),
            Policy::Twos => two_choices::by_weight(&pods, sums, draw.random),
            Policy::P2c => two_choices::pick(&pods, ring, draw.random, draw.turn),
            Policy::Lc => least_conn::fewest(&pods, draw.turn),
            Policy::Wlc => least_conn::fewest_per_weight(&pods, draw.turn),
            Policy::Sed => least_conn::shortest_delay(&pods, draw.turn),
            Policy::Nq => least_conn::never_queue(&pods, draw.turn),
            Policy::Sh | Policy::Mh => match table {
                Table::Buckets(buckets) => hash::pick(&pods, buckets, draw.key, self.strict),
                // One pod at most has a weight.
                _ => pods.open().next(),
            },
        }
    }

    #[cfg(test)]
    pub(super) fn has_table(&self) -> bool {
        self.prepared.is_some()
    }

    #[cfg(test)]
    pub(in crate::route) fn shares_table(&self, other: &Self) -> bool {
        let tables = self.prepared.as_ref().zip(other.prepared.as_ref());
        tables.is_some_and(|(one, other)| Arc::ptr_eq(one, other))
    }
}

fn weight_of(weight: u32) -> u16 {
    u16::try_from(weight.min(MAX_WEIGHT)).unwrap_or(u16::MAX)
}
