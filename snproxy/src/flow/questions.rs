//! What other hosts are asked beside connections: how many pods they have for a port, and whether they are there.
//!
//! Answers are learnt ahead of the connections that need them, so that no client waits for a "no".

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::addr::ClusterPort;
use crate::net::dial::Options;
use crate::route::Table;
use crate::route::peers::{Answer, Answers, Peer, Peers};
use crate::sys::stream::Stream;
use crate::wire::peer::{Reply, Request};

use super::Shared;
use super::call::{self, Said};
use super::peer_tls::{Limits, Opened, Plain, may_be_plain, open};

/// Longest wait for a connection that no client waits for: one SYN, and no second one to a host that is away.
const CONNECT_LIMIT: Duration = Duration::from_millis(900);
/// A host that says nothing for this long is away, or too busy to be of use.
pub(super) const SILENCE: Duration = Duration::from_millis(750);
pub(super) const LIMITS: Limits = Limits {
    connect: CONNECT_LIMIT,
    greet: SILENCE,
};
/// How long a connection for questions is kept without one.
const IDLE_LIMIT: Duration = Duration::from_secs(20);
/// Connects at once, for questions and for probes.
const MAX_CONNECTS: usize = 128;
const MAX_PROBES: usize = 32;
/// Connections that are kept for further questions.
const MAX_STAYS: usize = 256;
/// Questions to one host that wait; more are dropped: they will be asked again.
const MAX_WAITING: usize = 1024;
/// Questions that go out in one segment.
const MAX_BATCH: usize = 32;

/// The connections for questions, one per host that is asked.
#[derive(Debug)]
pub struct Questions {
    open: Mutex<HashMap<Host, mpsc::Sender<Question>>>,
    /// For connects: many hosts may be away at once. Probes have places of their own, for nobody waits for them.
    connects: Semaphore,
    probes: Semaphore,
    /// For connections that stay after their first answers.
    stays: Semaphore,
}

/// A place in the hosts of one hosts.conf. While its connection is open these are not freed, so no others have their
/// address.
type Host = (usize, usize);

impl Default for Questions {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            connects: Semaphore::new(MAX_CONNECTS),
            probes: Semaphore::new(MAX_PROBES),
            stays: Semaphore::new(MAX_STAYS),
        }
    }
}

impl Questions {
    /// The right to connect, for as long as it is held.
    pub(super) async fn connects(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.connects.acquire().await.ok()
    }
}

/// What a probe finds out of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HostState {
    Up,
    Down,
    /// It serves on, and takes no new connections of others.
    Drains,
}

/// How many pods serve this port?
#[derive(Debug)]
struct Question {
    port: ClusterPort,
    answers: Arc<Answers>,
}

/// A host, and where its answers go.
struct Asked {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
    at: usize,
    from: Option<IpAddr>,
}

impl Asked {
    fn peer(&self) -> &Peer {
        &self.peers.list()[self.at]
    }
}

/// Asks the hosts that `search` found worth asking about `port`. Returns at once.
pub(super) fn ask(
    shared: &Arc<Shared>,
    table: &Table,
    port: ClusterPort,
    answers: &Arc<Answers>,
    hosts: &[usize],
) {
    if hosts.is_empty() {
        return;
    }
    let mut open = shared.questions.open.lock();
    let open = open.as_mut().unwrap_or_else(|poisoned| poisoned.get_mut());
    for &at in hosts {
        let question = Question {
            port,
            answers: Arc::clone(answers),
        };
        let host = (Arc::as_ptr(&table.peers).addr(), at);
        let unasked = match open.get(&host).map(|waiting| waiting.try_send(question)) {
            Some(Ok(()) | Err(mpsc::error::TrySendError::Full(_))) => continue,
            Some(Err(mpsc::error::TrySendError::Closed(question))) => question,
            None => Question {
                port,
                answers: Arc::clone(answers),
            },
        };
        let (waiting, questions) = mpsc::channel(MAX_WAITING);
        // The channel is new: it has room.
        let _ = waiting.try_send(unasked);
        open.retain(|_, waiting| !waiting.is_closed());
        open.insert(host, waiting);
        let asked = Asked {
            shared: Arc::clone(shared),
            peers: Arc::clone(&table.peers),
            at,
            from: table.conf.dial_from,
        };
        tokio::spawn(converse(asked, questions));
    }
}

/// Asks one host, over one connection, for as long as there are questions.
async fn converse(asked: Asked, mut questions: mpsc::Receiver<Question>) {
    let shared = Arc::clone(&asked.shared);
    let end = questions_over(&asked, &mut questions).await;
    let peer = asked.peer();
    match end {
        Stopped::Idle => {}
        Stopped::NoConnection(lives) => {
            if let Some(lives) = lives {
                note_host(peer, lives);
            }
        }
        // Proxies that know no such question close, or take it for a port that nobody has.
        Stopped::Plain => {
            note_host(peer, true);
            asked.peers.note_plain(peer, std::time::Instant::now());
        }
        Stopped::Silent => probe(&shared, &asked.peers, asked.at, asked.from),
    }
    // Whoever waits for an answer is not to wait for this one.
    drop(questions);
    shared.answered.notify_waiters();
}

/// Why a connection for questions ended.
enum Stopped {
    Idle,
    /// What this says of the host: that it lives, that it does not, or nothing.
    NoConnection(Option<bool>),
    Plain,
    Silent,
}

async fn questions_over(asked: &Asked, questions: &mut mpsc::Receiver<Question>) -> Stopped {
    let pool = &asked.shared.questions;
    let connecting = pool.connects().await;
    let (shared, peer) = (&asked.shared, asked.peer());
    let opened = open(shared, peer, options(asked.from), LIMITS).await;
    let Opened { connection, plain } = match opened {
        Ok(opened) => opened,
        Err(error) => {
            debug!(host = %peer.name, %error, "ask");
            return Stopped::NoConnection(error.upstream_lives());
        }
    };
    let stream = connection.settle();
    drop(connecting);
    let stay = pool.stays.try_acquire();
    let mut has_answered = false;
    let mut batch = Vec::new();
    loop {
        if has_answered && stay.is_err() && questions.is_empty() {
            return Stopped::Idle;
        }
        batch.clear();
        tokio::select! {
            asked = timeout(IDLE_LIMIT, questions.recv_many(&mut batch, MAX_BATCH)) => {
                if !matches!(asked, Ok(1..)) {
                    return Stopped::Idle;
                }
            }
            () = retired(&stream) => {
                return if has_answered { Stopped::Idle } else { Stopped::Plain };
            }
        }
        if !stream.is_tls() && !may_be_plain(&shared.table.load().conf) {
            return Stopped::Idle;
        }
        let requests = batch.iter().map(|question| Request::Count {
            cluster_port: question.port,
        });
        let mut said = call::ask(&stream, requests, Instant::now() + SILENCE).await;
        for (at, question) in (1..).zip(&batch) {
            let rest = match said {
                Said::Reply(Reply::Pods(pods), rest) => {
                    let pods = u16::try_from(pods).unwrap_or(u16::MAX);
                    let answer = Answer::Pods(pods);
                    question
                        .answers
                        .note(asked.at, answer, std::time::Instant::now());
                    rest
                }
                Said::Silent => return Stopped::Silent,
                // It answered before: its proxy went away, or reloaded its PEERS. The next question finds out.
                Said::Closed | Said::Lost(_) if has_answered => return Stopped::Idle,
                // By now it may want TLS: the next question finds out.
                Said::Closed | Said::Lost(_) if plain == Plain::Remembered => {
                    shared.peer_speech.forget_plain(peer.addr());
                    return Stopped::NoConnection(None);
                }
                // Its proxy died with the connection in its queue.
                Said::Lost(_) => return Stopped::NoConnection(None),
                Said::NotGreeted(error) => {
                    shared.peer_speech.say_untrusted(peer, &error);
                    return Stopped::NoConnection(Some(false));
                }
                Said::Reply(..) | Said::Closed | Said::Garbage => return Stopped::Plain,
            };
            has_answered = true;
            if at == 1 && plain != Plain::No {
                shared.peer_speech.note_plain(peer.addr());
            }
            if at == batch.len() {
                if rest.is_empty() {
                    break;
                }
                // More than it was asked for.
                return Stopped::Plain;
            }
            let mut rest = rest;
            said = call::reply(&stream, &mut rest, Instant::now() + SILENCE).await;
        }
        note_host(asked.peer(), true);
        asked.shared.answered.notify_waiters();
    }
}

/// Resolves when the other end closes, or says what it was not asked for.
async fn retired(stream: &Stream) {
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Finds out whether a host is there, unless that is under way: one connection, one question. Returns at once.
pub fn probe(shared: &Arc<Shared>, peers: &Arc<Peers>, at: usize, from: Option<IpAddr>) {
    let peer = Arc::clone(&peers.list()[at]);
    let Some(turn) = peer.upstream.begin_probe() else {
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let probing = shared.questions.probes.acquire().await.ok();
        let state = lives(&shared, &peer, from).await;
        drop(probing);
        if let Some(state) = state {
            note_state(&peer, state);
        }
        drop(turn);
        shared.answered.notify_waiters();
    });
}

/// A host that calls is there: one that is taken for away is asked at once. Returns at once.
pub(super) fn heard_from(shared: &Arc<Shared>, table: &Table, source: IpAddr) {
    for (at, peer) in table.peers.list().iter().enumerate() {
        if !peer.is_up() && peer.addr().ip() == source {
            probe(shared, &table.peers, at, table.conf.dial_from);
        }
    }
}

/// Without keepalive: no such connection waits for long.
pub(super) fn options(from: Option<IpAddr>) -> Options {
    Options {
        from,
        ..Options::default()
    }
}

/// The state of a host, by a connection to it; `None` where it says nothing of the host.
pub(super) async fn lives(shared: &Shared, peer: &Peer, from: Option<IpAddr>) -> Option<HostState> {
    let opened = open(shared, peer, options(from), LIMITS).await;
    let Opened { connection, plain } = match opened {
        Ok(opened) => opened,
        Err(error) => {
            debug!(host = %peer.name, %error, "probe");
            let lives = error.upstream_lives()?;
            return Some(if lives {
                HostState::Up
            } else {
                HostState::Down
            });
        }
    };
    // Whatever it is: a port that exists, of which this host needs not have a pod.
    let request = Request::Count {
        cluster_port: ClusterPort::new(peer.addr().port())?,
    };
    let said = call::ask(connection.stream(), [request], Instant::now() + SILENCE).await;
    if plain == Plain::Remembered && matches!(said, Said::Closed | Said::Lost(_)) {
        shared.peer_speech.forget_plain(peer.addr());
    }
    Some(match said {
        Said::Reply(Reply::Drains, _) => HostState::Drains,
        // A close is what a proxy says that knows no such question.
        Said::Reply(..) | Said::Closed | Said::Garbage => HostState::Up,
        Said::Silent | Said::Lost(_) => HostState::Down,
        Said::NotGreeted(error) => {
            shared.peer_speech.say_untrusted(peer, &error);
            HostState::Down
        }
    })
}

/// Notes what a probe found out.
pub(super) fn note_state(peer: &Peer, state: HostState) {
    let addr = peer.addr();
    match state {
        HostState::Down => {
            note_host(peer, false);
        }
        HostState::Drains => {
            peer.upstream.report(true, std::time::Instant::now());
            if peer.set_draining(true) {
                info!(
                    event = "host_drains", host = %peer.name, %addr,
                    "host drains, it gets no new connections"
                );
            }
        }
        HostState::Up => {
            let has_drained = peer.set_draining(false);
            let was_down = peer.upstream.report(true, std::time::Instant::now());
            if has_drained || was_down {
                info!(event = "host_up", host = %peer.name, %addr, "host is up");
            }
        }
    }
}

/// Notes whether another host's proxy was reached; true when it went up or down by it.
pub(super) fn note_host(peer: &Peer, reached: bool) -> bool {
    let is_news = peer.upstream.report(reached, std::time::Instant::now());
    if !is_news {
        return false;
    }
    let addr = peer.addr();
    if peer.is_draining() {
        // That it accepts no more was announced.
        debug!(host = %peer.name, %addr, reached, "host drains");
    } else if reached {
        info!(event = "host_up", host = %peer.name, %addr, "host is up");
    } else {
        warn!(event = "host_down", host = %peer.name, %addr, "host is down");
    }
    is_news
}
