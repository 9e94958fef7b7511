//! Which limits on time hold for a connection.
//!
//! Of a connection that crosses hosts each one sees one end itself. Both have all the limits, for the other one may be
//! told other ones, or know none; what is about the end that a host does not see it leaves to the other one for a
//! second more, so that each limit ends a connection once, and by the host that can say why.

use std::time::Duration;

use crate::conf::{Lifetime, PortConf};
use crate::pump::Timeouts;

/// By how much the host goes first whose own end it is.
const HEAD_START: Duration = Duration::from_secs(1);

/// What this host sees itself of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sees {
    Both,
    /// The pod is another host's.
    Client,
    /// The client is another host's.
    Pod,
}

/// `None`: no limit. `random` bits say how much shorter than others this one lives.
pub(super) fn timeouts(
    conf: &PortConf,
    sees: Sees,
    random: impl FnOnce() -> u64,
) -> Option<Box<Timeouts>> {
    let of = |own: bool| {
        let later = if own { Duration::ZERO } else { HEAD_START };
        move |limit: Duration| limit.saturating_add(later)
    };
    let of_client = of(sees != Sees::Pod);
    let of_pod = of(sees != Sees::Client);
    let lifetime = |Lifetime { time, jitter }| match sees {
        // The other host may have drawn any.
        Sees::Pod => time,
        Sees::Both | Sees::Client => {
            time.saturating_sub(part(time, random()) / 100 * u32::from(jitter))
        }
    };
    let timeouts = Timeouts {
        idle: conf.idle_timeout.map(of_client),
        client_idle: conf.client_idle_timeout.map(of_client),
        upstream_idle: conf.upstream_idle_timeout.map(of_pod),
        first_byte: conf.first_byte_timeout.map(of_pod),
        linger: conf.linger_timeout.map(of_client),
        lifetime: conf.max_lifetime.map(lifetime).map(of_client),
    };
    timeouts.boxed()
}

/// A random part of `whole`.
pub(super) fn part(whole: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let nanos = (u128::from(nanos) * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(100);

    fn conf() -> PortConf {
        PortConf {
            first_byte_timeout: Some(TIME),
            idle_timeout: Some(TIME),
            client_idle_timeout: Some(TIME),
            upstream_idle_timeout: Some(TIME),
            linger_timeout: Some(TIME),
            max_lifetime: Some(Lifetime {
                time: TIME,
                jitter: 10,
            }),
            ..PortConf::default()
        }
    }

    #[test]
    fn each_limit_is_first_reached_where_its_end_is() {
        let [both, client, pod] = [Sees::Both, Sees::Client, Sees::Pod]
            .map(|sees| *timeouts(&conf(), sees, || 0).unwrap());
        let later = Some(TIME + HEAD_START);
        let now = Some(TIME);
        assert_eq!(
            both,
            Timeouts {
                idle: now,
                client_idle: now,
                upstream_idle: now,
                first_byte: now,
                linger: now,
                lifetime: now,
            }
        );
        assert_eq!(
            client,
            Timeouts {
                upstream_idle: later,
                first_byte: later,
                ..both
            }
        );
        assert_eq!(
            pod,
            Timeouts {
                upstream_idle: now,
                first_byte: now,
                idle: later,
                client_idle: later,
                linger: later,
                lifetime: later,
            }
        );
        assert!(timeouts(&PortConf::default(), Sees::Both, || 0).is_none());
    }

    #[test]
    fn a_lifetime_is_shorter_by_up_to_its_jitter() {
        let lifetime = |sees, random| {
            timeouts(&conf(), sees, || random)
                .unwrap()
                .lifetime
                .unwrap()
        };
        assert_eq!(lifetime(Sees::Both, 0), TIME);
        assert_eq!(lifetime(Sees::Client, 1 << 63), TIME * 19 / 20);
        let least = TIME * 9 / 10;
        let shortest = lifetime(Sees::Both, u64::MAX);
        assert!((least..least + Duration::from_millis(1)).contains(&shortest));
        // It outlives any of the other host's.
        assert_eq!(lifetime(Sees::Pod, u64::MAX), TIME + HEAD_START);
    }
}
