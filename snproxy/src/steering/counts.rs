//! What the program counted.

pub use snproxy_common::steering::SteerCounts;

use super::SteeringError;

/// The program's counters, readable from any thread and for as long as they are held.
#[derive(Clone, Debug)]
pub struct Counters;

impl Counters {
    /// Outcomes since the program was loaded, summed over the CPUs.
    pub fn counts(&self) -> Result<SteerCounts, SteeringError> {
        todo()
    }

    /// Lookups of each port that is ours, steered or refused, since the program was loaded.
    ///
    /// Shape: 65,536 numbers, by port. One client's SYN can be several lookups (retransmits).
    pub fn lookups(&self) -> Result<Vec<u64>, SteeringError> {
        todo()
    }
}

fn todo<T>() -> Result<T, SteeringError> {
    Err(SteeringError::Sys {
        operation: "read",
        object: "map".into(),
        source: std::io::ErrorKind::Unsupported.into(),
    })
}
