//! Who may use PORT, and what is said of who may not.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::conf::Conf;
use crate::flow::end::End;

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

/// Whether an address is one of this host. Nothing is sent.
///
/// A bind alone says yes to every address under `ip_nonlocal_bind`.
fn is_own(ip: IpAddr) -> bool {
    match ip {
        // From an address of others there is no route.
        IpAddr::V4(_) => {
            UdpSocket::bind((ip, 0)).is_ok_and(|socket| socket.connect((ip, 1)).is_ok())
        }
        // An own address is reached from itself (RFC 6724, rule 1).
        IpAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok_and(|socket| {
            let connected = socket.connect((ip, 1)).and_then(|()| socket.local_addr());
            connected.is_ok_and(|local| local.ip() == ip)
        }),
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

    #[test]
    fn only_an_address_of_this_host_is_own() {
        assert!(is_own("127.0.0.7".parse().unwrap()));
        assert!(is_own("::1".parse().unwrap()));
        // For documentation: no host has them.
        assert!(!is_own("192.0.2.1".parse().unwrap()));
        assert!(!is_own("2001:db8::1".parse().unwrap()));
    }
}
