//! Whether the pods of this host live: what listening sockets tell, and checks where they tell of a change or nothing.
//!
//! A pod that is seen to listen on this host needs no connection to say so twice a second: the plain checks of HEALTH are
//! for those that are not seen. Checks that expect an answer are for all.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, sleep_until};
use tracing::debug;

use crate::conf::SendProxy;
use crate::flow::{Shared, header};
use crate::net::check::{Question, check};
use crate::net::dial::Options;
use crate::net::own::is_own;
use crate::route::Table;
use crate::route::service::{Probe, Socket, Upstream};
use crate::steering::conflict::{Listening, owner_of};
use crate::steering::socket_owner::listens;

use super::TICK;

/// Checks at once: a runtime that stops takes all of its pods with it, and their checks must not take all descriptors.
const CHECKS: usize = 128;
/// Most checks that begin within one [`PACE`]: 1,000 a second.
const PER_PACE: u32 = 20;
const PACE: Duration = Duration::from_millis(20);
/// Time between two looks for a socket of pods that do not listen, of which so many are looked at in one go (some 6 µs
/// each): a pod that listens on demand is served that soon.
const GLANCE: Duration = Duration::from_millis(20);
const GLANCES: usize = 64;

/// What the last scan saw, and the way to the checks.
#[derive(Debug)]
pub(super) struct Pods {
    /// Upstreams for which a listening socket was visible, with its inode. A pod behind NAT or in a namespace of its
    /// own never is: that says nothing about it.
    seen: HashMap<SocketAddr, u32>,
    /// Those for which something was seen.
    urgent: UnboundedSender<Due>,
    /// Those whose time comes before the next look, in its order.
    due: UnboundedSender<Due>,
    /// Those that are down for want of a socket, which would bring them back.
    awaited: watch::Sender<Vec<Arc<Upstream>>>,
}

/// A check to make. There is one at most of each upstream: `turn` is the right to it.
#[derive(Debug)]
struct Due {
    at: Instant,
    upstream: Arc<Upstream>,
    send_proxy: SendProxy,
    turn: Probe,
}

impl Pods {
    /// On the runtime of the daemon.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let (urgent, urgent_ones) = mpsc::unbounded_channel();
        let (due, due_ones) = mpsc::unbounded_channel();
        let (awaited, awaited_ones) = watch::channel(Vec::new());
        tokio::spawn(make_checks(Arc::clone(shared), urgent_ones, due_ones));
        tokio::spawn(glance(Arc::clone(shared), awaited_ones));
        Self {
            seen: HashMap::new(),
            urgent,
            due,
            awaited,
        }
    }

    /// Has those upstreams checked whose listener went away, or came while they are down, and those whose next check is
    /// due before the next look.
    ///
    /// True where a port may become one that a dial can serve, or no such one any more.
    pub(super) fn look(
        &mut self,
        table: &Table,
        listening: Option<&[Listening]>,
        now: Instant,
    ) -> bool {
        let mut is_news = false;
        let mut by_port: HashMap<u16, Vec<&Listening>> = HashMap::new();
        for socket in listening.into_iter().flatten() {
            by_port.entry(socket.addr.port()).or_default().push(socket);
        }
        let mut seen = HashMap::new();
        // A socket that listens on all addresses does not on those of other machines.
        let mut own: HashMap<IpAddr, bool> = HashMap::new();
        let (mut due, mut new) = (Vec::new(), Vec::new());
        for (upstream, send_proxy) in table.upstreams() {
            let addr = upstream.addr;
            let before = self.seen.get(&addr).copied();
            let inode = match listening {
                Some(_) => inode_of(addr, &by_port)
                    .filter(|_| *own.entry(addr.ip()).or_insert_with(|| is_own(addr.ip()))),
                // Without a scan nothing vanished and nothing appeared.
                None => before,
            };
            // Without a scan what the last one told holds on.
            if listening.is_some() {
                let mut is_here = || *own.entry(addr.ip()).or_insert_with(|| is_own(addr.ip()));
                let socket = match inode {
                    Some(_) => Socket::Seen,
                    None if is_here() => Socket::Missing,
                    None => Socket::Unknown,
                };
                is_news |= upstream.set_socket(socket);
            }
            seen.extend(inode.map(|inode| (addr, inode)));
            let health = upstream.health();
            let vanished = before.is_some() && inode.is_none();
            // Another socket than before: one that was restarted between two looks was never seen to be away.
            let appeared = inode.is_some() && inode != before && !health.is_up();
            if vanished || appeared {
                send(&self.urgent, now, upstream, *send_proxy);
                continue;
            }
            let is_settled = health.is_up() && !health.is_missed();
            if is_settled && !is_wanted(upstream, inode.is_some()) {
                if health.next().is_some() {
                    upstream.plan_check(None);
                }
                continue;
            }
            match health.next() {
                Some(next) if next < now + TICK => due.push((next, upstream, *send_proxy)),
                Some(_) => {}
                None => new.push(upstream),
            }
        }
        self.seen = seen;
        self.await_sockets(table);
        due.sort_by_key(|(next, ..)| *next);
        for (next, upstream, send_proxy) in due {
            send(&self.due, next, upstream, send_proxy);
        }
        // Evenly over the interval, so that they never come all at once.
        for (upstream, place) in new.iter().zip(1..) {
            let interval = upstream.check.interval.unwrap_or_default();
            let parts = u32::try_from(new.len()).unwrap_or(u32::MAX);
            upstream.plan_check(Some(now + interval / parts * place));
        }
        is_news
    }

    /// From now on those are looked at often whose next socket brings them back.
    pub(super) fn await_sockets(&self, table: &Table) {
        let is_awaited = |upstream: &&Arc<Upstream>| {
            upstream.is_surely_down() && is_plain(upstream) && upstream.check.rise == 1
        };
        let upstreams = table.upstreams().iter().map(|(upstream, _)| upstream);
        let awaited = upstreams.filter(is_awaited).cloned().collect();
        self.awaited.send_replace(awaited);
    }
}

/// Has an upstream checked, unless it is being checked or about to be.
fn send(to: &UnboundedSender<Due>, at: Instant, upstream: &Arc<Upstream>, send_proxy: SendProxy) {
    if let Some(turn) = upstream.begin_probe() {
        let upstream = Arc::clone(upstream);
        // Who makes them ends with the runtime only.
        let _ = to.send(Due {
            at,
            upstream,
            send_proxy,
            turn,
        });
    }
}

/// The listening socket that takes connections to `addr`; of several the newest.
fn inode_of(addr: SocketAddr, by_port: &HashMap<u16, Vec<&Listening>>) -> Option<u32> {
    let sockets = by_port.get(&addr.port())?.iter();
    sockets
        .filter(|socket| owner_of(addr.ip(), socket))
        .map(|socket| socket.inode)
        .max()
}

/// Whether an upstream that is up is to be checked now and then.
fn is_wanted(upstream: &Upstream, is_seen: bool) -> bool {
    upstream.check.interval.is_some() && !(is_plain(upstream) && is_seen)
}

/// Whether a check asks for a connection and nothing more.
fn is_plain(upstream: &Upstream) -> bool {
    let check = &upstream.check;
    check.send.is_empty() && check.expect.is_empty() && upstream.tls.is_none()
}

/// Whether the socket of an upstream tells all that a plain check would find out: a check must not take the only
/// connection of a program that listens for one. If connections to a socket that listens failed otherwise than by a
/// refusal, the check connects.
fn is_seen_well(upstream: &Upstream) -> bool {
    let is_telling = upstream.is_up() || upstream.was_refused();
    is_telling && is_plain(upstream) && is_own(upstream.addr.ip()) && has_socket(upstream)
}

fn has_socket(upstream: &Upstream) -> bool {
    listens(upstream.addr).unwrap_or(false)
}

/// Looks for sockets of upstreams that have none: as soon as one listens, its upstream is up, without a connection.
async fn glance(shared: Arc<Shared>, mut awaited: watch::Receiver<Vec<Arc<Upstream>>>) {
    let mut next = 0;
    // Who sends them ends with the runtime only.
    while awaited
        .wait_for(|awaited| !awaited.is_empty())
        .await
        .is_ok()
    {
        sleep(GLANCE).await;
        // There may be tens of thousands: only those whose turn it is are taken.
        let batch: Vec<_> = {
            let all = awaited.borrow();
            let numbers = next..next + GLANCES.min(all.len());
            next = numbers.end.checked_rem(all.len()).unwrap_or(0);
            numbers
                .map(|number| Arc::clone(&all[number % all.len()]))
                .collect()
        };
        for upstream in &batch {
            if !upstream.is_up() && has_socket(upstream) {
                shared.note_check(upstream, Ok(()));
            }
        }
    }
}

/// Makes checks, each when it is due, so many at once and so many in a time; the rest waits for its turn.
async fn make_checks(
    shared: Arc<Shared>,
    mut urgent: UnboundedReceiver<Due>,
    mut due: UnboundedReceiver<Due>,
) {
    let places = Arc::new(Semaphore::new(CHECKS));
    let mut first = None;
    let mut begun = VecDeque::new();
    loop {
        let next = tokio::select! {
            biased;
            Some(next) = urgent.recv() => next,
            Some(next) = in_time(&mut first, &mut due) => next,
            else => return,
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        tokio::spawn(make(Arc::clone(&shared), next, place));
        begun.push_back(Instant::now());
        if begun.len() > PER_PACE as usize
            && let Some(earliest) = begun.pop_front()
        {
            sleep(PACE.saturating_sub(earliest.elapsed())).await;
        }
    }
}

/// The next one, when its time has come.
///
/// Cancel safety: one that waits stays in `first`.
async fn in_time(first: &mut Option<Due>, due: &mut UnboundedReceiver<Due>) -> Option<Due> {
    if first.is_none() {
        *first = due.recv().await;
    }
    let at = first.as_ref()?.at;
    sleep_until(at.into()).await;
    first.take()
}

/// One check, without a permit, and what it says.
async fn make(shared: Arc<Shared>, due: Due, place: OwnedSemaphorePermit) {
    let Due {
        upstream,
        send_proxy,
        turn,
        ..
    } = due;
    if is_seen_well(&upstream) {
        shared.note_check(&upstream, Ok(()));
        drop((turn, place));
        return;
    }
    let how = &upstream.check;
    let question = Question {
        header: header::version(send_proxy),
        send: &how.send,
        expect: &how.expect,
    };
    // Where its source ports have run out, from where clients reach it.
    let options = Options {
        from: upstream.dial_from.now().ip(),
        ..Options::default()
    };
    let secure = match &upstream.tls {
        None => None,
        Some(tls) => {
            let config = shared.tls.load().upstreams.get(&tls.how).cloned();
            // Without one the table is a new one, and this upstream not in it.
            let Some(config) = config else { return };
            Some((config, tls.name.clone()))
        }
    };
    match check(upstream.addr, options, secure, question, how.timeout).await {
        Ok(()) => shared.note_check(&upstream, Ok(())),
        Err(error) => {
            debug!(%error, "check");
            match error.upstream_lives(question) {
                Some(true) => shared.note_check(&upstream, Ok(())),
                Some(false) => shared.note_check(&upstream, Err(&error)),
                None => {}
            }
        }
    }
    drop((turn, place));
}
