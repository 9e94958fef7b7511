//! What this host serves, kept in etcd under a lease.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::net::etcd::{Client, EtcdError, Part};
use crate::route::directory::own::Offer;
use crate::wire::directory::{Key, encode_block, encode_name};

use super::{FAREWELL, TTL};

/// Time between two words to etcd that this host is there: two may be lost.
const BEAT: Duration = Duration::from_secs(3);
/// Shortest time between two changes: pods that come one after the other are written together.
const PACE: Duration = Duration::from_millis(100);
/// Wait after a failure, doubled by each further one up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

/// The task that publishes, ended when dropped; the lease ends by itself then.
pub(super) struct Publisher {
    runtime: Handle,
    task: JoinHandle<()>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// 0: none.
    lease: AtomicI64,
    /// All is said.
    is_there: AtomicBool,
    again: Notify,
}

/// What etcd is told, and what it was told.
struct Words {
    client: Arc<Client>,
    /// Of all keys of this host.
    prefix: String,
    host: SocketAddr,
    name: String,
    shared: Arc<Shared>,
    /// Values by key, as they are in etcd under our lease.
    said: BTreeMap<Key, String>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Publisher {
    /// Publishes what `offer` holds, now and later, under the key of `host` below `prefix`.
    pub(super) fn begin(
        runtime: &Handle,
        client: &Arc<Client>,
        prefix: &str,
        name: &str,
        host: SocketAddr,
        offer: watch::Receiver<Offer>,
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let words = Words {
            client: Arc::clone(client),
            prefix: prefix.to_owned(),
            host,
            name: encode_name(name),
            shared: Arc::clone(&shared),
            said: BTreeMap::new(),
        };
        Self {
            runtime: runtime.clone(),
            task: runtime.spawn(words.keep_saying(offer)),
            shared,
        }
    }

    /// Whether all that this host serves is in etcd.
    pub(super) fn is_there(&self) -> bool {
        self.shared.is_there.load(Relaxed)
    }

    /// Writes all of it once more.
    pub(super) fn say_again(&self) {
        self.shared.again.notify_one();
    }

    /// Ends for `next`, which says the same elsewhere, or under another address: nothing is taken back until that is there.
    pub(super) fn give_way(self, client: &Arc<Client>, next: Option<&Self>) {
        self.task.abort();
        let client = Arc::clone(client);
        let next = next.map(|next| Arc::clone(&next.shared));
        // Nobody waits for it: the lease ends by itself as well.
        self.runtime.clone().spawn(async move {
            let is_said = async {
                while next
                    .as_ref()
                    .is_some_and(|next| !next.is_there.load(Relaxed))
                {
                    sleep(PACE).await;
                }
            };
            if timeout(TTL, is_said).await.is_ok() {
                let _ = timeout(FAREWELL, self.end(&client)).await;
            }
        });
    }

    /// Takes this host out of the directory.
    pub(super) async fn end(self, client: &Client) -> Result<(), EtcdError> {
        self.task.abort();
        match self.shared.lease.load(Relaxed) {
            0 => Ok(()),
            lease => client.revoke(lease).await,
        }
    }
}

impl Words {
    /// Never ends: who made the task ends it.
    async fn keep_saying(mut self, mut offer: watch::Receiver<Offer>) {
        let mut wait = FIRST_WAIT;
        let mut has_failed = false;
        loop {
            let Err(error) = self.say(&mut offer, &mut wait, &mut has_failed).await;
            self.shared.is_there.store(false, Relaxed);
            if !std::mem::replace(&mut has_failed, true) {
                warn!(why = %error.why(), "publish in the cluster directory; trying again");
            }
            if matches!(error, EtcdError::NoLease { .. }) {
                self.shared.lease.store(0, Relaxed);
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Says what there is, then every change, and all the time that this host is there; until something fails.
    async fn say(
        &mut self,
        offer: &mut watch::Receiver<Offer>,
        wait: &mut Duration,
        has_failed: &mut bool,
    ) -> Result<std::convert::Infallible, EtcdError> {
        let lease = self.lease().await?;
        let mut beat = Instant::now() + BEAT;
        loop {
            let wanted = offer.borrow_and_update().clone();
            let began = Instant::now();
            self.shared.is_there.store(false, Relaxed);
            self.bring(&wanted, lease, &mut beat).await?;
            self.shared.is_there.store(true, Relaxed);
            *wait = FIRST_WAIT;
            if std::mem::take(has_failed) {
                info!("published in the cluster directory again");
            }
            // So that a burst of changes is few writes.
            sleep_until(began + PACE).await;
            loop {
                tokio::select! {
                    changed = offer.changed() => match changed {
                        Ok(()) => break,
                        // The daemon goes on without: this task is ended with it.
                        Err(_) => std::future::pending().await,
                    },
                    () = self.shared.again.notified() => {
                        self.said.clear();
                        self.read_own().await?;
                        break;
                    }
                    () = sleep_until(beat) => self.beat(lease, &mut beat).await?,
                }
            }
        }
    }

    async fn beat(&self, lease: i64, next: &mut Instant) -> Result<(), EtcdError> {
        *next = Instant::now() + BEAT;
        self.client.keep_alive(lease).await.map(drop)
    }

    /// The lease that there is, if it lives, or a new one under which nothing is said yet.
    async fn lease(&mut self) -> Result<i64, EtcdError> {
        let old = self.shared.lease.load(Relaxed);
        if old != 0 && self.client.keep_alive(old).await.is_ok() {
            return Ok(old);
        }
        let lease = self.client.grant(TTL).await?;
        self.shared.lease.store(lease.id, Relaxed);
        self.said.clear();
        self.read_own().await?;
        Ok(lease.id)
    }

    /// Finds what a process before this one left there: what of it is not said again must go.
    async fn read_own(&mut self) -> Result<(), EtcdError> {
        let own = format!("{}{}", self.prefix, self.host);
        let read = self.client.read(&own, Part::Key).await?;
        for kv in read.kvs {
            let key = str::from_utf8(&kv.key).ok();
            let key = key.and_then(|key| key.strip_prefix(&self.prefix));
            if let Some(Ok(key)) = key.map(Key::decode)
                && key.host == self.host
            {
                // No value that is ever written: whatever there is, it is written anew.
                self.said.insert(key, String::new());
            }
        }
        Ok(())
    }

    /// Writes what differs: blocks first, then the host's own key, which says that they are there.
    async fn bring(
        &mut self,
        offer: &Offer,
        lease: i64,
        beat: &mut Instant,
    ) -> Result<(), EtcdError> {
        let blocks = offer.iter().map(|(block, runs)| {
            let key = Key {
                host: self.host,
                block: Some(*block),
            };
            (key, encode_block(runs))
        });
        let own = Key {
            host: self.host,
            block: None,
        };
        let wanted: Vec<(Key, String)> = blocks.chain([(own, self.name.clone())]).collect();
        let is_wanted = |key: &Key| wanted.iter().any(|(wanted, _)| wanted == key);
        let gone: Vec<Key> = self
            .said
            .keys()
            .copied()
            .filter(|key| !is_wanted(key))
            .collect();
        for key in gone {
            self.client.delete(&self.text(key)).await?;
            self.said.remove(&key);
        }
        for (key, value) in wanted {
            if self.said.get(&key) == Some(&value) {
                continue;
            }
            // Many blocks may take longer than the lease.
            if Instant::now() >= *beat {
                self.beat(lease, beat).await?;
            }
            self.client
                .put(&self.text(key), value.as_bytes(), Some(lease))
                .await?;
            self.said.insert(key, value);
        }
        Ok(())
    }

    fn text(&self, key: Key) -> String {
        format!("{}{}", self.prefix, key.encode())
    }
}
