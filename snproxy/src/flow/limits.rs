//! The limits that a connection is under before it is carried anywhere, and the queues of those that wait for a place.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::conf::{Conf, MaxConn, PortConf};
use crate::diag::printable;
use crate::route::Line;
use crate::route::load::{Count, Limit};
use crate::route::queue::{Queue, Ticket, Waiting};
use crate::route::sources::{SourcePermit, Sources};

use super::Shared;
use super::end::End;
use super::reach::Wanted;
use super::seldom::Seldom;

use shares::{Share, Shares};

/// Most empty queues that are kept for who comes next.
const MAX_EMPTY: usize = 1024;
/// A queue of up to so many may be as long as the files say, whatever the process can hold.
const MIN_QUEUE: u32 = 1024;
/// Time between two looks of who waits first for a pod though nothing was said to be free: on other hosts places come free
/// unsaid.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What counts for a limit, and who waits.
#[derive(Debug)]
pub struct Limits {
    /// All connections, those that other proxies bring among them.
    all: Count,
    /// As many as the descriptors and the memory of the process allow.
    capacity: AtomicU32,
    /// Connections of clients by source.
    shares: Shares,
    above: Seldom,
    queued: Seldom,
    /// Those who wait for a place among all.
    line: Arc<Queue>,
    /// Those of them whom the last tenth is for: they do not stand behind those whom it is not for.
    reserve: Arc<Queue>,
    /// By port: connections of clients.
    ports: Box<[Count]>,
    /// Those who wait for something else; made when the first one does.
    lines: Mutex<HashMap<Thing, Arc<Queue>>>,
    /// In all of `lines`.
    waiting: AtomicUsize,
    /// Told when the table is another one.
    changed: Notify,
    sources: Arc<Sources>,
}

/// What somebody waits for.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Thing {
    /// A place under MAXCONN.
    Any,
    /// A place of this port, under its PORTMAXCONN.
    Port(u16),
    Pod(Line),
}

impl Thing {
    /// The word by which the limit is set.
    pub fn limit(&self) -> &'static str {
        match self {
            Self::Any => "MAXCONN",
            Self::Port(_) => "PORTMAXCONN",
            Self::Pod(_) => "maxConn",
        }
    }
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("a place under MAXCONN"),
            Self::Port(port) => write!(f, "a place under PORTMAXCONN of port {port}"),
            Self::Pod(Line::Port(port)) => write!(f, "a pod of port {port}"),
            Self::Pod(Line::App(app)) => write!(f, "a target of app {}", printable(app)),
        }
    }
}

/// The places of one connection; dropping them frees them.
pub(super) struct Places {
    shared: Arc<Shared>,
    port: u16,
    /// Whether it counts as one of the port's clients.
    is_client: bool,
    /// Boxed: few connections have one.
    #[expect(dead_code, reason = "held for what its drop does")]
    source: Option<Box<SourcePermit>>,
    /// Of a client's source.
    share: Option<Share>,
}

/// One who waits for something in `lines`.
#[derive(Debug)]
struct Waiter<'a> {
    limits: &'a Limits,
    ticket: Ticket,
}

impl Limits {
    pub fn new(now: std::time::Instant) -> Self {
        Self {
            all: Count::default(),
            capacity: AtomicU32::new(u32::MAX),
            shares: Shares::default(),
            above: Seldom::default(),
            queued: Seldom::default(),
            line: Arc::default(),
            reserve: Arc::default(),
            ports: (0..65_536).map(|_| Count::default()).collect(),
            lines: Mutex::default(),
            waiting: AtomicUsize::new(0),
            changed: Notify::new(),
            sources: Arc::new(Sources::new(now)),
        }
    }

    /// Live connections of a port's clients.
    pub fn active(&self, port: u16) -> u32 {
        self.ports[usize::from(port)].active()
    }

    /// All live connections.
    pub fn all(&self) -> u32 {
        self.all.active()
    }

    /// Sets how many connections MAXCONN `auto` stands for.
    pub fn set_capacity(&self, connections: u32) {
        self.capacity.store(connections, Relaxed);
    }

    /// The most connections at once; `None` without a limit.
    pub fn max_conn(&self, conf: &Conf) -> Option<u32> {
        match conf.max_conn {
            MaxConn::Auto => Some(self.capacity.load(Relaxed)).filter(|most| *most < u32::MAX),
            MaxConn::Unlimited => None,
            MaxConn::Count(most) => Some(most.get()),
        }
    }

    /// How many may wait of `most`: the process has to hold them, too.
    fn room(&self, most: u32) -> u32 {
        let capacity = self.capacity.load(Relaxed);
        most.min(capacity.saturating_sub(self.all()).max(MIN_QUEUE))
    }

    fn of_all(&self, conf: &Conf) -> Limit {
        Limit::new(self.max_conn(conf), conf.ports.common().reopen)
    }

    /// Whether one more client of this port and source fits in what the process can hold: the last tenth is for ports
    /// and sources that have less than a tenth.
    fn fits(&self, conf: &Conf, port: u16, share: Share) -> bool {
        if conf.max_conn != MaxConn::Auto {
            return true;
        }
        !self.is_in_last_tenth(conf) || self.may_use_reserve(conf, port, share)
    }

    fn tenth(&self) -> u32 {
        (self.capacity.load(Relaxed) / 10).max(1)
    }

    /// Whether MAXCONN is `auto` and only its last tenth is free.
    fn is_in_last_tenth(&self, conf: &Conf) -> bool {
        let most = self.capacity.load(Relaxed);
        conf.max_conn == MaxConn::Auto && self.all() >= most.saturating_sub(self.tenth())
    }

    /// Whether the last tenth is for this port and source.
    fn may_use_reserve(&self, conf: &Conf, port: u16, share: Share) -> bool {
        let tenth = self.tenth();
        conf.max_conn == MaxConn::Auto
            && self.active(port) < tenth
            && self.shares.active(share) < tenth
    }

    /// Whether somebody waits for a place among all.
    fn is_waited(&self) -> bool {
        !self.line.is_empty() || !self.reserve.is_empty()
    }

    /// A place among all may be free.
    fn wake_lines(&self) {
        self.reserve.wake();
        self.line.wake();
    }

    /// Logs from time to time that connections are reset for want of capacity.
    fn note_above(&self, conf: &Conf, client: SocketAddr, port: u16) {
        if conf.max_conn == MaxConn::Auto
            && let Some(count) = self.above.count(std::time::Instant::now())
        {
            warn!(
                %client, port, count,
                limit = self.capacity.load(Relaxed),
                "reset connections above MAXCONN auto; give the process more descriptors or memory"
            );
        }
    }

    /// Logs from time to time that connections wait for others to end.
    fn note_queued(&self, conf: &Conf) {
        if let Some(count) = self.queued.count(std::time::Instant::now()) {
            let limit = self.max_conn(conf);
            warn!(
                limit,
                count,
                "connections wait, {} is reached",
                conf.name_of_max_conn()
            );
        }
    }

    /// All queues in which somebody waits.
    pub fn lines(&self) -> Vec<(Thing, Vec<Waiting>)> {
        let any = [self.reserve.waiting(), self.line.waiting()].concat();
        let mut lines = vec![(Thing::Any, any)];
        lines.extend(
            self.map()
                .iter()
                .map(|(thing, queue)| (thing.clone(), queue.waiting())),
        );
        lines.retain(|(_, waiting)| !waiting.is_empty());
        lines.sort();
        lines
    }

    /// Limits, pods or what is known of them changed: whoever is first in a queue looks again.
    pub fn look_again(&self) {
        self.changed.notify_waiters();
        self.wake_lines();
        let queues: Vec<_> = self.map().values().cloned().collect();
        for queue in queues {
            queue.wake();
        }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<Thing, Arc<Queue>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for this already.
    pub(super) fn is_waited_for(&self, thing: impl FnOnce() -> Thing) -> bool {
        self.waiting.load(SeqCst) > 0
            && self
                .map()
                .get(&thing())
                .is_some_and(|queue| !queue.is_empty())
    }

    /// This may be free.
    pub(super) fn may_be_free(&self, thing: impl FnOnce() -> Thing) {
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let queue = self.map().get(&thing()).cloned();
        if let Some(queue) = queue {
            queue.wake();
        }
    }

    fn enter(&self, thing: Thing, most: u32, client: SocketAddr) -> Result<Waiter<'_>, End> {
        // Before the queue is joined, so that what comes free from now on is said.
        self.waiting.fetch_add(1, SeqCst);
        let mut map = self.map();
        if map.len() > MAX_EMPTY {
            map.retain(|_, queue| !queue.is_empty());
        }
        let queue = map.entry(thing).or_default();
        // Under the lock: an empty queue may be dropped else.
        let ticket = queue.enter(most, client, std::time::Instant::now());
        drop(map);
        let Some(ticket) = ticket else {
            self.waiting.fetch_sub(1, SeqCst);
            return Err(End::QueueFull);
        };
        Ok(Waiter {
            limits: self,
            ticket,
        })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.limits.waiting.fetch_sub(1, SeqCst);
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let limits = &self.shared.limits;
        if self.is_client {
            limits.ports[usize::from(self.port)].release();
            limits.may_be_free(|| Thing::Port(self.port));
        }
        if let Some(share) = self.share {
            limits.shares.release(share);
        }
        limits.may_be_free(|| Thing::Pod(self.shared.table.load().line(self.port)));
        limits.all.release();
        limits.wake_lines();
    }
}

/// Places for a connection of a client; waits for them where the port has a queue.
///
/// Errors: there are none, or not in time.
pub(super) async fn admit(
    shared: &Arc<Shared>,
    port: u16,
    wanted: &mut Wanted<'_>,
) -> Result<Places, End> {
    let limits = &shared.limits;
    let (source, queue, common_queue) = {
        let conf = &shared.table.load().conf;
        let now = std::time::Instant::now();
        let ports = conf.of_port(port);
        let source = limits
            .sources
            .admit(ports, port, wanted.client.ip(), now)
            .map_err(|_| End::Source)?;
        wanted.until = ports.queue_timeout.map(|limit| Instant::now() + limit);
        (source, ports.queue, conf.ports.common().queue)
    };
    let share = limits.shares.of(wanted.client.ip());
    let all = || {
        let conf = &shared.table.load().conf;
        limits.fits(conf, port, share) && limits.all.admit(limits.of_all(conf))
    };
    let one = || {
        let limit = of_port(shared.table.load().conf.of_port(port));
        limits.ports[usize::from(port)].admit(limit)
    };
    let may_use_reserve = || limits.may_use_reserve(&shared.table.load().conf, port, share);
    let others_wait = limits.is_waited() && (!limits.reserve.is_empty() || !may_use_reserve());
    if others_wait || !all() {
        if common_queue == 0 {
            limits.note_above(&shared.table.load().conf, wanted.client, port);
            return Err(End::Limit);
        }
        limits.note_queued(&shared.table.load().conf);
        let most = limits.room(common_queue);
        wait_for_any(limits, most, wanted, may_use_reserve, all).await?;
    }
    // From here on it is given back, whatever happens.
    let mut places = Places {
        shared: Arc::clone(shared),
        port,
        is_client: false,
        source: source.map(Box::new),
        share: Some(limits.shares.take(share)),
    };
    if limits.is_waited_for(|| Thing::Port(port)) || !one() {
        let waiter = match queue {
            0 => return Err(End::Limit),
            most => limits.enter(Thing::Port(port), wanted.room(most), wanted.client)?,
        };
        wait(&waiter.ticket, wanted, one).await?;
    }
    places.is_client = true;
    Ok(places)
}

/// A place for a connection that a peer brings. It does not wait, for the peer has other hosts to ask, nor does it go
/// before those who do. The last tenth is for clients of this host.
///
/// Errors: there is none.
pub(super) fn admit_peer(shared: &Arc<Shared>, port: u16) -> Result<Places, End> {
    let limits = &shared.limits;
    let table = shared.table.load();
    let others_wait = limits.is_waited() || limits.is_waited_for(|| Thing::Pod(table.line(port)));
    if others_wait
        || limits.is_in_last_tenth(&table.conf)
        || !limits.all.admit(limits.of_all(&table.conf))
    {
        return Err(End::Busy);
    }
    Ok(Places {
        shared: Arc::clone(shared),
        port,
        is_client: false,
        source: None,
        share: None,
    })
}

fn of_port(conf: &PortConf) -> Limit {
    Limit::new(conf.max_conn, conf.reopen)
}

/// Waits for a place among all: in the queue of the reserve for as long as it is for this client, and in the other one
/// from then on.
async fn wait_for_any(
    limits: &Limits,
    most: u32,
    wanted: &mut Wanted<'_>,
    may_use_reserve: impl Fn() -> bool,
    take: impl Fn() -> bool,
) -> Result<(), End> {
    let enter = |queue: &Arc<Queue>, most, client| {
        let ticket = queue.enter(most, client, std::time::Instant::now());
        ticket.ok_or(End::QueueFull)
    };
    let mut most = most;
    if may_use_reserve() {
        let ticket = enter(&limits.reserve, most, wanted.client)?;
        let mut has_place = false;
        // Its port has got a tenth meanwhile: those behind it must not wait for that.
        let take_or_leave = || {
            has_place = take();
            has_place || !may_use_reserve()
        };
        wait(&ticket, wanted, take_or_leave).await?;
        if has_place {
            return Ok(());
        }
        // It has a place in the queues already.
        most = u32::MAX;
    }
    wait(&enter(&limits.line, most, wanted.client)?, wanted, take).await
}

/// Waits in a queue until `take` has a place, by the limits as they are by then.
async fn wait(
    ticket: &Ticket,
    wanted: &mut Wanted<'_>,
    mut take: impl FnMut() -> bool,
) -> Result<(), End> {
    debug!(position = ticket.position(), "waits for a place");
    wanted.has_waited = true;
    loop {
        in_time(wanted.until, turn(ticket)).await?;
        if take() {
            return Ok(());
        }
    }
}

async fn turn(ticket: &Ticket) {
    poll_fn(|cx| ticket.poll_turn(cx)).await;
}

/// The turn of a ticket; where it is the first, it also has one after [`LOOK_AGAIN`].
async fn turn_or_look(ticket: &Ticket) {
    // Whoever becomes the first has a turn by that: thousands need no timer.
    if ticket.position() > 0 {
        return turn(ticket).await;
    }
    while timeout(LOOK_AGAIN, turn(ticket)).await.is_err() {
        if ticket.position() == 0 {
            ticket.wake();
        }
    }
}

/// Errors: it is later than `until`.
async fn in_time(until: Option<Instant>, waited: impl Future<Output = ()>) -> Result<(), End> {
    match until {
        None => waited.await,
        Some(until) => timeout_at(until, waited)
            .await
            .map_err(|_| End::QueueTimeout)?,
    }
    Ok(())
}

/// Waits in the queue of a port until `attempt` comes to something else than that every pod is full.
///
/// Errors: those of `attempt`, or nothing came free in time.
pub(super) async fn wait_for_pod<T, A: Future<Output = Result<T, End>>>(
    shared: &Shared,
    port: u16,
    wanted: Wanted<'_>,
    attempt: impl Fn() -> A,
) -> Result<T, End> {
    let limits = &shared.limits;
    let mut line = shared.table.load().line(port);
    let most = wanted.room(shared.table.load().conf.of_port(port).queue);
    let mut waiter = limits.enter(Thing::Pod(line.clone()), most, wanted.client)?;
    debug!(port, position = waiter.ticket.position(), "waits for a pod");
    loop {
        let changed = limits.changed.notified();
        let is = shared.table.load().line(port);
        if is != line {
            // The port has become another app's, or a mapping's.
            line = is;
            waiter = limits.enter(Thing::Pod(line.clone()), u32::MAX, wanted.client)?;
        }
        tokio::select! {
            biased;
            in_turn = in_time(wanted.until, turn_or_look(&waiter.ticket)) => in_turn?,
            () = changed => continue,
        }
        match attempt().await {
            Err(End::Busy) => {}
            found => return found,
        }
    }
}

mod shares;
#[cfg(test)]
mod tests;
