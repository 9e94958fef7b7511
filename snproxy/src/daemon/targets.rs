//! Names of targets are asked for their addresses again when the last answer is no longer good: targets move, the file
//! stays.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::conf::Conf;
use crate::net::dns::{Found, look_up};
use crate::sys::memory;

use super::Daemon;
use super::reload::Why;
use super::world::same_addresses;

/// Shortest time for which an answer is taken, whatever its TTL: 0 is in use.
const MIN_TTL: Duration = Duration::from_secs(1);
/// Longest time for which an answer is taken, whatever its TTL.
const MAX_TTL: Duration = Duration::from_hours(1);
/// Time after which a name that did not resolve is asked for again.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait of a parse for all names that are new together: what is not answered by then is asked for again.
const NEW_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for all names that are asked for again together: those that answer are news.
const RENEWAL_LIMIT: Duration = Duration::from_mins(1);

/// Addresses of names as they last resolved: while nobody can tell, what was known stays true.
#[derive(Debug, Default)]
pub(super) struct Targets(Mutex<HashMap<String, Known>>);

#[derive(Debug)]
struct Known {
    /// None for a name that never resolved.
    addrs: Vec<IpAddr>,
    /// When it is to be asked for again.
    due: Instant,
    /// Why the last look failed.
    failed: Option<io::Error>,
}

impl Targets {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of names, in their order. Blocks while those that nobody asked for yet are asked for; what is no
    /// longer good is left to the renewal, for a name service that is silent must hold up neither start nor edit.
    pub(super) fn resolve(&self, names: &[&str]) -> Vec<io::Result<Vec<IpAddr>>> {
        let new: Vec<&str> = {
            let known = self.lock();
            let is_new = |name: &&&str| !known.contains_key(**name);
            names.iter().filter(is_new).copied().collect()
        };
        self.ask(new, NEW_LIMIT);
        let known = self.lock();
        let resolved = names.iter().map(|name| match known.get(*name) {
            Some(Known { addrs, .. }) if !addrs.is_empty() => Ok(addrs.clone()),
            Some(Known {
                failed: Some(error),
                ..
            }) => Err(again(error)),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        resolved.collect()
    }

    /// Asks for those of the names that are not known or no longer good; true where one has other addresses now. Blocks.
    fn renew(&self, names: &[&str]) -> bool {
        let now = Instant::now();
        let due: Vec<&str> = {
            let known = self.lock();
            let is_due = |name: &&&str| known.get(**name).is_none_or(|known| known.due <= now);
            names.iter().filter(is_due).copied().collect()
        };
        self.ask(due, RENEWAL_LIMIT)
    }

    /// Asks for names, all of them within `limit`; true where one has other addresses now. Blocks.
    fn ask(&self, names: Vec<&str>, limit: Duration) -> bool {
        if names.is_empty() {
            return false;
        }
        let answers = ask(&names, limit);
        let now = Instant::now();
        let mut known = self.lock();
        let mut changed = false;
        for (name, answer) in names.into_iter().zip(answers) {
            let entry = known.entry(name.to_owned()).or_insert_with(|| Known {
                addrs: Vec::new(),
                due: now,
                failed: None,
            });
            changed |= entry.take(name, answer, now);
        }
        changed
    }

    /// Whether one of the names is to be asked for.
    fn is_due<'a>(&self, mut names: impl Iterator<Item = &'a str>, now: Instant) -> bool {
        let known = self.lock();
        names.any(|name| known.get(name).is_none_or(|known| known.due <= now))
    }

    /// Forgets all names but these.
    pub(super) fn keep(&self, conf: &Conf) {
        let names: HashSet<&str> = names(conf).collect();
        self.lock().retain(|name, _| names.contains(name.as_str()));
    }
}

impl Known {
    /// Takes note of an answer; true where the addresses are others now.
    fn take(&mut self, name: &str, answer: io::Result<Found>, now: Instant) -> bool {
        let found = match answer {
            Ok(found) if found.is_whole || self.addrs.is_empty() => found,
            // Half of the addresses would take the others away.
            Ok(_) => return self.fail(name, io::Error::other("half an answer"), now),
            Err(error) => return self.fail(name, error, now),
        };
        if self.failed.take().is_some() && !self.addrs.is_empty() {
            info!(name, "the name of a target resolves again");
        }
        self.due = now + found.ttl.clamp(MIN_TTL, MAX_TTL);
        let changed = !same_addresses(&self.addrs, &found.addrs);
        if changed {
            self.addrs = found.addrs;
        }
        changed
    }

    fn fail(&mut self, name: &str, error: io::Error, now: Instant) -> bool {
        if self.failed.is_none() && !self.addrs.is_empty() {
            warn!(name, %error, "the name of a target does not resolve: its last addresses stay");
        }
        self.failed = Some(error);
        self.due = now + RETRY;
        false
    }
}

/// The same error once more.
fn again(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// Asks the name service. Blocks.
fn ask(names: &[&str], limit: Duration) -> Vec<io::Result<Found>> {
    // Of its own: the first look comes before there is one, and later ones must not wait for it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(look_up(names, limit)),
        Err(error) => names.iter().map(|_| Err(again(&error))).collect(),
    }
}

/// Names of the targets; some may come more than once.
fn names(conf: &Conf) -> impl Iterator<Item = &str> {
    let targets = conf.apps.iter().flat_map(|app| &app.targets);
    targets
        .filter(|target| target.is_name())
        .map(|target| &*target.host)
}

/// The renewal under way, on a thread that may block.
#[derive(Default)]
pub(super) struct Renewal(Option<JoinHandle<bool>>);

impl Renewal {
    /// Whether the renewal under way found other addresses; never without one.
    ///
    /// Cancel safety: yes.
    pub(super) async fn done(&mut self) -> bool {
        let Some(renewal) = &mut self.0 else {
            return pending().await;
        };
        let changed = renewal.await.unwrap_or(false);
        self.0 = None;
        changed
    }
}

impl Daemon {
    /// Begins to ask for the names of targets whose last answer is no longer good.
    pub(super) fn renew_targets(&mut self, now: Instant) {
        let conf = Arc::clone(&self.shared.table.load().conf);
        if self.renewal.0.is_some() || !self.names.targets.is_due(names(&conf), now) {
            return;
        }
        let known = Arc::clone(&self.names);
        self.renewal.0 = Some(tokio::task::spawn_blocking(move || {
            let names: HashSet<&str> = names(&conf).collect();
            let names: Vec<&str> = names.into_iter().collect();
            let changed = known.targets.renew(&names);
            memory::trim();
            changed
        }));
    }

    /// Takes other addresses of targets into the table.
    pub(super) fn targets_renewed(&mut self, changed: bool) {
        if changed {
            self.reload(Why::Names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addrs: &[&str], ttl: u64, is_whole: bool) -> Found {
        Found {
            addrs: addrs.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: Duration::from_secs(ttl),
            is_whole,
        }
    }

    #[test]
    fn a_parse_asks_for_new_names_only() {
        let targets = Targets::default();
        let addr: IpAddr = "10.0.0.1".parse().unwrap();
        let known = Known {
            addrs: vec![addr],
            due: Instant::now(),
            failed: None,
        };
        targets.lock().insert("localhost".to_owned(), known);
        let resolve = |name| targets.resolve(&[name]).remove(0).unwrap();
        assert_eq!(resolve("localhost"), [addr]);
        // Both stand for this host without anybody being asked.
        let loopback = resolve("new.localhost");
        assert!(loopback.iter().all(IpAddr::is_loopback));
        assert!(targets.renew(&["localhost"]));
        assert!(resolve("localhost").iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn an_answer_is_good_for_its_ttl_and_a_failure_changes_nothing() {
        let now = Instant::now();
        let mut known = Known {
            addrs: Vec::new(),
            due: now,
            failed: None,
        };
        let no = || Err(io::ErrorKind::TimedOut.into());
        assert!(!known.take("x", no(), now));
        assert_eq!(known.due, now + RETRY);
        // The first addresses are taken even where they may not be all.
        assert!(known.take("x", Ok(found(&["10.0.0.1"], 0, false)), now));
        assert_eq!((known.due, known.failed.is_none()), (now + MIN_TTL, true));
        assert!(known.take("x", Ok(found(&["10.0.0.2", "::1"], 60, true)), now));
        assert_eq!(known.due, now + Duration::from_mins(1));
        // In another order they are the same.
        assert!(!known.take("x", Ok(found(&["::1", "10.0.0.2"], 1 << 31, true)), now));
        assert_eq!(known.due, now + MAX_TTL);
        assert!(!known.take("x", Ok(found(&["10.0.0.2"], 60, false)), now));
        assert!(!known.take("x", no(), now));
        assert_eq!(known.addrs.len(), 2);
        assert!(known.failed.is_some());
        assert!(known.take("x", Ok(found(&["::1"], 60, true)), now));
        assert!(known.failed.is_none());
    }
}
