//! Times of operations, kept without allocating.

use std::time::Duration;

/// Buckets per doubling: a value is known to within 1.6 %.
const FINE: u32 = 64;
const FINE_BITS: u32 = FINE.trailing_zeros();
/// Values from a nanosecond to 2^40 of them, 18 minutes.
const DOUBLINGS: u32 = 40;

pub(super) struct Latency {
    counts: Box<[u64]>,
}

impl Latency {
    pub(super) fn new() -> Self {
        let buckets = (DOUBLINGS * FINE) as usize;
        Self {
            counts: vec![0; buckets].into(),
        }
    }

    pub(super) fn add(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let last = self.counts.len() - 1;
        self.counts[bucket(nanos).min(last)] += 1;
    }

    /// Adds those of another one.
    pub(super) fn join(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// The time that this share of the operations took at most, in microseconds; 0 without operations.
    pub(super) fn quantile_us(&self, share: f64) -> f64 {
        let total: u64 = self.counts.iter().sum();
        let wanted = share * to_f64(total);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && to_f64(seen) >= wanted {
                return to_f64(upper(index)) / 1000.0;
            }
        }
        0.0
    }
}

/// Below FINE each value has a bucket; above, FINE of them per doubling.
fn bucket(nanos: u64) -> usize {
    let doubling = (nanos | 1).ilog2().saturating_sub(FINE_BITS);
    let fine = usize::try_from(nanos >> doubling).unwrap_or(usize::MAX);
    doubling as usize * FINE as usize + fine
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let fine = FINE as usize;
    let doubling = (bucket / fine).saturating_sub(1);
    let within = (bucket - doubling * fine) as u64;
    ((within + 1) << doubling) - 1
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds of seconds: far below 2^52"
)]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_its_bucket() {
        for nanos in (0..20_000).chain([1 << 20, (1 << 20) + 12_345, (1 << 33) - 1]) {
            let top = upper(bucket(nanos));
            assert!(
                top >= nanos && top - nanos <= nanos / 64 + 1,
                "{nanos}: {top}"
            );
            assert!(nanos == 0 || upper(bucket(nanos - 1)) <= top);
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let mut latency = Latency::new();
        assert!(latency.quantile_us(0.5).abs() < f64::EPSILON);
        for micros in 1..=1000 {
            latency.add(Duration::from_micros(micros));
        }
        for (share, expected) in [(0.5, 500.0), (0.99, 990.0)] {
            let found = latency.quantile_us(share);
            assert!((found / expected - 1.0).abs() < 0.02, "{share}: {found}");
        }
    }
}
