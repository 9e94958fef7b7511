//! Leases: keys under one are gone when nobody keeps it alive.

use std::time::Duration;

use super::call::{malformed, refused};
use super::error::Code;
use super::json::{Done, Grant, Leased, Line, Number, OfLease};
use super::{Client, EtcdError};

/// A lease as etcd granted it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lease {
    pub id: i64,
    /// etcd may give more than was asked for.
    pub ttl: Duration,
}

impl Client {
    /// A new lease; `ttl` counts in whole seconds, at least one.
    pub async fn grant(&self, ttl: Duration) -> Result<Lease, EtcdError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let ttl = Number(seconds);
        let leased: Leased = self.call("/v3/lease/grant", &Grant { ttl }).await?;
        match (leased.id, seconds_of(leased.ttl)) {
            (Number(0), _) | (_, None) => Err(self.odd("a lease without number or time")),
            (Number(id), Some(ttl)) => Ok(Lease { id, ttl }),
        }
    }

    /// Lets a lease begin anew; gives the time that it has from now.
    ///
    /// Errors: `NoLease` where it is over.
    pub async fn keep_alive(&self, id: i64) -> Result<Duration, EtcdError> {
        let question = OfLease { id: Number(id) };
        let line: Line<Leased> = self.call("/v3/lease/keepalive", &question).await?;
        match (line.result, line.error) {
            (Some(leased), _) => seconds_of(leased.ttl).ok_or(EtcdError::NoLease { id }),
            (None, Some(error)) => {
                let code = error.grpc_code.or(error.code).unwrap_or(0);
                let member = &self.members[self.current()];
                Err(refused(member, code.into(), &error.message))
            }
            (None, None) => Err(self.odd("an answer without a lease")),
        }
    }

    /// Ends a lease, and the keys under it with it; one that is over is no error.
    pub async fn revoke(&self, id: i64) -> Result<(), EtcdError> {
        let question = OfLease { id: Number(id) };
        match self.call::<Done>("/v3/lease/revoke", &question).await {
            Ok(_) => Ok(()),
            Err(error) => match gone(error, Some(id)) {
                EtcdError::NoLease { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    fn odd(&self, what: &str) -> EtcdError {
        malformed(&self.members[self.current()], what)
    }
}

fn seconds_of(Number(ttl): Number) -> Option<Duration> {
    let seconds = u64::try_from(ttl).ok().filter(|ttl| *ttl > 0)?;
    Some(Duration::from_secs(seconds))
}

/// A call with a lease that finds nothing finds no lease.
pub(super) fn gone(error: EtcdError, lease: Option<i64>) -> EtcdError {
    match (error, lease) {
        (
            EtcdError::Refused {
                code: Code::NotFound,
                ..
            },
            Some(id),
        ) => EtcdError::NoLease { id },
        (error, _) => error,
    }
}
