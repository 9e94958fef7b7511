//! The cluster directory: what this host serves goes there, what the others serve comes from there.
//!
//! Both are tasks of their own, for etcd may be slow or away; the daemon takes what they bring. Nothing is awaited here
//! but at the end, when this host leaves the directory.

mod dispute;
mod known;
mod publish;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

use crate::admin::api;
use crate::conf::{Conf, Etcd};
use crate::flow::questions;
use crate::net::etcd::{Client, Follow, News, Part};
use crate::route::Table;
use crate::route::directory::own::{Fullness, Offer, offer};
use crate::route::directory::view::View;

use super::Daemon;
use dispute::Dispute;
use known::Known;
use publish::Publisher;

/// How long a host that does not say that it is there stays in the directory.
const TTL: Duration = Duration::from_secs(10);
/// Time since the last word of etcd after which what it said counts as stale: the change of its leader, or of one member
/// that is silent for the next one, takes less.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// Shortest time between two changes of the routes: a burst of changes is one.
const PACE: Duration = Duration::from_millis(100);
/// Changes that wait for the daemon; then the task that brings them does.
const WAITING: usize = 64;
/// Longest wait for etcd at the end; the lease ends by itself as well.
const FAREWELL: Duration = Duration::from_millis(500);

/// Where etcd's keys of a cluster begin.
fn prefix(cluster: &str) -> String {
    format!("/snproxy/{cluster}/hosts/")
}

/// Which directory, and who this host is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Place {
    etcd: Arc<Etcd>,
    cluster: Box<str>,
    /// `None`: this host is not reached by others, and publishes nothing.
    own: Option<(Box<str>, SocketAddr)>,
}

impl Place {
    /// `None`: there is no directory. Without PORT there are no other hosts.
    fn of(conf: &Conf) -> Option<Self> {
        if conf.port == 0 {
            return None;
        }
        let cluster = conf.cluster.clone()?;
        Some(Self {
            etcd: Arc::clone(conf.etcd.as_ref()?),
            cluster,
            own: conf.published_as(),
        })
    }
}

/// The tasks that talk with etcd, and what they brought.
#[derive(Default)]
pub(super) struct Directory {
    running: Option<Running>,
    fullness: Fullness,
}

struct Running {
    place: Place,
    client: Arc<Client>,
    news: mpsc::Receiver<News>,
    following: JoinHandle<()>,
    publisher: Option<Publisher>,
    offer: watch::Sender<Offer>,
    known: Known,
    /// When the routes are next changed by what came.
    due: Option<Instant>,
    applied: Option<Instant>,
    dispute: Dispute,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// What happened.
#[derive(Debug)]
pub(super) enum Told {
    News(News),
    /// It is time to change the routes.
    Due,
}

impl Directory {
    /// What etcd says, or that it is time to take it into the routes; never without a directory.
    ///
    /// Cancel safety: yes.
    pub(super) async fn told(&mut self) -> Told {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let due = running.due;
        let wait = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(news) = running.news.recv() => Told::News(news),
            () = wait => Told::Due,
        }
    }

    /// Hosts that only the directory names, for a table of this configuration.
    pub(super) fn further(&self, conf: &Conf) -> Vec<(Box<str>, SocketAddr)> {
        let running = self.running.as_ref();
        running.map_or_else(Vec::new, |running| running.known.further(conf))
    }

    /// Has the connections of a table see what is known.
    pub(super) fn show_to(&self, table: &Table) {
        match &self.running {
            Some(running) => running.known.show_to(table, Instant::now()),
            None => table.peers.set_view(None),
        }
    }

    /// Says what this host serves, where that is other than before.
    pub(super) fn publish(&mut self, table: &Table, now: Instant) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.publisher.is_none() {
            return;
        }
        let offered = offer(table, &mut self.fullness, now);
        let is_new = running.offer.send_if_modified(|offer| {
            let is_new = *offer != offered;
            *offer = offered;
            is_new
        });
        if is_new {
            // Under load it may never be what etcd has: what was said is on its way.
            running.dispute.is_on_its_way();
        }
    }

    /// For `snproxy status`.
    pub(super) fn state(&self, table: &Table) -> Option<api::Directory> {
        let running = self.running.as_ref()?;
        let own = running.place.own.as_ref();
        let published = running.publisher.as_ref().is_some_and(Publisher::is_there);
        Some(api::Directory {
            cluster: running.place.cluster.to_string(),
            etcd: running.client.member(),
            published_as: own.map(|(_, addr)| addr.to_string()),
            published,
            ..running.known.state(table)
        })
    }

    /// Begins, ends or begins anew to talk with etcd, by what the configuration says.
    fn follow(&mut self, conf: &Conf, runtime: &Handle) {
        let place = Place::of(conf);
        if self.running.as_ref().map(|running| &running.place) == place.as_ref() {
            return;
        }
        let mut before = self.running.take();
        self.running = place.map(|place| Running::begin(place, before.as_mut(), runtime));
        let Some(mut before) = before else { return };
        if let Some(publisher) = before.publisher.take() {
            let next = self.running.as_ref();
            let next = next.filter(|next| next.place.cluster == before.place.cluster);
            let next = next.and_then(|next| next.publisher.as_ref());
            publisher.give_way(&before.client, next);
        }
    }
}

impl Running {
    /// What was known `before` goes on to hold, if it was of the same cluster.
    fn begin(place: Place, before: Option<&mut Self>, runtime: &Handle) -> Self {
        let client = Arc::new(Client::new(&place.etcd, None));
        let prefix = prefix(&place.cluster);
        let (bring, news) = mpsc::channel(WAITING);
        let mut follow = Follow::new(Arc::clone(&client), &prefix, Part::KeyAndValue);
        let following =
            runtime.spawn(async move { while bring.send(follow.next().await).await.is_ok() {} });
        let (offer, offered) = watch::channel(Offer::new());
        // Why there may be none is said by the look at the files.
        let publisher = place
            .own
            .as_ref()
            .map(|(name, addr)| Publisher::begin(runtime, &client, &prefix, name, *addr, offered));
        let own = place.own.as_ref().map(|(_, addr)| *addr);
        let mut known =
            before.map_or_else(Known::default, |before| std::mem::take(&mut before.known));
        known.begin_anew(prefix, own, Instant::now());
        Self {
            known,
            place,
            client,
            news,
            following,
            publisher,
            offer,
            due: None,
            applied: None,
            dispute: Dispute::default(),
        }
    }

    /// The routes are to follow, soon.
    fn is_changed(&mut self, now: Instant) {
        let earliest = self.applied.map_or(now, |applied| applied + PACE);
        self.due.get_or_insert(earliest.max(now));
    }

    /// Says all anew where etcd has lost it, or somebody else wrote it.
    fn mend(&mut self, now: Instant) {
        let Some(publisher) = &self.publisher else {
            return;
        };
        let is_odd = publisher.is_there()
            && self.known.is_current(now)
            && !self.known.has_own(&self.offer.borrow());
        if self.dispute.look(is_odd, now) {
            warn!(
                "what the cluster directory has of this host is not what it said, which it says again: \
                 does another snproxy publish at the same address?"
            );
            publisher.say_again();
        }
    }
}

impl Daemon {
    /// Follows the directory of the configuration in force.
    pub(super) fn follow_directory(&mut self) {
        let table = self.shared.table.load_full();
        let was_on = self.directory.running.is_some();
        let runtime = self.etcd.runtime().clone();
        self.directory.follow(&table.conf, &runtime);
        match &mut self.directory.running {
            Some(running) => {
                running.client.set_tls(self.loaded.certs().etcd());
                if running.applied.is_none() {
                    running.is_changed(Instant::now());
                }
            }
            None if was_on => self.route_by_directory(),
            _ => {}
        }
        self.directory.publish(&table, Instant::now());
    }

    /// Takes note of what etcd says.
    pub(super) fn directory_told(&mut self, told: Told) {
        let now = Instant::now();
        match told {
            Told::Due => self.route_by_directory(),
            Told::News(news) => {
                if let Some(running) = &mut self.directory.running
                    && running.known.note(news, now)
                {
                    running.is_changed(now);
                }
            }
        }
    }

    /// What time brings, without a word from etcd.
    pub(super) fn look_at_directory(&mut self, now: Instant) {
        let table = self.shared.table.load_full();
        self.directory.publish(&table, now);
        let Some(running) = &mut self.directory.running else {
            return;
        };
        running.mend(now);
        if running.known.look(&table, running.client.heard(), now) {
            running.is_changed(now);
        }
        self.probe_left(&table);
    }

    /// Finds whether hosts that left the directory went or only publish no more.
    fn probe_left(&self, table: &Table) {
        let known = self.directory.running.iter().map(|running| &running.known);
        let left = known.flat_map(Known::left);
        for at in left.filter_map(|addr| table.peers.number(addr)) {
            if table.peers.list()[at].is_up() {
                let from = table.conf.dial_from;
                questions::probe(&self.shared, &table.peers, at, from);
            }
        }
    }

    /// Brings the table and the kernel to what is known.
    fn route_by_directory(&mut self) {
        let now = Instant::now();
        let old = self.shared.table.load_full();
        if let Some(running) = &mut self.directory.running {
            running.due = None;
            running.applied = Some(now);
            running.known.say_for_clients(&old.conf);
            running.known.report_left_out(&old.conf);
        }
        let before = old.peers.view();
        let further = self.directory.further(&old.conf);
        let is_same = old.has_further(&further);
        let table = if is_same {
            old
        } else {
            let new = Table::build_among(Arc::clone(&old.conf), &further, Some(&old), now);
            Arc::new(new)
        };
        self.directory.show_to(&table);
        let after = table.peers.view();
        self.shared.table.store(Arc::clone(&table));
        let said = |view: &Option<Arc<View>>| {
            let view = view.as_ref()?;
            Some((view.is_complete, view.served().clone()))
        };
        if !is_same || said(&before) != said(&after) {
            self.steerer.bring(&table);
        }
        if let Some(after) = &after {
            self.find(&table, before.as_deref(), after);
        }
        self.probe_left(&table);
        self.shared.limits.look_again();
        self.shared.answered.notify_waiters();
    }

    /// Asks hosts that were away, and publish by now, whether they are back.
    fn find(&self, table: &Table, before: Option<&View>, after: &View) {
        for (at, peer) in table.peers.list().iter().enumerate() {
            let has_come = after.publishes(at) && !before.is_some_and(|view| view.publishes(at));
            if has_come && !peer.is_up() {
                questions::probe(&self.shared, &table.peers, at, table.conf.dial_from);
            }
        }
    }

    /// Leaves the directory, so that nobody sends anybody here any more.
    pub(super) async fn leave_directory(&mut self) {
        let Some(running) = &mut self.directory.running else {
            return;
        };
        let Some(publisher) = running.publisher.take() else {
            return;
        };
        match timeout(FAREWELL, publisher.end(&running.client)).await {
            Ok(Ok(())) => info!("left the cluster directory"),
            Ok(Err(error)) => warn!(why = %error.why(), "leave the cluster directory"),
            Err(_) => warn!("leave the cluster directory: etcd does not answer"),
        }
    }
}
