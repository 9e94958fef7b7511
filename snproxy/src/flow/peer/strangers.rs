//! Who may use PORT, and what is said of who may not.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::conf::Conf;
use crate::flow::end::End;
use crate::net::own::is_own;

/// Time between two lines about strangers.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Refused connections: said now and then, as long as they come.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<Refused>);

#[derive(Debug, Default)]
struct Refused {
    said: Option<Instant>,
    /// Not said yet.
    since: u64,
}

impl Strangers {
    /// Errors: [`End::Stranger`] where PORT is not for `from`, which connected to `asked`.
    pub(super) fn check(&self, conf: &Conf, from: IpAddr, asked: IpAddr) -> Result<(), End> {
        // Asked last: it makes a system call or two.
        if conf.allows_peer(from) || from == asked || is_own(from) {
            return Ok(());
        }
        if let Some(refused) = self.count(Instant::now()) {
            warn!(
                source = %from, refused,
                "refused on PORT: add it to hosts.conf or to PEERS if it is one of the cluster"
            );
        }
        Err(End::Stranger)
    }

    /// How many were refused since this was last said; `None` while it is too early to say it again.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.since += 1;
        let quiet = |said: Instant| now.saturating_duration_since(said) < SAY_AGAIN;
        if refused.said.is_some_and(quiet) {
            return None;
        }
        refused.said = Some(now);
        Some(std::mem::take(&mut refused.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_strangers_are_one_line_with_their_number() {
        let strangers = Strangers::default();
        let start = Instant::now();
        let after = |seconds| strangers.count(start + Duration::from_secs(seconds));
        assert_eq!(after(0), Some(1));
        assert_eq!(after(1), None);
        assert_eq!(after(9), None);
        assert_eq!(after(10), Some(3));
        assert_eq!(after(11), None);
    }
}
