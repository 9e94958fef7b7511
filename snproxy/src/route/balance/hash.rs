//! `sh`, and what `mh` shares with it: the same client gets the same pod.
//!
//! All hashes here are the same on every host and in every version: clients of a cluster would move otherwise.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::xxh3_64;

use super::below;
use super::pods::{Pods, Slots};

/// Buckets of `sh`, each of which has one pod: a power of two.
///
/// More than the 256 of IPVS, for they are not dealt out: with 256 the busiest of ten equal pods would get a third more
/// than its share, with these a twelfth.
const BUCKETS: usize = 4096;

/// Hash of a client, by its address and, where given, its port. IPv4-mapped addresses are those they map.
///
/// Shape: XXH3 (64 bits) of 4 or 16 address bytes and 2 port bytes in network order.
pub fn key(ip: IpAddr, port: Option<u16>) -> u64 {
    let mut bytes = [0; 18];
    let length = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            4
        }
        IpAddr::V6(ip) => {
            bytes[..16].copy_from_slice(&ip.octets());
            16
        }
    };
    let Some(port) = port else {
        return xxh3_64(&bytes[..length]);
    };
    bytes[length..length + 2].copy_from_slice(&port.to_be_bytes());
    xxh3_64(&bytes[..length + 2])
}

/// What a pod is known by to the policies that hash: its address and port, wherever it stands in a file.
pub fn identity(addr: SocketAddr) -> u64 {
    key(addr.ip(), Some(addr.port()))
}

/// What a host is known by: its line of hosts.conf, for the address may look different to itself.
pub fn name(host: &str, port: u16) -> u64 {
    mix(xxh3_64(host.as_bytes()) ^ u64::from(port))
}

/// A table of pods that is read by the key, and what finds another pod when that one is out.
#[derive(Debug)]
pub(super) struct Buckets {
    pub(super) slots: Slots,
    /// By pod.
    pub(super) identities: Box<[u64]>,
    pub(super) seed: Seed,
}

/// Who moves together when a pod is out.
#[derive(Debug)]
pub(super) enum Seed {
    /// All clients of a bucket, to where they would be if the pod were not in the table.
    Bucket,
    /// Each client by itself.
    Key,
}

impl Buckets {
    /// Each bucket goes to the pod that wins a rendezvous by weight for it.
    ///
    /// So a bucket moves only if its own pod goes or loses weight, or to a pod that came or gained weight: no client of
    /// other pods moves. IPVS deals buckets out in the order of its list, where any change moves most of them.
    pub(super) fn by_rendezvous(pods: &[(u64, u32)], weights: &[u16]) -> Self {
        let weighted = || {
            (0..)
                .zip(pods)
                .zip(weights)
                .filter(|(_, weight)| **weight > 0)
        };
        let winner = |bucket: usize| {
            let candidates = weighted()
                .map(|((pod, (identity, _)), weight)| (pod, *identity, u32::from(*weight)));
            rendezvous(seed(bucket as u64), candidates).unwrap_or(0)
        };
        let slots: Vec<u32> = (0..BUCKETS).map(winner).collect();
        Self {
            slots: Slots::new(&slots),
            identities: pods.iter().map(|(identity, _)| *identity).collect(),
            seed: Seed::Bucket,
        }
    }
}

/// The client's pod; another one, the same each time, where that is out and it is not `strict`.
pub(super) fn pick(
    pods: &Pods<'_, impl Fn(usize) -> bool, impl Fn(usize) -> u32>,
    buckets: &Buckets,
    key: u64,
    strict: bool,
) -> Option<usize> {
    let slot = below(key, buckets.slots.len())?;
    let own = buckets.slots.get(slot)?;
    if pods.is_open(own) {
        return Some(own);
    }
    if strict {
        return None;
    }
    let seed = match buckets.seed {
        Seed::Bucket => seed(slot as u64),
        Seed::Key => key,
    };
    let identity = |pod: usize| buckets.identities.get(pod).copied().unwrap_or(0);
    let candidates = pods
        .open()
        .map(|pod| (pod, identity(pod), pods.weight(pod)));
    rendezvous(seed, candidates)
}

/// Bits for a bucket, far from those of its neighbours.
fn seed(bucket: u64) -> u64 {
    mix(bucket + 1)
}

/// The winner among candidates of a name, an identity and a weight: by chance, each by its weight, but always the same.
///
/// Whoever did not win may come, go, or lose weight without a change.
/// Source: D. Thaler, C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998; the weights as a race of
/// exponential times, which the shortest wins.
pub(super) fn rendezvous<T>(
    seed: u64,
    candidates: impl Iterator<Item = (T, u64, u32)>,
) -> Option<T> {
    let mut best: Option<(T, u64, u32)> = None;
    for (name, identity, weight) in candidates {
        let bits = mix(seed ^ identity.rotate_left(32));
        let wins = match &best {
            None => true,
            // The same as below, for less.
            Some((_, other, by)) if *by == weight => bits > *other,
            Some((_, other, by)) => time(bits) * f64::from(*by) < time(*other) * f64::from(weight),
        };
        if wins {
            best = Some((name, bits, weight));
        }
    }
    best.map(|(name, ..)| name)
}

/// -ln(u) for u in (0, 1), of which `bits` are the first 64.
///
/// By additions, multiplications and a division alone, which every machine rounds the same way; what a library's
/// logarithm gives differs from one to the next.
fn time(bits: u64) -> f64 {
    const EXPONENT_OF_ONE: u64 = 1023 << 52;
    let bits = bits | 1;
    let zeros = bits.leading_zeros();
    // bits = mantissa * 2^(63 - zeros), mantissa in [1, 2).
    let mantissa = f64::from_bits(EXPONENT_OF_ONE | (bits << zeros << 1) >> 12);
    let (mantissa, halvings) = if mantissa > std::f64::consts::SQRT_2 {
        (mantissa / 2.0, zeros)
    } else {
        (mantissa, zeros + 1)
    };
    // ln(m) = 2 atanh((m - 1) / (m + 1)); |x| < 0.172, so that the terms left out are below 2^-53.
    let x = (mantissa - 1.0) / (mantissa + 1.0);
    let square = x * x;
    let series = [19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0]
        .into_iter()
        .fold(0.0, |sum, odd| sum * square + 1.0 / odd);
    f64::from(halvings) * std::f64::consts::LN_2 - 2.0 * x * series
}

/// Every bit of the result depends on every bit of `bits`. Source: S. Vigna, splitmix64, 2015.
pub(super) fn mix(bits: u64) -> u64 {
    let mut bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
