//! A client of etcd v3, over the JSON gateway that every member has on its client port.
//!
//! Asks one member after the other until one answers, and stays with it. Every answer has a limit in bytes and in time;
//! what etcd says is checked, never trusted.

mod auth;
mod call;
mod connect;
mod error;
mod follow;
mod json;
mod lease;
mod read;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::conf::Etcd;
use crate::net::tls::ClientConfig;

use auth::Token;
use connect::Member;

pub use error::EtcdError;
pub use follow::{Follow, News};
pub use lease::Lease;
pub use read::{Part, Snapshot};
pub use watch::{Changes, Watch};

/// Longest wait for what one member does: connect, shake hands, and answer.
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// A key and its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyValue {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// Revision of its last change.
    pub revision: i64,
    /// 0: none.
    pub lease: i64,
}

/// What became of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    Put(KeyValue),
    Delete { key: Vec<u8>, revision: i64 },
}

impl Event {
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(KeyValue { key, .. }) | Self::Delete { key, .. } => key,
        }
    }

    fn revision(&self) -> i64 {
        match self {
            Self::Put(KeyValue { revision, .. }) | Self::Delete { revision, .. } => *revision,
        }
    }
}

/// One etcd, by its members.
pub struct Client {
    /// At least one.
    members: Box<[Member]>,
    /// The one that answered last.
    current: AtomicUsize,
    token: Token,
    tls: ArcSwapOption<ClientConfig>,
}

impl Client {
    /// Asks nobody yet. `tls` is for members that are `https`.
    pub fn new(conf: &Etcd, tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            members: conf.endpoints.iter().cloned().map(Member::new).collect(),
            current: AtomicUsize::new(0),
            token: Token::new(conf),
            tls: ArcSwapOption::new(tls),
        }
    }

    /// Other certificates, for the connections made from now on.
    pub fn set_tls(&self, tls: Option<Arc<ClientConfig>>) {
        self.tls.store(tls);
    }

    /// The member that is asked first, for status.
    pub fn member(&self) -> String {
        self.members[self.current()].endpoint.to_string()
    }

    /// When etcd last said something that was good.
    pub fn heard(&self) -> Option<Instant> {
        self.members.iter().filter_map(Member::answered).max()
    }

    fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    fn stay_with(&self, at: usize) {
        self.current.store(at, Ordering::Relaxed);
    }

    /// Begins with another member than this one from now on.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        // Somebody else may have left it already.
        let _ = self
            .current
            .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
