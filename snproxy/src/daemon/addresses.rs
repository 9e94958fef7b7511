//! Addresses of all names of the configuration: hosts, targets, HOST and PODHOST. A name is asked for again when its last
//! answer is no longer good: machines move, files stay.

mod family;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::conf::Conf;
use crate::net::dns::{self, Answer, Families, IpVersion, Stamp};
use crate::sys::memory;

use super::Daemon;
use super::names::{host_names, target_names};
use super::reload::Why;
use family::FamilyAddrs;

/// Shortest time for which an answer is used, whatever its TTL: 0 is in use.
const MIN_AGE: Duration = Duration::from_secs(1);
/// The same for each of the names: 1,000 names are asked for every 10 s at most.
const MIN_AGE_PER_NAME: Duration = Duration::from_millis(10);
/// Longest time for which an answer is used, whatever its TTL.
const MAX_AGE: Duration = Duration::from_hours(1);
/// The same for names of hosts.conf and proxy.conf: a host that moved is found within a minute.
const MAX_HOST_AGE: Duration = Duration::from_mins(1);
/// Time after which a name that did not resolve is asked for again; it doubles with each failure.
const RETRY: Duration = Duration::from_secs(5);
const MAX_RETRY: Duration = Duration::from_mins(1);
/// Longest wait of a parse for all names that are new together; later answers come by the renewal.
const NEW_LIMIT: Duration = Duration::from_secs(5);
/// How long a parse waits for the other family of a name once one is known.
const NEW_GRACE: Duration = Duration::from_secs(1);
/// Names that are looked up at once.
const AT_ONCE: usize = 32;

/// Addresses of names as they last resolved: a family that fails keeps its own.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    names: HashMap<String, Name>,
    /// When the first of the names is due; `None`: look.
    next: Option<Instant>,
    /// Version of /etc/hosts and /etc/resolv.conf that the answers belong to.
    stamp: Option<Stamp>,
    /// Whether a name has other addresses since the last call of `take_changed`.
    is_changed: bool,
}

#[derive(Debug)]
struct Name {
    v4: FamilyAddrs,
    v6: FamilyAddrs,
    families: Families,
    due: Instant,
    /// When it was last asked for.
    asked: Instant,
    failures: u32,
    /// Whether it stands in proxy.conf, of which a configuration keeps the address alone.
    is_pinned: bool,
    /// Whether the next parse must not use it unasked.
    is_stale: bool,
    is_under_way: bool,
}

impl Name {
    fn new(families: Families, now: Instant) -> Self {
        Self {
            v4: FamilyAddrs::default(),
            v6: FamilyAddrs::default(),
            families,
            due: now,
            asked: now,
            failures: 0,
            is_pinned: false,
            is_stale: false,
            is_under_way: false,
        }
    }

    fn family(&mut self, version: IpVersion) -> &mut FamilyAddrs {
        match version {
            IpVersion::V4 => &mut self.v4,
            IpVersion::V6 => &mut self.v6,
        }
    }

    /// Whether a question has been asked for each of the families, with whatever outcome.
    fn is_known(&self, families: Families) -> bool {
        let is_known = |family: &FamilyAddrs| family.is_answered || family.failed.is_some();
        (!families.v4 || is_known(&self.v4)) && (!families.v6 || is_known(&self.v6))
    }

    fn addrs(&self) -> Vec<IpAddr> {
        self.v4.addrs().chain(self.v6.addrs()).collect()
    }

    /// Takes one answer; true where the addresses are others now.
    fn take(&mut self, name: &str, version: IpVersion, answer: Answer, now: Instant) -> bool {
        let family = self.family(version);
        let had_failed = family.failed.is_some();
        let is_reported = had_failed && !family.is_empty();
        match answer {
            Answer::Addresses { addrs, ttl } => {
                if is_reported {
                    info!(name, family = shown(version), "the name resolves again");
                }
                family.take(&addrs, ttl, now)
            }
            Answer::Empty => family.take(&[], Duration::ZERO, now),
            Answer::Failed(error) => {
                if !had_failed && !family.is_empty() {
                    let family = shown(version);
                    warn!(name, family, %error, "the name does not resolve: its last addresses stay");
                }
                family.failed = Some(error);
                false
            }
        }
    }

    /// Sets when the name is due again, after all families were noted.
    fn settle(&mut self, shortest: Option<Duration>, min_age: Duration, now: Instant) {
        self.is_under_way = false;
        self.is_stale = false;
        self.asked = now;
        let failed = |family: &FamilyAddrs| family.failed.is_some();
        let has_failed = (self.families.v4 && failed(&self.v4)) || failed(&self.v6);
        if has_failed {
            let retry = RETRY * (1 << self.failures.min(4));
            self.failures += 1;
            let age = shortest.map_or(MAX_RETRY, |ttl| ttl.clamp(min_age, MAX_RETRY));
            // Many names that failed together wait shorter than those that are known.
            self.due = now + retry.min(age).max(min_age / 4).max(MIN_AGE);
        } else {
            self.failures = 0;
            let age = shortest.unwrap_or(RETRY);
            self.due = now + age.clamp(min_age, MAX_AGE);
        }
    }
}

fn shown(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "ipv4",
        IpVersion::V6 => "ipv6",
    }
}

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of names, in their order: those of IPv4, then those of IPv6. Blocks while new names are looked up; what
    /// is no longer good is left to the renewal, for silent name servers must hold up neither start nor edit.
    pub(super) fn resolve(
        &self,
        names: &[&str],
        families: Families,
    ) -> Vec<io::Result<Vec<IpAddr>>> {
        let new: Vec<(String, Families)> = {
            let now = Instant::now();
            let mut known = self.lock();
            let mut new = Vec::new();
            for name in names {
                let entry = known.names.entry((*name).to_owned());
                let entry = entry.or_insert_with(|| Name::new(families, now));
                entry.families = entry.families.or(families);
                if entry.is_stale || !entry.is_known(families) {
                    new.push(((*name).to_owned(), entry.families));
                }
            }
            new
        };
        if !new.is_empty() {
            self.ask_now(&new);
        }
        let known = self.lock();
        let resolved = names.iter().map(|name| {
            let entry = known.names.get(*name);
            let mut addrs = entry.map(Name::addrs).unwrap_or_default();
            addrs.retain(|ip| families.has(IpVersion::of(*ip)));
            if !addrs.is_empty() {
                return Ok(addrs);
            }
            let failed = entry.and_then(|name| {
                let v4 = name.v4.failed.as_ref().filter(|_| families.v4);
                v4.or(name.v6.failed.as_ref())
            });
            Err(match failed {
                Some(error) => io::Error::new(error.kind(), error.to_string()),
                None if entry.is_some_and(|name| name.is_known(families)) => {
                    io::Error::new(io::ErrorKind::NotFound, "no such name")
                }
                None => io::Error::new(io::ErrorKind::TimedOut, "no name server answers"),
            })
        });
        resolved.collect()
    }

    /// The address of HOST or PODHOST.
    pub(super) fn resolve_pinned(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut resolved = self.resolve(&[name], Families::BOTH);
        if let Some(entry) = self.lock().names.get_mut(name) {
            entry.is_pinned = true;
        }
        let resolved = resolved.pop();
        resolved.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
    }

    /// Looks names up, all of them within a limit. Blocks.
    fn ask_now(&self, names: &[(String, Families)]) {
        // Of its own: the first look comes before there is one, and later ones must not wait for it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            runtime.block_on(async {
                let places = Semaphore::new(AT_ONCE);
                let ask = self.ask(names, NEW_GRACE, &places);
                // What is not known by then is due, and comes by the renewal.
                let _ = tokio::time::timeout(NEW_LIMIT, ask).await;
            });
        }
    }

    /// Looks names up, and takes each answer as it comes.
    async fn ask(&self, names: &[(String, Families)], grace: Duration, places: &Semaphore) {
        let asked: Vec<(&str, Families)> = names.iter().map(|(name, it)| (&**name, *it)).collect();
        let in_hosts = dns::from_hosts(&asked);
        let resolver = dns::resolver();
        let grace = grace.min(resolver.timeout());
        let mut left = Vec::new();
        for ((name, families), addrs) in asked.into_iter().zip(in_hosts) {
            match addrs {
                Some(addrs) => self.take_hosts(name, families, &addrs),
                None => left.push((name, families)),
            }
        }
        // Made beforehand: with a closure in it the stream could not be part of a task.
        let look_ups: Vec<_> = left
            .into_iter()
            .map(|(name, families)| self.look_up(name, families, grace, &resolver, places))
            .collect();
        let mut look_ups = stream::iter(look_ups).buffer_unordered(AT_ONCE);
        while look_ups.next().await.is_some() {}
    }

    async fn look_up(
        &self,
        name: &str,
        families: Families,
        grace: Duration,
        resolver: &dns::Resolver,
        places: &Semaphore,
    ) {
        // Never closed.
        let _place = places.acquire().await;
        let mut shortest: Option<Duration> = None;
        let mut note = |version, answer: Answer| {
            if let Answer::Addresses { ttl, .. } = &answer {
                shortest = Some(shortest.map_or(*ttl, |other| other.min(*ttl)));
            }
            let mut known = self.lock();
            if let Some(entry) = known.names.get_mut(name) {
                let is_changed = entry.take(name, version, answer, Instant::now());
                known.is_changed |= is_changed;
            }
        };
        resolver.look_up(name, families, grace, &mut note).await;
        self.settle(name, shortest);
    }

    /// Takes the addresses of /etc/hosts, which stay until the file changes.
    fn take_hosts(&self, name: &str, families: Families, addrs: &[IpAddr]) {
        let mut known = self.lock();
        if let Some(entry) = known.names.get_mut(name) {
            let mut is_changed = false;
            for version in [IpVersion::V4, IpVersion::V6] {
                if families.has(version) {
                    let of_family = addrs.iter().filter(|ip| IpVersion::of(**ip) == version);
                    let addrs: Vec<IpAddr> = of_family.copied().collect();
                    // The file has all addresses at once: a set there never turns.
                    is_changed |= entry.family(version).replace(&addrs, Instant::now());
                }
            }
            known.is_changed |= is_changed;
        }
        drop(known);
        self.settle(name, Some(MAX_AGE));
    }

    fn settle(&self, name: &str, shortest: Option<Duration>) {
        let now = Instant::now();
        let mut known = self.lock();
        let count = u32::try_from(known.names.len()).unwrap_or(u32::MAX);
        let min_age = MIN_AGE
            .max(MIN_AGE_PER_NAME.saturating_mul(count))
            .min(MAX_RETRY);
        if let Some(entry) = known.names.get_mut(name) {
            entry.settle(shortest, min_age, now);
            let due = entry.due.min(now + MAX_HOST_AGE);
            known.next = known.next.map(|next| next.min(due));
        }
    }

    /// Names of a configuration that are due, all of which the caller looks up.
    fn take_due(&self, conf: &Conf, now: Instant) -> Vec<(String, Families)> {
        let hosts: HashSet<&str> = host_names(conf).collect();
        let targets: HashSet<&str> = target_names(conf).collect();
        let mut known = self.lock();
        let mut next = now + MAX_AGE;
        let mut names = Vec::new();
        for (name, entry) in &mut known.names {
            let is_host = entry.is_pinned || hosts.contains(name.as_str());
            if entry.is_under_way || !(is_host || targets.contains(name.as_str())) {
                continue;
            }
            let due = if is_host {
                entry.due.min(entry.asked + MAX_HOST_AGE)
            } else {
                entry.due
            };
            if due <= now {
                entry.is_under_way = true;
                names.push((name.clone(), entry.families));
            } else {
                next = next.min(due);
            }
        }
        known.next = Some(next);
        names
    }

    /// Whether a name may be due.
    fn is_due(&self, now: Instant) -> bool {
        self.lock().next.is_none_or(|next| next <= now)
    }

    /// Has all names looked up again: by the renewal, and by a parse that comes before it.
    pub(super) fn expire(&self) {
        let now = Instant::now();
        let mut known = self.lock();
        known.next = None;
        for entry in known.names.values_mut() {
            entry.is_stale = true;
            entry.due = now;
        }
    }

    /// Has all names looked up again where /etc/hosts or /etc/resolv.conf changed.
    fn note_files(&self, stamp: Stamp) {
        let mut known = self.lock();
        let before = known.stamp.replace(stamp);
        if before.is_some_and(|before| before != stamp) {
            let now = Instant::now();
            known.next = None;
            known.names.values_mut().for_each(|name| name.due = now);
        }
    }

    /// Whether a name has other addresses than at the last call.
    fn take_changed(&self) -> bool {
        std::mem::take(&mut self.lock().is_changed)
    }

    /// Forgets all names but these and the pinned ones.
    pub(super) fn keep(&self, conf: &Conf) {
        let names = host_names(conf).chain(target_names(conf));
        let wanted: HashSet<&str> = names.collect();
        let mut known = self.lock();
        known
            .names
            .retain(|name, entry| entry.is_pinned || wanted.contains(name.as_str()));
        known.next = None;
    }
}

impl Daemon {
    /// Begins to look up the names that are due, and takes addresses that changed into the table.
    pub(super) fn renew_names(&mut self, now: Instant) {
        let addresses = &self.names.addresses;
        addresses.note_files(Stamp::now());
        if addresses.is_due(now) {
            let due = addresses.take_due(&self.shared.table.load().conf, now);
            if !due.is_empty() {
                let (names, places) = (Arc::clone(&self.names), Arc::clone(&self.look_ups));
                tokio::spawn(async move {
                    let grace = dns::resolver().timeout();
                    names.addresses.ask(&due, grace, &places).await;
                    memory::trim();
                });
            }
        }
        if addresses.take_changed() {
            self.reload(Why::Names);
        }
    }
}

/// Look-ups of the renewal at once.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}
