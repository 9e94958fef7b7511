//! The limits that a connection is under before it is carried anywhere, and the queues of those that wait for a place.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::conf::{Conf, PortConf};
use crate::route::load::{Count, Limit};
use crate::route::queue::{Queue, Ticket, Waiting};
use crate::route::sources::{SourcePermit, Sources};

use super::Shared;
use super::end::End;

/// What counts for a limit, and who waits.
#[derive(Debug)]
pub struct Limits {
    /// All connections, those that other proxies bring among them.
    all: Count,
    /// Those who wait for a place among all.
    line: Arc<Queue>,
    /// By port: connections of clients.
    ports: Box<[Count]>,
    /// Those who wait for a place of one port; made when the first one does.
    lines: Mutex<HashMap<u16, Arc<Queue>>>,
    /// In all of `lines`.
    waiting: AtomicUsize,
    sources: Arc<Sources>,
}

/// The places of one connection; dropping them frees them.
#[derive(Debug)]
pub(super) struct Places {
    limits: Arc<Limits>,
    port: u16,
    /// The port in whose queue others wait for the same places.
    line: u16,
    /// Whether it counts as one of the port's clients.
    is_client: bool,
    /// Boxed: few connections have one.
    #[expect(dead_code, reason = "held for what its drop does")]
    source: Option<Box<SourcePermit>>,
}

/// One who waits for a place of a port.
#[derive(Debug)]
struct Waiter<'a> {
    limits: &'a Limits,
    ticket: Ticket,
}

/// Those who wait for one thing, in their order.
#[derive(Debug)]
pub struct Line {
    /// `None`: for a place among all.
    pub port: Option<u16>,
    pub waiting: Vec<Waiting>,
}

impl Limits {
    pub fn new(now: std::time::Instant) -> Self {
        Self {
            all: Count::default(),
            line: Arc::default(),
            ports: (0..65_536).map(|_| Count::default()).collect(),
            lines: Mutex::default(),
            waiting: AtomicUsize::new(0),
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

    /// All queues in which somebody waits.
    pub fn lines(&self) -> Vec<Line> {
        let all = Line {
            port: None,
            waiting: self.line.waiting(),
        };
        let mut lines = vec![all];
        lines.extend(self.map().iter().map(|(port, queue)| Line {
            port: Some(*port),
            waiting: queue.waiting(),
        }));
        lines.retain(|line| !line.waiting.is_empty());
        lines.sort_by_key(|line| line.port);
        lines
    }

    /// Limits may have changed: whoever is first in a queue looks again.
    pub fn look_again(&self) {
        self.line.wake();
        for queue in self.map().values() {
            queue.wake();
        }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<u16, Arc<Queue>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue_of(&self, port: u16) -> Arc<Queue> {
        Arc::clone(self.map().entry(port).or_default())
    }

    /// Whether somebody waits for a place of this port.
    pub(super) fn is_waited_for(&self, port: u16) -> bool {
        self.waiting.load(SeqCst) > 0
            && self.map().get(&port).is_some_and(|queue| !queue.is_empty())
    }

    /// A place of this port may be free.
    pub(super) fn may_be_free(&self, port: u16) {
        if self.waiting.load(SeqCst) == 0 {
            return;
        }
        let queue = self.map().get(&port).cloned();
        if let Some(queue) = queue {
            queue.wake();
        }
    }

    fn enter(&self, port: u16, most: u32, client: SocketAddr) -> Result<Waiter<'_>, End> {
        // Before the queue is joined, so that a place that comes free from now on is said.
        self.waiting.fetch_add(1, SeqCst);
        let queue = self.queue_of(port);
        if let Some(ticket) = queue.enter(most, client, std::time::Instant::now()) {
            Ok(Waiter {
                limits: self,
                ticket,
            })
        } else {
            self.waiting.fetch_sub(1, SeqCst);
            Err(End::QueueFull)
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.limits.waiting.fetch_sub(1, SeqCst);
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let limits = &self.limits;
        if self.is_client {
            limits.ports[usize::from(self.port)].release();
        }
        limits.may_be_free(self.line);
        limits.all.release();
        limits.line.wake();
    }
}

/// Places for a connection of a client; waits for them where the port has a queue.
///
/// Errors: there are none, or not in time.
pub(super) async fn admit(shared: &Shared, port: u16, client: SocketAddr) -> Result<Places, End> {
    let limits = &shared.limits;
    let table = shared.table.load_full();
    let (conf, line) = (table.conf.of_port(port), table.line(port));
    let now = std::time::Instant::now();
    let source = limits
        .sources
        .admit(conf, port, client.ip(), now)
        .map_err(|_| End::Source)?;
    let all = |conf: &Conf| limits.all.admit(of_all(conf));
    let one = |conf: &Conf| limits.ports[usize::from(port)].admit(of_port(conf.of_port(port)));
    let common = table.conf.ports.common();
    if !limits.line.is_empty() || !all(&table.conf) {
        let ticket = match common.queue {
            0 => return Err(End::Limit),
            most => limits.line.enter(most, client, now).ok_or(End::QueueFull)?,
        };
        wait(shared, &ticket, conf.queue_timeout, all).await?;
    }
    // From here on it is given back, whatever happens.
    let mut places = Places {
        limits: Arc::clone(limits),
        port,
        line,
        is_client: false,
        source: source.map(Box::new),
    };
    if limits.is_waited_for(line) || !one(&table.conf) {
        let waiter = match conf.queue {
            0 => return Err(End::Limit),
            most => limits.enter(line, most, client)?,
        };
        wait(shared, &waiter.ticket, conf.queue_timeout, one).await?;
    }
    places.is_client = true;
    Ok(places)
}

/// A place for a connection that a peer brings; it does not wait, for the peer has other hosts to ask.
///
/// Errors: there is none.
pub(super) fn admit_peer(shared: &Shared, port: u16) -> Result<Places, End> {
    let limits = &shared.limits;
    let table = shared.table.load();
    let (limit, line) = (of_all(&table.conf), table.line(port));
    if !limits.all.admit(limit) {
        return Err(End::Busy);
    }
    Ok(Places {
        limits: Arc::clone(limits),
        port,
        line,
        is_client: false,
        source: None,
    })
}

fn of_all(conf: &Conf) -> Limit {
    Limit::new(conf.max_conn, conf.ports.common().reopen)
}

fn of_port(conf: &PortConf) -> Limit {
    Limit::new(conf.max_conn, conf.reopen)
}

/// Waits in a queue until `take` has a place, by the limits as they are by then.
async fn wait(
    shared: &Shared,
    ticket: &Ticket,
    limit: Option<Duration>,
    take: impl Fn(&Conf) -> bool,
) -> Result<(), End> {
    debug!(position = ticket.position(), "waits for a place");
    let until = limit.map(|limit| Instant::now() + limit);
    loop {
        in_time(until, turn(ticket)).await?;
        if take(&shared.table.load().conf) {
            return Ok(());
        }
    }
}

async fn turn(ticket: &Ticket) {
    poll_fn(|cx| ticket.poll_turn(cx)).await;
}

/// The turn of a ticket; where it is the first, it also has one after `again`.
async fn turn_or(ticket: &Ticket, again: Duration) {
    while timeout(again, turn(ticket)).await.is_err() {
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
/// `again`: how often the first one looks, though nothing was said to be free: on other hosts places come free unsaid.
/// Errors: those of `attempt`, or nothing came free in time.
pub(super) async fn wait_for_pod<T, A: Future<Output = Result<T, End>>>(
    shared: &Shared,
    port: u16,
    client: SocketAddr,
    again: Option<Duration>,
    attempt: impl Fn() -> A,
) -> Result<T, End> {
    let (most, limit, line) = {
        let table = shared.table.load();
        let conf = table.conf.of_port(port);
        (conf.queue, conf.queue_timeout, table.line(port))
    };
    let waiter = shared.limits.enter(line, most, client)?;
    let ticket = &waiter.ticket;
    debug!(port, position = ticket.position(), "waits for a pod");
    let until = limit.map(|limit| Instant::now() + limit);
    loop {
        match again {
            None => in_time(until, turn(ticket)).await?,
            Some(again) => in_time(until, turn_or(ticket, again)).await?,
        }
        match attempt().await {
            Err(End::Busy) => {}
            found => return found,
        }
    }
}

#[cfg(test)]
mod tests;
