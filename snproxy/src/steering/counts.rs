//! What the program counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use aya::maps::{Array, MapData, PerCpuArray};
use snproxy_common::steering::{MAP_COUNTS, MAP_LOOKUPS};

use super::SteeringError;
use super::rates::Rates;
use crate::sys;

pub use snproxy_common::steering::SteerCounts;

/// The program's counters, for any thread and for as long as they are held.
#[derive(Clone)]
pub struct Counters(Arc<Maps>);

struct Maps {
    counts: PerCpuArray<MapData, SteerCounts>,
    lookups: Array<MapData, u64>,
    rates: Rates,
}

impl Counters {
    pub(super) fn new(
        counts: PerCpuArray<MapData, SteerCounts>,
        lookups: Array<MapData, u64>,
        rates: Rates,
    ) -> Self {
        Self(Arc::new(Maps {
            counts,
            lookups,
            rates,
        }))
    }

    /// Outcomes since the program was loaded, summed over the CPUs.
    pub fn counts(&self) -> Result<SteerCounts, SteeringError> {
        let per_cpu = (self.0.counts.get(&0, 0))
            .map_err(|error| SteeringError::of_aya("read bpf map", MAP_COUNTS, &error, &[]))?;
        Ok(sum(&per_cpu))
    }

    /// Lookups of each port that is ours, steered or refused, since the program was loaded.
    ///
    /// Shape: 65,536 numbers, by port. Lookups, not connections: a retransmitted SYN is one more, and
    /// the ACK that ends a handshake can be (where SYN cookies are in use it is).
    pub fn lookups(&self) -> Result<Vec<u64>, SteeringError> {
        sys::bpf::lookup_batch(&self.0.lookups)
            .map_err(|error| SteeringError::sys("read bpf map", MAP_LOOKUPS, error, &[]))
    }

    /// Lookups refused by the rate of their port, of those of `ports` that have one, since they have it.
    pub fn limited(
        &self,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<BTreeMap<u16, u64>, SteeringError> {
        self.0.rates.limited(ports)
    }
}

fn sum(per_cpu: &[SteerCounts]) -> SteerCounts {
    per_cpu
        .iter()
        .fold(SteerCounts::default(), |sum, one| SteerCounts {
            steered: sum.steered.wrapping_add(one.steered),
            refused: sum.refused.wrapping_add(one.refused),
            no_listener: sum.no_listener.wrapping_add(one.no_listener),
            failed: sum.failed.wrapping_add(one.failed),
            limited: sum.limited.wrapping_add(one.limited),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_summed_by_itself() {
        let one = SteerCounts {
            steered: 1,
            refused: 20,
            no_listener: 300,
            failed: 4000,
            limited: 50_000,
        };
        assert_eq!(sum(&[]), SteerCounts::default());
        assert_eq!(
            sum(&[one, SteerCounts::default(), one]),
            SteerCounts {
                steered: 2,
                refused: 40,
                no_listener: 600,
                failed: 8000,
                limited: 100_000,
            }
        );
    }
}
