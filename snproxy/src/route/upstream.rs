//! What is dialed for clients, and what is known of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustls_pki_types::ServerName;

use crate::conf::{Check, UpstreamTls};

use super::dial_from::DialFrom;
use super::health::{self, Event, Health};
use super::last_resort::{Dials, Turn};
use super::silence::{Source, Unanswered};

/// What we dial: one host:host port under one check, plain or in TLS. Shared by all pods at that address whose ports do alike, and
/// kept across reloads.
#[derive(Debug)]
pub struct Upstream {
    pub addr: SocketAddr,
    pub check: Arc<Check>,
    /// `None`: it is spoken to plain.
    pub tls: Option<Arc<Secured>>,
    /// Mirrors `known`, for picks.
    up: AtomicBool,
    /// Failures are being counted: a success is worth the lock.
    is_doubtful: AtomicBool,
    /// Its last failure was a refused connection.
    was_refused: AtomicBool,
    /// A [`Socket`].
    socket: AtomicU8,
    known: Mutex<Known>,
    probing: AtomicBool,
    /// Answers to clients so far; wraps around. Connections without FIRSTBYTETIMEOUT are left out.
    answers: AtomicU32,
    pub dial_from: DialFrom,
}

/// An upstream that is spoken to in TLS.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Secured {
    pub how: Arc<UpstreamTls>,
    /// Who it has to be.
    pub name: ServerName<'static>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    health: Health,
    last: Option<Verdict>,
    /// When it last took a connection and did not answer in time.
    silent_at: Option<Instant>,
    /// Boxed: of few upstreams there is any.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Debug, Default)]
struct Rare {
    unanswered: Unanswered,
    last_dials: Dials,
}

/// What the scan of listening sockets tells of an upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Socket {
    /// Nothing: its address is not of this host, or there was no scan.
    Unknown,
    /// No socket listens on this address of this host.
    Missing,
    Seen,
}

/// The last failure, or the last check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    pub at: Instant,
    /// `None`: the check passed.
    pub error: Option<Box<str>>,
}

/// The right to probe an upstream, one at a time; dropping it gives it back.
#[derive(Debug)]
pub struct Probe(Arc<Upstream>);

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.probing.store(false, Relaxed);
    }
}

impl Upstream {
    /// One of which dials alone tell.
    pub fn new(addr: SocketAddr) -> Self {
        static PASSIVE: LazyLock<Arc<Check>> = LazyLock::new(|| Arc::new(health::passive()));
        Self::under(addr, Arc::clone(&PASSIVE), None, None, None)
    }

    /// One under this check; what is known of it under another check holds on.
    ///
    /// `came`: when it did, if that is known.
    pub fn under(
        addr: SocketAddr,
        check: Arc<Check>,
        tls: Option<Arc<Secured>>,
        before: Option<&Self>,
        came: Option<Instant>,
    ) -> Self {
        let mut known = before
            .map(|before| before.known().clone())
            .unwrap_or_default();
        if let (None, Some(came)) = (before, came) {
            known.health = known.health.came(came);
        }
        known.health = known.health.with_next(None);
        Self {
            addr,
            check,
            tls,
            up: AtomicBool::new(known.health.is_up()),
            is_doubtful: AtomicBool::new(known.health.is_doubtful()),
            was_refused: AtomicBool::new(
                before.is_some_and(|before| before.was_refused.load(Relaxed)),
            ),
            socket: AtomicU8::new(before.map_or(0, |before| before.socket.load(Relaxed))),
            known: Mutex::new(known),
            probing: AtomicBool::new(false),
            answers: AtomicU32::new(0),
            dial_from: before
                .map(|before| before.dial_from.inherited())
                .unwrap_or_default(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Whether it is down, and a dial would tell nothing new: the kernel of this host refuses it, or `expect` of HEALTH
    /// says which answer brings it back. With `HEALTH passive` dials alone tell.
    pub fn is_surely_down(&self) -> bool {
        let is_gone =
            || self.was_refused.load(Relaxed) && self.socket.load(Relaxed) == Socket::Missing as u8;
        !self.is_up()
            && (!self.check.expect.is_empty() || self.check.interval.is_some() && is_gone())
    }

    /// Notes what the scan tells; true where it tells another thing than before of one that is down.
    pub fn set_socket(&self, socket: Socket) -> bool {
        self.socket.swap(socket as u8, Relaxed) != socket as u8 && !self.is_up()
    }

    /// Whether its last failure was a refused connection.
    pub fn was_refused(&self) -> bool {
        self.was_refused.load(Relaxed)
    }

    /// Whether the failure that is noted next is a refused connection.
    pub fn set_refused(&self, is_refused: bool) {
        self.was_refused.store(is_refused, Relaxed);
    }

    /// Whether a connection that came to its last candidates at `came` may dial this one, which is down.
    pub fn last_turn(&self, came: Instant, now: Instant) -> Turn {
        let mut known = self.known();
        known
            .rare
            .get_or_insert_default()
            .last_dials
            .turn(came, now)
    }

    /// A dial that began at `began` failed: connections that wait for what it finds need not dial.
    pub fn note_failed_dial(&self, began: Instant) {
        if let Some(rare) = &mut self.known().rare {
            rare.last_dials.note_failure(began);
        }
    }

    pub fn health(&self) -> Health {
        self.known().health
    }

    /// The last failure, or the last check; `None` before there was one.
    pub fn last(&self) -> Option<Verdict> {
        self.known().last.clone()
    }

    /// Whether it has been silent, and no more from `began` on: what it answered on a connection that is as new is news.
    pub fn was_silent_before(&self, began: Instant) -> bool {
        if self.is_up() && !self.is_doubtful.load(Relaxed) {
            return false;
        }
        self.known().silent_at.is_some_and(|at| at < began)
    }

    /// Takes note of an answer to a client.
    pub fn note_answer(&self) {
        self.answers.fetch_add(1, Relaxed);
    }

    /// Answers to clients so far; wraps around.
    pub fn answers(&self) -> u32 {
        self.answers.load(Relaxed)
    }

    /// Notes that it took a connection of `source` and did not answer in time; true when it went down by it. Only
    /// where it `may_go_down`, and where this source was not counted already.
    pub fn note_silence(
        &self,
        source: Source,
        error: &dyn fmt::Display,
        may_go_down: bool,
        now: Instant,
    ) -> bool {
        let mut known = self.known();
        if !known.rare.get_or_insert_default().unanswered.add(source) {
            return false;
        }
        let was_up = known.health.is_up();
        let after = known.health.after(Event::Silent, &self.check, 0, now);
        if was_up && !after.is_up() && !may_go_down {
            known.rare.get_or_insert_default().unanswered.remove(source);
            return false;
        }
        drop(known);
        self.note(Event::Silent, Some(error), 0, now)
    }

    /// Whether it is down because it did not answer this source, among others.
    pub(super) fn is_down_for(&self, source: Source) -> bool {
        if self.is_up() {
            return false;
        }
        let known = self.known();
        let has = |rare: &Rare| rare.unanswered.has(source);
        known.health.is_down_for_silence() && known.rare.as_deref().is_some_and(has)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while a probe is under way.
    pub fn begin_probe(self: &Arc<Self>) -> Option<Probe> {
        (!self.probing.swap(true, Relaxed)).then(|| Probe(Arc::clone(self)))
    }

    /// Plans the next check of one that is up, or none.
    pub fn plan_check(&self, at: Option<Instant>) {
        let mut known = self.known();
        known.health = known.health.with_next(at);
    }

    /// Notes what happened, and `error`, why it did; true when the upstream went up or down by it. `bits` as for
    /// [`Health::after`].
    pub fn note(
        &self,
        event: Event,
        error: Option<&dyn fmt::Display>,
        bits: u64,
        now: Instant,
    ) -> bool {
        let of_client = matches!(event, Event::Dialled | Event::Served);
        if of_client && self.is_up() && !self.is_doubtful.load(Relaxed) {
            return false;
        }
        let mut known = self.known();
        known.health = known.health.after(event, &self.check, bits, now);
        if event == Event::Silent {
            known.silent_at = Some(now);
        }
        let is_quiet = known.health.is_up() && known.health.silences() == 0;
        let is_down_else = !known.health.is_up() && !known.health.is_down_for_silence();
        if let Some(rare) = &mut known.rare
            && (is_quiet || is_down_else)
        {
            rare.unanswered.clear();
        }
        if event == Event::Passed || error.is_some() {
            let error = error.map(|error| error.to_string().into_boxed_str());
            known.last = Some(Verdict { at: now, error });
        }
        self.is_doubtful.store(known.health.is_doubtful(), Relaxed);
        let up = known.health.is_up();
        self.up.swap(up, Relaxed) != up
    }

    /// Notes whether a connection could be made; true when the upstream went up or down by it.
    pub fn report(&self, connected: bool, now: Instant) -> bool {
        let event = if connected {
            Event::Dialled
        } else {
            Event::NotDialled
        };
        self.note(event, None, 0, now)
    }
}
