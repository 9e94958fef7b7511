//! What is known of the other hosts from the directory, and how far that is to be believed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::admin::api;
use crate::conf::{Conf, HostAddr, MAX_HOSTS};
use crate::net::etcd::{Changes, Event, News, Snapshot};
use crate::route::Table;
use crate::route::directory::own::Offer;
use crate::route::directory::view::{Freshness, View};
use crate::route::directory::{Directory, Touched, Unusable};
use crate::wire::Invalid;
use crate::wire::directory::Key;

use super::{STALE_AFTER, TTL};

/// How long a host must not be reached to be counted out: less than it is known of one that it left the directory, so that
/// it is never counted in between.
const AWAY_FOR: Duration = Duration::from_secs(5);

/// Most keys of which it is said that they could not be read.
const MAX_SAID: usize = 16;

#[derive(Default)]
pub(super) struct Known {
    prefix: String,
    own: Option<SocketAddr>,
    directory: Directory,
    /// Something was read.
    is_read: bool,
    /// The last word of etcd, since it is not reached.
    lost: Option<Instant>,
    /// The same, where nobody has found out why yet.
    silent: Option<Instant>,
    /// Why not, as last heard.
    why: String,
    is_stale: bool,
    /// When it was reached again after it had been away for long.
    back: Option<Instant>,
    /// Hosts that published until then: gone most likely, back in a moment, or without ETCD from now on.
    left: BTreeMap<SocketAddr, Left>,
    /// By address, with their names.
    publishing: BTreeMap<SocketAddr, Box<str>>,
    /// Keys that could not be read, as said.
    said: BTreeSet<String>,
}

struct Left {
    name: Box<str>,
    since: Instant,
}

impl Known {
    /// From now on another etcd is asked, or this host has another address; all is forgotten where the cluster is another
    /// one.
    pub(super) fn begin_anew(&mut self, prefix: String, own: Option<SocketAddr>, now: Instant) {
        if self.prefix != prefix {
            let mut directory = std::mem::take(&mut self.directory);
            // Not a new one: what was made of it is not to pass for what is made of the next.
            directory.replace([], None);
            *self = Self {
                prefix,
                directory,
                ..Self::default()
            };
        }
        self.own = own;
        self.lost = self.is_read.then(|| self.lost.unwrap_or(now));
        "no answer yet".clone_into(&mut self.why);
    }

    /// Takes note of what etcd says; true where the routes are to follow.
    pub(super) fn note(&mut self, news: News, now: Instant) -> bool {
        let touched = match news {
            News::Lost(error, heard) => {
                self.why = error.why();
                if self.lost.is_none() && !self.is_read {
                    warn!(
                        why = self.why,
                        "the cluster directory cannot be read: other hosts are asked instead"
                    );
                }
                self.lost.get_or_insert(heard.unwrap_or(now));
                return false;
            }
            News::All(snapshot) => {
                self.is_reached(now);
                self.read(&snapshot, now);
                Touched::ALL
            }
            News::Changed(changes) => {
                let was_stale = self.is_reached(now);
                let mut touched = self.change(&changes, now);
                touched.hosts |= was_stale;
                touched
            }
        };
        self.touch(touched)
    }

    /// True where something is other than before.
    fn touch(&mut self, touched: Touched) -> bool {
        if touched.hosts {
            self.note_publishing();
        }
        !touched.is_nothing()
    }

    /// True where it was stale before.
    fn is_reached(&mut self, now: Instant) -> bool {
        self.lost = None;
        self.silent = None;
        let was_stale = std::mem::take(&mut self.is_stale);
        if was_stale {
            self.directory.turn();
            self.back = Some(now);
            info!("the cluster directory is current again");
        }
        was_stale
    }

    /// Now, while hosts that are not there may just not have been able to say so.
    fn away(&self, now: Instant) -> Option<Instant> {
        let back = self.back?;
        (now.saturating_duration_since(back) < TTL).then_some(now)
    }

    fn read(&mut self, snapshot: &Snapshot, now: Instant) {
        let mut keys = Vec::new();
        for kv in &snapshot.kvs {
            match self.key(&kv.key) {
                Ok(key) => keys.push((key, kv.value.as_slice())),
                Err(error) => self.say(&kv.key, &error.into()),
            }
        }
        let away = self.away(now);
        let unusable = self.directory.replace(keys, away);
        for (key, error) in unusable {
            self.say(key.encode().as_bytes(), &error);
        }
        if !std::mem::replace(&mut self.is_read, true) {
            let hosts = self.directory.hosts().count();
            info!(hosts, "the cluster directory is read");
        }
    }

    fn change(&mut self, changes: &Changes, now: Instant) -> Touched {
        let away = self.away(now);
        let mut all = Touched::default();
        for event in &changes.events {
            let key = match self.key(event.key()) {
                Ok(key) => key,
                Err(error) => {
                    self.say(event.key(), &error.into());
                    continue;
                }
            };
            let touched = match event {
                Event::Put(kv) => {
                    let (touched, read) = self.directory.put(key, &kv.value);
                    if let Err(error) = read {
                        self.say(event.key(), &error);
                    }
                    touched
                }
                Event::Delete { .. } => self.directory.delete(key, away),
            };
            all.add(touched);
        }
        all
    }

    fn key(&self, key: &[u8]) -> Result<Key, Invalid> {
        let text = str::from_utf8(key).map_err(|_| Invalid("text"))?;
        let rest = text.strip_prefix(&self.prefix);
        Key::decode(rest.ok_or(Invalid("prefix"))?)
    }

    /// Says of a key, once, that it is of no use.
    fn say(&mut self, key: &[u8], error: &Unusable) {
        let key = String::from_utf8_lossy(key);
        let key = crate::diag::printable(&key).into_owned();
        if self.said.len() < MAX_SAID && self.said.insert(key.clone()) {
            warn!(key, %error, "a key of the cluster directory is of no use; its host is asked instead");
        }
    }

    fn note_publishing(&mut self) {
        let since = Instant::now();
        let hosts = self.directory.hosts();
        let publishing: BTreeMap<_, Box<str>> = hosts
            .filter_map(|(addr, host)| Some((addr, host.name()?.into())))
            .collect();
        for (addr, name) in std::mem::take(&mut self.publishing) {
            let is_room = self.left.len() + publishing.len() < MAX_HOSTS;
            if !publishing.contains_key(&addr) && is_room {
                self.left.insert(addr, Left { name, since });
            }
        }
        self.left.retain(|addr, _| !publishing.contains_key(addr));
        self.publishing = publishing;
    }

    /// What time brings; true where the routes are to follow.
    /// `heard` is the last word of etcd.
    pub(super) fn look(&mut self, table: &Table, heard: Option<Instant>, now: Instant) -> bool {
        let mut touched = self.directory.drop_missing(TTL, now);
        let is_long = |since: &Instant| now.saturating_duration_since(*since) >= STALE_AFTER;
        self.silent = heard.filter(is_long);
        let lost = self.lost.or(self.silent);
        if self.is_stale && lost.is_none() {
            touched.hosts |= self.is_reached(now);
        }
        if !self.is_stale && self.is_read && lost.as_ref().is_some_and(is_long) {
            if self.lost.is_none() {
                "no answer".clone_into(&mut self.why);
            }
            self.is_stale = true;
            self.directory.turn();
            touched.hosts = true;
            warn!(
                why = self.why,
                "etcd is not reached: the cluster directory goes on as it was, and other hosts are asked too"
            );
        }
        let before = self.left.len();
        self.left
            .retain(|_, left| now.saturating_duration_since(left.since) < TTL);
        touched.hosts |= self.left.len() != before;
        let was_complete = table.peers.view().is_some_and(|view| view.is_complete);
        let view = table.peers.view();
        let is_complete = view.is_some_and(|view| self.is_complete(&view, table, now));
        self.touch(touched) || was_complete != is_complete
    }

    /// Hosts that left the directory lately.
    pub(super) fn left(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.left.keys().copied()
    }

    pub(super) fn is_current(&self, now: Instant) -> bool {
        let is_reached =
            self.is_read && self.lost.or(self.silent).is_none() && self.away(now).is_none();
        is_reached && !self.directory.is_overfull()
    }

    /// Whether etcd has this of this host, and nothing else.
    pub(super) fn has_own(&self, offer: &Offer) -> bool {
        let host = self.own.and_then(|own| self.directory.host(own));
        host.is_some_and(|host| host.offers(offer))
    }

    /// Hosts that only the directory names, this one left out; those that just left are there until it is certain.
    pub(super) fn further(&self, conf: &Conf) -> Vec<(Box<str>, SocketAddr)> {
        let listed: BTreeSet<_> = conf.other_hosts().filter_map(HostAddr::addr).collect();
        let dialled_at = dialled_at(conf);
        let this = conf.this_host.and_then(|at| conf.hosts.get(at));
        let is_this = |addr: SocketAddr| {
            Some(addr) == self.own
                || (addr.port() == conf.port && conf.comes_back(addr.ip(), conf.port))
                || this
                    .is_some_and(|this| this.port == addr.port() && this.addrs.contains(&addr.ip()))
        };
        let there = self.directory.all().map(|(addr, host)| {
            let name = host
                .called()
                .map_or_else(|| addr.ip().to_string(), str::to_owned);
            (addr, name.into_boxed_str())
        });
        let mut all: BTreeMap<SocketAddr, Box<str>> = there.collect();
        for (addr, left) in &self.left {
            if all.len() < MAX_HOSTS {
                all.entry(*addr).or_insert_with(|| left.name.clone());
            }
        }
        all.retain(|addr, _| {
            let is_listed = listed.contains(&dialled_at(*addr));
            let is_left_out = conf.target_nets.left_out(addr.ip()).is_some();
            !is_this(*addr) && !is_listed && !is_left_out && !conf.is_for_clients(addr.port())
        });
        all.into_iter().map(|(addr, name)| (name, addr)).collect()
    }

    /// Hosts that publish at addresses outside TARGETNETS, those of hosts.conf not among them.
    fn left_out(&self, conf: &Conf) -> Vec<SocketAddr> {
        let listed: HashSet<_> = conf.other_hosts().filter_map(HostAddr::addr).collect();
        let dialled_at = dialled_at(conf);
        let hosts = self.directory.all().map(|(addr, _)| addr);
        hosts
            .filter(|addr| conf.target_nets.left_out(addr.ip()).is_some())
            .filter(|addr| !listed.contains(&dialled_at(*addr)))
            .collect()
    }

    /// Reports hosts at addresses outside TARGETNETS, each once.
    pub(super) fn report_left_out(&mut self, conf: &Conf) {
        for host in self.left_out(conf) {
            if self.said.len() < MAX_SAID && self.said.insert(host.to_string()) {
                warn!(
                    %host,
                    "a host of the cluster directory is left out: its address is outside TARGETNETS"
                );
            }
        }
    }

    /// Says of hosts, once of each, that they are none: a host that takes who calls it there for a client goes on to the
    /// others, maybe to this one by such a port, without end.
    pub(super) fn say_for_clients(&mut self, conf: &Conf) {
        let listed: HashSet<_> = conf.other_hosts().filter_map(HostAddr::addr).collect();
        let dialled_at = dialled_at(conf);
        let hosts = self.directory.all().map(|(addr, _)| addr);
        let left_out = hosts
            .filter(|addr| conf.is_for_clients(addr.port()))
            .filter(|addr| !listed.contains(&dialled_at(*addr)));
        for host in left_out {
            if self.said.len() < MAX_SAID && self.said.insert(host.to_string()) {
                warn!(
                    %host,
                    "a host of the cluster directory is left out: its port is a cluster port here, and not PORT \
                     (if it is right, name it in hosts.conf, or take the port out of CLUSTERPORTS)"
                );
            }
        }
    }

    /// Has the connections of a table see what is known; nothing, as long as nothing was read.
    pub(super) fn show_to(&self, table: &Table, now: Instant) {
        if !self.is_read {
            return table.peers.set_view(None);
        }
        let list = table.peers.list().iter().zip(0..);
        let numbers: HashMap<_, usize> = list.map(|(peer, at)| (peer.addr(), at)).collect();
        let dialled_at = dialled_at(&table.conf);
        let number = |addr| numbers.get(&dialled_at(addr)).copied();
        let freshness = if self.is_stale {
            Freshness::Stale
        } else {
            Freshness::Current
        };
        let before = table.peers.view();
        let mut view = View::build(
            &self.directory,
            table.peers.list().len(),
            number,
            freshness,
            before.as_deref(),
        );
        view.is_complete = self.is_complete(&view, table, now);
        table.peers.set_view(Some(Arc::new(view)));
    }

    /// Whether nobody can serve a port but who says so: all hosts publish, but for those that are away.
    fn is_complete(&self, view: &View, table: &Table, now: Instant) -> bool {
        let is_away = |addr: &SocketAddr, at: usize| {
            let health = table.peers.list()[at].upstream.health();
            let for_long = |since| now.saturating_duration_since(since) >= AWAY_FOR;
            // One that leaves may live on, without ETCD: it is asked.
            (self.left.contains_key(addr) && !health.is_up())
                || (!health.is_up() && health.since().is_some_and(for_long))
        };
        let mut peers = table.peers.list().iter().zip(0..);
        self.is_read
            && !self.is_stale
            && !self.directory.is_overfull()
            && !view.has_missing()
            && peers.all(|(peer, at)| view.publishes(at) || is_away(&peer.addr(), at))
    }

    /// The part of the status that is known here.
    pub(super) fn state(&self, table: &Table) -> api::Directory {
        let view = table.peers.view();
        let state = match (self.is_read, self.is_stale) {
            (false, _) => "unread",
            (true, true) => "stale",
            (true, false) => "current",
        };
        let lost = self.lost.or(self.silent);
        let lost = lost.filter(|_| self.is_stale || !self.is_read);
        let lost = lost.map(|lost| u64::try_from(lost.elapsed().as_millis()).unwrap_or(u64::MAX));
        api::Directory {
            state: state.to_owned(),
            lost_ms: lost,
            hosts: view.as_ref().map_or(0, |view| view.len()),
            ports: view.as_ref().map_or(0, |view| view.served().len()),
            left_out: self.left_out(&table.conf).len(),
            complete: view.is_some_and(|view| view.is_complete),
            ..api::Directory::default()
        }
    }
}

/// Where the configuration dials a host: by another of its addresses, maybe, than the one it publishes.
fn dialled_at(conf: &Conf) -> impl Fn(SocketAddr) -> SocketAddr + use<> {
    let addrs = conf.other_hosts().flat_map(|host| {
        let dialled = host.addr().into_iter();
        dialled.flat_map(move |addr| {
            let ips = host.addrs.iter();
            ips.map(move |ip| (SocketAddr::new(*ip, host.port), addr))
        })
    });
    let addrs: HashMap<_, _> = addrs.collect();
    move |addr| addrs.get(&addr).copied().unwrap_or(addr)
}

#[cfg(test)]
mod tests;
