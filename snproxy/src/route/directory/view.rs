//! The directory as connections see it: the hosts by their numbers, swapped whole with each change.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Directory, Host, Versions};
use crate::addr::PortSet;
use crate::wire::directory::{BLOCK, BLOCKS, Serves, block_of, first_of};

/// How far the directory is to be believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Freshness {
    /// As etcd has it.
    Current,
    /// As etcd last had it: it is not reached.
    Stale,
}

/// What the hosts of one list of peers publish.
#[derive(Debug)]
pub struct View {
    pub freshness: Freshness,
    /// Nobody but those that publish can serve a port.
    pub is_complete: bool,
    /// By number of the host.
    hosts: Box<[Option<Arc<Host>>]>,
    presences: Presences,
    /// Ports that some host serves.
    served: PortSet,
    /// Those of the directory then.
    versions: Versions,
}

/// By number of the host.
type Presences = Arc<[Presence]>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Presence {
    /// It does not publish.
    None,
    There,
    Missing,
}

/// What the directory says of one port. It outlives its view, and must not keep alive what hosts published.
#[derive(Debug)]
pub struct Told {
    version: u64,
    freshness: Freshness,
    presences: Presences,
    /// By number of the host, ascending; who is not there does not serve it.
    serve: Box<[(u16, Serves)]>,
}

/// What the directory says of a port and a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Said {
    /// `None`: the host does not serve it.
    pub serves: Option<Serves>,
    /// Nobody needs to ask the host.
    pub is_sure: bool,
}

impl View {
    /// The view of the hosts whose numbers `number` tells, of `count` in all; `before` is one of the same list, from which
    /// is taken what was not changed since.
    pub fn build(
        directory: &Directory,
        count: usize,
        number: impl Fn(SocketAddr) -> Option<usize>,
        freshness: Freshness,
        before: Option<&Self>,
    ) -> Self {
        let mut hosts = vec![None; count];
        for (addr, host) in directory.hosts() {
            if let Some(slot) = number(addr).and_then(|at| hosts.get_mut(at)) {
                *slot = Some(Arc::clone(host));
            }
        }
        let versions = *directory.versions();
        let mut served = before.map_or_else(PortSet::new, |before| before.served.clone());
        for block in 0..BLOCKS {
            let at = usize::from(block);
            if before.is_some_and(|before| before.versions[at] == versions[at]) {
                continue;
            }
            served.remove_range(first_of(block), first_of(block) + (BLOCK - 1));
            let runs = hosts
                .iter()
                .flatten()
                .filter_map(|host| host.blocks.get(&block));
            for run in runs.flat_map(|runs| runs.iter()) {
                served.insert_range(run.first, run.last);
            }
        }
        let presence = |host: &Option<Arc<Host>>| match host {
            None => Presence::None,
            Some(host) if host.is_missing() => Presence::Missing,
            Some(_) => Presence::There,
        };
        let presences: Vec<_> = hosts.iter().map(presence).collect();
        let before = before.map(|before| &before.presences);
        let same = before.filter(|before| before[..] == presences[..]);
        Self {
            freshness,
            is_complete: false,
            presences: same.map_or_else(|| presences.into(), Arc::clone),
            hosts: hosts.into(),
            served,
            versions,
        }
    }

    /// Whether some host serves the port.
    pub fn serves(&self, port: u16) -> bool {
        self.served.contains(port)
    }

    /// Ports that other hosts serve.
    pub fn served(&self) -> &PortSet {
        &self.served
    }

    /// Whether the host of this number publishes what it serves.
    pub fn publishes(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(Option::is_some)
    }

    /// Whether a host was there before etcd was away and has not come back.
    pub fn has_missing(&self) -> bool {
        self.hosts.iter().flatten().any(|host| host.is_missing())
    }

    /// How many hosts publish.
    pub fn len(&self) -> usize {
        self.hosts.iter().flatten().count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is said of a port; `old` if that is still so.
    pub fn told(&self, port: u16, old: Option<&Arc<Told>>) -> Arc<Told> {
        let version = self.versions[usize::from(block_of(port))];
        if let Some(old) = old.filter(|old| old.version == version) {
            return Arc::clone(old);
        }
        let serve = (0..).zip(self.hosts.iter()).filter_map(|(at, host)| {
            let serves = host.as_ref()?.serves(port)?;
            Some((at, serves))
        });
        Arc::new(Told {
            version,
            freshness: self.freshness,
            serve: serve.collect(),
            presences: Arc::clone(&self.presences),
        })
    }
}

impl Told {
    /// `None`: the host does not publish.
    pub fn of(&self, host: usize) -> Option<Said> {
        let presence = self.presences.get(host)?;
        if *presence == Presence::None {
            return None;
        }
        let at = self
            .serve
            .binary_search_by_key(&host, |(at, _)| usize::from(*at));
        Some(Said {
            serves: at.ok().map(|at| self.serve[at].1),
            is_sure: self.freshness == Freshness::Current && *presence == Presence::There,
        })
    }
}
