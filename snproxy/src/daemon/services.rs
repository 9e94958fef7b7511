//! Nodes of services: read from etcd once, then followed; what was last known goes on while etcd is away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use tracing::{info, warn};

use crate::admin::api;
use crate::conf::{Conf, Etcd, Nodes, UpstreamVerify};
use crate::diag::{Diagnostic, printable};
use crate::discovery::certs::Store;
use crate::net::etcd::{Client, EtcdError, Event, Follow, KeyValue, News, Part, Snapshot};
use crate::net::tls::{ClientConfig, client_config};

use super::Daemon;

/// Longest wait of a parse for services that are new: what is not known by then comes later.
const NEW_LIMIT: Duration = Duration::from_secs(2);
/// For how long changes are gathered after one that was passed on at once.
const BURST: Duration = Duration::from_millis(50);
/// Most keys of one service that are kept; conf uses fewer.
const MAX_KEPT: usize = 100_000;
/// Most keys that are no `ip:port` which are remembered as such.
const MAX_IGNORED: usize = 1000;
/// Most of these of one service that are said.
const MAX_WARNED: usize = 16;
/// Nodes that came or went which one line of the log lists.
const MAX_SAID: usize = 8;

/// What is known of services, by their keys.
#[derive(Debug, Default)]
pub(super) struct Services(Mutex<HashMap<Box<str>, Known>>);

#[derive(Debug, Default)]
struct Known {
    /// By key, the service's own part cut off.
    by_key: BTreeMap<Vec<u8>, SocketAddr>,
    nodes: Option<Arc<[SocketAddr]>>,
    /// Keys that are no `ip:port`.
    ignored: HashSet<Vec<u8>>,
    /// How many of them were said: whoever writes there may go on for ever.
    warned: usize,
    revision: i64,
    /// Whether the log is told of it. What is read before that may come before there is a log.
    is_followed: bool,
    /// Which etcd said so.
    cluster: String,
    /// Since when etcd does not answer, and why.
    lost: Option<(Instant, String)>,
    /// That was said.
    is_said: bool,
    /// Nodes may have come or gone since they were last settled.
    is_unsettled: bool,
}

impl Services {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes of services, in their order. Blocks while those that nobody asked for yet are asked for.
    pub(super) fn nodes(&self, etcd: &Etcd, keys: &[&str], certs: &Store) -> Vec<Nodes> {
        let new: Vec<&str> = {
            let known = self.lock();
            let is_new = |key: &&&str| !known.contains_key(**key);
            keys.iter().filter(is_new).copied().collect()
        };
        if !new.is_empty() {
            self.ask(etcd, &new, certs);
        }
        let known = self.lock();
        let nodes = |key: &&str| match known.get(*key) {
            Some(Known {
                nodes: Some(nodes), ..
            }) => Ok(Arc::clone(nodes)),
            Some(Known {
                lost: Some((_, why)),
                ..
            }) => Err(why.clone()),
            _ => Err("it was not asked yet".to_owned()),
        };
        keys.iter().map(nodes).collect()
    }

    /// Asks for services, all of them within a limit. Blocks.
    fn ask(&self, etcd: &Etcd, keys: &[&str], certs: &Store) {
        // Of its own: the first look comes before there is one, and later ones must not wait for it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        // What is wrong with them is said where they are loaded.
        let tls = tls(etcd, certs, SystemTime::now()).unwrap_or(None);
        let client = Client::new(etcd, tls);
        let ask = async {
            for key in keys {
                // The others would fail as well.
                let read = client.read(&prefix(key), Part::Key).await?;
                self.take(key, News::All(read));
            }
            Ok::<_, EtcdError>(())
        };
        let asked = runtime.block_on(async { timeout(NEW_LIMIT, ask).await });
        // Said by who follows them, from now on: this may come before there is a log.
        let why = match asked {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.why(),
            Err(_) => format!("no answer within {NEW_LIMIT:?}"),
        };
        let mut known = self.lock();
        for key in keys {
            let known = known.entry((*key).into()).or_default();
            if known.nodes.is_none() {
                known.lost = Some((Instant::now(), why.clone()));
            }
        }
    }

    /// What is to be followed from; `None`: it is to be read first.
    fn snapshot(&self, key: &str) -> Option<Snapshot> {
        let known = self.lock();
        let known = known.get(key).filter(|known| known.nodes.is_some())?;
        Some(Snapshot {
            kvs: Vec::new(),
            revision: known.revision,
            cluster: known.cluster.clone(),
        })
    }

    /// Takes what etcd said; true where the nodes are others now.
    fn take(&self, key: &str, news: News) -> bool {
        self.note(key, news);
        self.settle(key)
    }

    /// Takes note of what etcd said: the nodes are as before until they are settled.
    fn note(&self, key: &str, news: News) {
        let mut known = self.lock();
        let known = known.entry(key.into()).or_default();
        let prefix = prefix(key);
        match news {
            News::All(read) => {
                known.by_key.clear();
                known.cluster = read.cluster;
                let ignored = std::mem::take(&mut known.ignored);
                for kv in read.kvs {
                    known.put(&prefix, &kv, &ignored);
                }
                known.is_heard(key, read.revision);
            }
            News::Changed(changes) => {
                for event in &changes.events {
                    known.apply(&prefix, event);
                }
                known.is_heard(key, changes.revision);
            }
            News::Lost(error, heard) => {
                let why = error.why();
                if !std::mem::replace(&mut known.is_said, true) {
                    let nodes = if known.nodes.is_some() {
                        "the nodes known last go on"
                    } else {
                        "there are no nodes until it does"
                    };
                    warn!(service = key, %why, "etcd does not answer: {nodes}");
                }
                let since = known.lost.take().map(|(since, _)| since);
                known.lost = Some((since.or(heard).unwrap_or_else(Instant::now), why));
            }
        }
    }

    /// Makes the nodes of what was noted; true where they are others now.
    fn settle(&self, key: &str) -> bool {
        let mut known = self.lock();
        let Some(known) = known.get_mut(key).filter(|known| known.is_unsettled) else {
            return false;
        };
        known.is_unsettled = false;
        let nodes: Arc<[SocketAddr]> = known.by_key.values().copied().collect();
        let before = known.nodes.replace(Arc::clone(&nodes));
        if before.as_ref() == Some(&nodes) {
            return false;
        }
        if known.is_followed {
            known.say_nodes(key, &before.unwrap_or_default());
        }
        true
    }

    /// From now on the log is told of a service, and of what was known of it before.
    fn follow(&self, key: &str) {
        let mut known = self.lock();
        let known = known.entry(key.into()).or_default();
        if std::mem::replace(&mut known.is_followed, true) || known.nodes.is_none() {
            return;
        }
        known.say_nodes(key, &[]);
        let mut ignored: Vec<_> = known.ignored.iter().collect();
        ignored.sort_unstable();
        for own in ignored.into_iter().take(MAX_WARNED) {
            say_ignored(&[prefix(key).as_bytes(), own].concat());
            known.warned += 1;
        }
    }

    /// Forgets all services but these.
    fn keep(&self, keys: &HashSet<&str>) {
        self.lock().retain(|key, _| keys.contains(&**key));
    }

    pub(super) fn status(&self) -> Vec<api::Service> {
        let known = self.lock();
        let mut services: Vec<api::Service> = known
            .iter()
            .map(|(key, known)| api::Service {
                key: key.to_string(),
                nodes: known.nodes.as_ref().map(|nodes| nodes.len()),
                ignored: known.ignored.len(),
                revision: known.revision,
                stale_ms: known
                    .lost
                    .as_ref()
                    .map(|(since, _)| super::report::millis(since.elapsed())),
                why_stale: known.lost.as_ref().map(|(_, why)| why.clone()),
            })
            .collect();
        services.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        services
    }
}

impl Known {
    /// etcd answers, and this is what it said last.
    fn is_heard(&mut self, service: &str, revision: i64) {
        self.revision = revision;
        self.is_unsettled = true;
        self.is_said = false;
        if let Some((since, _)) = self.lost.take() {
            info!(service, away = ?since.elapsed(), "etcd answers again");
        }
    }

    fn say_nodes(&self, key: &str, before: &[SocketAddr]) {
        let nodes = self.nodes.as_deref().unwrap_or_default();
        info!(
            service = key,
            nodes = nodes.len(),
            came = list(nodes, before),
            left = list(before, nodes),
            revision = self.revision,
            "nodes"
        );
    }

    fn apply(&mut self, prefix: &str, event: &Event) {
        match event {
            Event::Put(kv) => self.put(prefix, kv, &HashSet::new()),
            Event::Delete { key, .. } => {
                self.by_key.remove(own(prefix, key));
                self.ignored.remove(own(prefix, key));
            }
        }
    }

    /// Takes a key; one that is no address is said once, unless it was among `ignored` already.
    fn put(&mut self, prefix: &str, kv: &KeyValue, ignored: &HashSet<Vec<u8>>) {
        let own = own(prefix, &kv.key);
        if let Some(node) = node(own) {
            // What it was registered with is nothing to us: a refreshed key changes nothing.
            if self.by_key.len() < MAX_KEPT || self.by_key.contains_key(own) {
                self.by_key.insert(own.to_vec(), node);
            }
            return;
        }
        let is_new = self.ignored.len() < MAX_IGNORED && self.ignored.insert(own.to_vec());
        let is_said = !self.is_followed || ignored.contains(own);
        if is_new && !is_said && self.warned < MAX_WARNED {
            self.warned += 1;
            say_ignored(&kv.key);
        }
    }
}

fn say_ignored(key: &[u8]) {
    let key = String::from_utf8_lossy(key);
    warn!(key = %printable(&key), "ignored: expected ip:port after the key of the service");
}

/// Where the keys of a service's nodes begin.
fn prefix(key: &str) -> String {
    format!("{key}/")
}

/// A key without the part that is the service's.
fn own<'a>(prefix: &str, key: &'a [u8]) -> &'a [u8] {
    key.strip_prefix(prefix.as_bytes()).unwrap_or(key)
}

fn node(key: &[u8]) -> Option<SocketAddr> {
    let node: SocketAddr = std::str::from_utf8(key).ok()?.parse().ok()?;
    let node = SocketAddr::new(node.ip().to_canonical(), node.port());
    (node.port() > 0).then_some(node)
}

/// Nodes of one list that the other one has not, for the log.
fn list(nodes: &[SocketAddr], other: &[SocketAddr]) -> Option<String> {
    let other: HashSet<&SocketAddr> = other.iter().collect();
    let only = nodes.iter().filter(|node| !other.contains(node));
    let count = only.clone().count();
    let said: Vec<String> = only.take(MAX_SAID).map(ToString::to_string).collect();
    let mut said = said.join(" ");
    if let Some(more) = count.checked_sub(MAX_SAID).filter(|more| *more > 0) {
        let _ = write!(said, " and {more} more");
    }
    (count > 0).then_some(said)
}

/// What etcd is asked with, as its certificates are now; `None` where it has none. Blocks.
///
/// Errors: what is wrong with them.
pub fn tls(
    etcd: &Etcd,
    certs: &Store,
    now: SystemTime,
) -> Result<Option<Arc<ClientConfig>>, Diagnostic> {
    let Some(source) = &etcd.certs else {
        return Ok(None);
    };
    let texts = certs.read(source)?;
    client_config(&texts, UpstreamVerify::Ca, &[], now).map(Some)
}

/// The services that are followed, each by a task.
#[derive(Default)]
pub(super) struct Followed {
    etcd: Option<(Arc<Etcd>, Arc<Client>)>,
    tasks: HashMap<Box<str>, JoinHandle<()>>,
    changed: Arc<Notify>,
}

impl Followed {
    /// Returns when a service has other nodes.
    ///
    /// Cancel safety: yes.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

impl Daemon {
    /// Follows the services of `conf`, and no others.
    pub(super) fn follow_services(&mut self, conf: &Conf) {
        let services = conf.apps.iter().filter_map(|app| app.srv.as_ref());
        let keys: HashSet<&str> = services.map(|srv| &*srv.key).collect();
        // Files that wait go on from what they were parsed with, should etcd be away by then.
        if !self.loaded.waits() {
            self.names.services.keep(&keys);
        }
        let followed = &mut self.followed;
        let before = followed.etcd.as_ref().map(|(etcd, _)| etcd);
        let is_same = before == conf.etcd.as_ref();
        // What another etcd said is read anew: revisions and names of two may be alike.
        let is_other = before.is_some() && !is_same;
        followed.tasks.retain(|key, task| {
            let stays = is_same && keys.contains(&**key);
            if !stays {
                task.abort();
            }
            stays
        });
        let Some(etcd) = conf.etcd.as_ref().filter(|_| !keys.is_empty()) else {
            followed.etcd = None;
            return;
        };
        let tls = self.loaded.certs().etcd();
        if !is_same {
            let client = Arc::new(Client::new(etcd, None));
            followed.etcd = Some((Arc::clone(etcd), client));
        }
        let Some((_, client)) = &followed.etcd else {
            return;
        };
        client.set_tls(tls);
        for key in keys {
            if followed.tasks.contains_key(key) {
                continue;
            }
            self.names.services.follow(key);
            let prefix = prefix(key);
            let follow = match self.names.services.snapshot(key) {
                Some(read) if !is_other => {
                    Follow::from(Arc::clone(client), &prefix, Part::Key, &read)
                }
                _ => Follow::new(Arc::clone(client), &prefix, Part::Key),
            };
            let names = Arc::clone(&self.names);
            let changed = Arc::clone(&followed.changed);
            let service: Box<str> = key.into();
            let task = self.etcd.runtime().spawn(async move {
                keep_up(follow, &names.services, &service, &changed).await;
            });
            followed.tasks.insert(key.into(), task);
        }
    }
}

/// Takes note of all that becomes of one service; the first change is passed on at once, those that come right after it
/// together.
async fn keep_up(mut follow: Follow, services: &Services, service: &str, changed: &Notify) {
    loop {
        if !services.take(service, follow.next().await) {
            continue;
        }
        changed.notify_one();
        let end = tokio::time::Instant::now() + BURST;
        // Settled once, at the end: of thousands that come at once each would be compared with all.
        while let Ok(news) = timeout_at(end, follow.next()).await {
            services.note(service, news);
        }
        if services.settle(service) {
            changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
