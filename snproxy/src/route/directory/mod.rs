//! The cluster directory: what every host says that it serves, as last read.
//!
//! A host that publishes is asked for nothing. One that does not, or that wrote what cannot be read, is asked as without a
//! directory.

pub mod own;
pub mod view;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::own::Offer;
use crate::conf::MAX_HOSTS;
use crate::wire::Invalid;
use crate::wire::directory::{BLOCKS, Key, Run, Serves, block_of, decode_block, decode_name};

/// Most runs of ports of all hosts together, 8 bytes each: more than a thousand hosts have at three pods for each of 60,000
/// ports, wherever these are.
const MAX_RUNS: usize = 1 << 22;

/// All that is in the directory, this host included.
#[derive(Debug)]
pub struct Directory {
    hosts: BTreeMap<SocketAddr, Arc<Host>>,
    /// Of all hosts.
    runs: usize,
    /// Hosts were left out since all was last read: there were too many.
    is_overfull: bool,
    /// Changes so far.
    changes: u64,
    /// By block: the last change that may have been one of it.
    versions: Versions,
}

/// By block: what was made of one with another number is old.
pub type Versions = [u64; BLOCKS as usize];

/// What one host published.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// `None`: its own key is not there, so that its blocks may not be all.
    name: Option<Box<str>>,
    /// Shared: the host is copied whenever one of them changes.
    blocks: BTreeMap<u8, Arc<[Run]>>,
    /// Keys that could not be read.
    unreadable: BTreeSet<Option<u8>>,
    /// It was not there when etcd was back, and nobody saw it go.
    missing: Option<Instant>,
}

/// What a change is about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Touched {
    /// Whether another set of hosts publishes now.
    pub hosts: bool,
    /// Blocks in which something may be other than before; one bit each.
    pub blocks: u64,
}

/// Why something that was published is of no use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unusable {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("more than {MAX_HOSTS} hosts")]
    Hosts,
    #[error("more than {MAX_RUNS} runs of ports")]
    Runs,
}

impl Touched {
    pub const ALL: Self = Self {
        hosts: true,
        blocks: u64::MAX,
    };

    fn one(key: Key) -> Self {
        Self {
            hosts: false,
            blocks: key.block.map_or(0, |block| 1 << block),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.hosts |= other.hosts;
        self.blocks |= other.blocks;
    }

    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl Host {
    /// The name by which it is known in its hosts.conf; `None`: it is to be asked for what it serves.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.unreadable.is_empty())
    }

    pub fn is_missing(&self) -> bool {
        self.missing.is_some()
    }

    /// What it has for a port; `None`: it does not serve it.
    pub fn serves(&self, port: u16) -> Option<Serves> {
        let runs = self.blocks.get(&block_of(port))?;
        let run = runs.get(runs.partition_point(|run| run.last < port))?;
        (run.first <= port).then_some(run.serves)
    }

    /// Its name, even if what else it wrote cannot be read; `None`: it did not say.
    pub fn called(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it publishes this, and nothing else.
    pub fn offers(&self, offer: &Offer) -> bool {
        self.name().is_some() && self.blocks == *offer
    }

    fn runs(&self) -> usize {
        self.blocks.values().map(|runs| runs.len()).sum()
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            runs: 0,
            is_overfull: false,
            changes: 0,
            versions: [0; BLOCKS as usize],
        }
    }
}

impl Directory {
    /// Takes a key as it is now; what changes by it, and why the value is of no use, if it is: its host is to be asked
    /// then.
    pub fn put(&mut self, key: Key, value: &[u8]) -> (Touched, Result<(), Unusable>) {
        let too_many = self.hosts.len() >= MAX_HOSTS;
        let host = match self.hosts.entry(key.host) {
            Entry::Vacant(_) if too_many => {
                // Whether others publish is another answer from the first of them on.
                let touched = Touched {
                    hosts: !std::mem::replace(&mut self.is_overfull, true),
                    blocks: 0,
                };
                return (touched, Err(Unusable::Hosts));
            }
            Entry::Vacant(entry) => entry.insert(Arc::default()),
            Entry::Occupied(entry) => entry.into_mut(),
        };
        let before = host.name().map(str::to_owned);
        if host.is_missing() {
            // It is back, and says anew what it has.
            self.runs -= host.runs();
            *host = Arc::default();
        }
        let host = Arc::make_mut(host);
        let read = match key.block {
            None => decode_name(value).map(|name| {
                host.name = Some(name.into());
            }),
            Some(block) => decode_block(block, value).map(|runs| {
                let old = host.blocks.get(&block).map_or(0, |runs| runs.len());
                self.runs = self.runs - old + runs.len();
                host.blocks.insert(block, runs.into());
            }),
        };
        let read = match read {
            Ok(()) if self.runs > MAX_RUNS => Err(Unusable::Runs),
            read => read.map_err(Unusable::Invalid),
        };
        if let (Err(_), Some(block)) = (&read, key.block)
            && let Some(runs) = host.blocks.remove(&block)
        {
            self.runs -= runs.len();
        }
        if read.is_err() {
            host.unreadable.insert(key.block);
        } else {
            host.unreadable.remove(&key.block);
        }
        let touched = if host.name() == before.as_deref() {
            Touched::one(key)
        } else {
            Touched::ALL
        };
        (self.touch(touched), read)
    }

    /// Takes note that a key is gone. `away` as for [`replace`](Self::replace).
    pub fn delete(&mut self, key: Key, away: Option<Instant>) -> Touched {
        let Some(host) = self.hosts.get_mut(&key.host) else {
            return Touched::default();
        };
        if host.is_missing() {
            return Touched::default();
        }
        if let (None, Some(_), Some(_)) = (key.block, away, host.name()) {
            Arc::make_mut(host).missing = away;
            return self.touch(Touched::ALL);
        }
        let before = host.name().is_some();
        let host = Arc::make_mut(host);
        host.unreadable.remove(&key.block);
        match key.block {
            None => host.name = None,
            Some(block) => {
                let runs = host.blocks.remove(&block);
                self.runs -= runs.map_or(0, |runs| runs.len());
            }
        }
        let touched = if host.name().is_some() == before {
            Touched::one(key)
        } else {
            Touched::ALL
        };
        if host.name.is_none() && host.blocks.is_empty() && host.unreadable.is_empty() {
            self.hosts.remove(&key.host);
        }
        self.touch(touched)
    }

    /// Takes all that is there now, in place of what was. `away`: now, if what happened for some time was not seen; hosts
    /// that are not there any more are kept then until it is certain, for they may not have been able to say so.
    pub fn replace<'v>(
        &mut self,
        read: impl IntoIterator<Item = (Key, &'v [u8])>,
        away: Option<Instant>,
    ) -> Vec<(Key, Unusable)> {
        let before = std::mem::take(&mut self.hosts);
        self.runs = 0;
        self.is_overfull = false;
        self.touch(Touched::ALL);
        let mut unusable = Vec::new();
        for (key, value) in read {
            if let (_, Err(error)) = self.put(key, value) {
                unusable.push((key, error));
            }
        }
        if let Some(now) = away {
            for (addr, mut host) in before {
                let is_known = self.hosts.contains_key(&addr) || host.name().is_none();
                let runs = self.runs + host.runs();
                if is_known || self.hosts.len() >= MAX_HOSTS || runs > MAX_RUNS {
                    continue;
                }
                Arc::make_mut(&mut host).missing.get_or_insert(now);
                self.runs = runs;
                self.hosts.insert(addr, host);
            }
        }
        unusable
    }

    /// Drops the hosts that have been missing for `grace`.
    pub fn drop_missing(&mut self, grace: Duration, now: Instant) -> Touched {
        let mut touched = Touched::default();
        self.hosts.retain(|_, host| {
            let missing = host.missing;
            let is_over =
                missing.is_some_and(|since| now.saturating_duration_since(since) >= grace);
            if is_over {
                self.runs -= host.runs();
                touched = Touched::ALL;
            }
            !is_over
        });
        self.touch(touched)
    }

    /// What anybody made of it is old from now on.
    pub fn turn(&mut self) {
        self.touch(Touched::ALL);
    }

    /// Whether a host may publish that is not known here.
    pub fn is_overfull(&self) -> bool {
        self.is_overfull
    }

    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    fn touch(&mut self, touched: Touched) -> Touched {
        self.changes += 1;
        for (block, version) in self.versions.iter_mut().enumerate() {
            if touched.blocks & (1 << block) != 0 {
                *version = self.changes;
            }
        }
        touched
    }

    /// The hosts that publish, by address, those that are missing among them.
    pub fn hosts(&self) -> impl Iterator<Item = (SocketAddr, &Arc<Host>)> {
        let hosts = self.hosts.iter().map(|(addr, host)| (*addr, host));
        hosts.filter(|(_, host)| host.name().is_some())
    }

    /// All hosts that have something there, whether it can be read or not.
    pub fn all(&self) -> impl Iterator<Item = (SocketAddr, &Host)> {
        self.hosts.iter().map(|(addr, host)| (*addr, &**host))
    }

    /// What is there of one host.
    pub fn host(&self, addr: SocketAddr) -> Option<&Host> {
        self.hosts.get(&addr).map(|host| &**host)
    }

    /// Keys of a host that are there.
    pub fn keys(&self, addr: SocketAddr) -> Vec<Key> {
        let Some(host) = self.hosts.get(&addr) else {
            return Vec::new();
        };
        let unreadable = host.unreadable.iter().copied();
        let named = host.name.is_some().then_some(None);
        let blocks = host.blocks.keys().map(|block| Some(*block));
        let all: BTreeSet<_> = unreadable.chain(named).chain(blocks).collect();
        all.into_iter()
            .map(|block| Key { host: addr, block })
            .collect()
    }
}

#[cfg(test)]
mod tests;
