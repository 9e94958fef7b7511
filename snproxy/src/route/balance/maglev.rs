//! `mh`: a table that each pod fills in an order of its own, so that a change of one moves few clients of others.
//!
//! Source: D. Eisenbud and others, "Maglev: A Fast and Reliable Software Network Load Balancer", 2016, section 3.4;
//! Linux, `net/netfilter/ipvs/ip_vs_mh.c`.

use super::MAX_WEIGHT;
use super::hash::{Buckets, Seed, mix};
use super::pods::Slots;

/// Sizes of the table. Source: `ip_vs_mh.c`, `primes`, from its default on.
const PRIMES: [u32; 6] = [4093, 8191, 16_381, 32_749, 65_521, 131_071];

/// Slots of a pod at least, as far as the largest prime gives them: shares are even to a part of so many.
///
/// When one of 50 pods goes, of all clients those move whose own pod stays: with 4,093 slots 2.4 %, with 8,191 1.5 % (at
/// most 1.98 %), with 16,381 1.0 % (1.6 %). Of 40 sets of names, 2026-11-21.
const SLOTS_PER_POD: usize = 200;

/// One pod's order of the slots.
struct Filling {
    pod: u32,
    weight: u32,
    credit: u32,
    slot: u32,
    skip: u32,
}

pub(super) fn build(pods: &[(u64, u32)], weights: &[u16]) -> Buckets {
    let size = size(weights);
    let mut fillings: Vec<(u64, Filling)> = (0..)
        .zip(pods)
        .zip(weights)
        .filter(|(_, weight)| **weight > 0)
        .map(|((pod, (identity, _)), weight)| {
            let filling = Filling {
                pod,
                weight: u32::from(*weight),
                credit: 0,
                slot: remainder(mix(*identity), size),
                skip: 1 + remainder(mix(!*identity), size - 1),
            };
            (*identity, filling)
        })
        .collect();
    // The order of the file is no part of it: hosts may list pods differently.
    fillings.sort_unstable_by_key(|(identity, _)| *identity);
    Buckets {
        slots: Slots::new(&fill(size, &mut fillings)),
        identities: pods.iter().map(|(identity, _)| *identity).collect(),
        seed: Seed::Key,
    }
}

/// The table's size for so many pods.
fn size(weights: &[u16]) -> u32 {
    let pods = weights.iter().filter(|weight| **weight > 0).count();
    let enough = |prime: &&u32| **prime as usize >= pods * SLOTS_PER_POD;
    let largest = &PRIMES[PRIMES.len() - 1];
    *PRIMES.iter().find(enough).unwrap_or(largest)
}

/// Round after round, each takes the next free slot of its order; one of half the highest weight in every other round.
///
/// IPVS gives a pod its whole weight in a row, so that a last round which is not full costs the pods at its end.
fn fill(size: u32, fillings: &mut [(u64, Filling)]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let highest = fillings.iter().map(|(_, filling)| filling.weight).max();
    let highest = highest.unwrap_or(MAX_WEIGHT);
    let mut slots = vec![FREE; size as usize];
    let mut free = if fillings.is_empty() { 0 } else { size };
    while free > 0 {
        for (_, filling) in &mut *fillings {
            filling.credit += filling.weight;
            if filling.credit < highest || free == 0 {
                continue;
            }
            filling.credit -= highest;
            // Prime size: every skip comes to every slot.
            while slots[filling.slot as usize] != FREE {
                filling.slot = (filling.slot + filling.skip) % size;
            }
            slots[filling.slot as usize] = filling.pod;
            free -= 1;
        }
    }
    slots
}

fn remainder(bits: u64, size: u32) -> u32 {
    u32::try_from(bits % u64::from(size)).unwrap_or(0)
}
