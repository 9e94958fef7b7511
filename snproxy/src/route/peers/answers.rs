//! What is known of one port: what each host answered, what the directory says, and what was sent where.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::route::directory::view::{Said, Told};

/// How long an answer is true.
const SERVES_FOR: Duration = Duration::from_secs(30);
const BUSY_FOR: Duration = Duration::from_secs(1);
const NOT_HERE_FOR: Duration = Duration::from_secs(5);
const SILENT_FOR: Duration = Duration::from_secs(1);
/// Age at which an answer that is in use is asked for again.
const STALE_SERVES: Duration = Duration::from_secs(2);
const STALE_NO: Duration = Duration::from_secs(1);
/// Time between two questions to one host about one port.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Time between two looks for stale answers of one port.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long what a connection met with counts for more than what its host published.
const MET_FOR: Duration = Duration::from_secs(1);

/// What the other hosts answered for one port, and what we sent where.
#[derive(Debug)]
pub struct Answers {
    start: Instant,
    /// What the directory says, as it was when somebody last asked.
    told: ArcSwapOption<Told>,
    used: AtomicU64,
    looked: AtomicU64,
    cells: Box<[Cell]>,
    /// Live connections of our own clients to pods of this host.
    here: AtomicU32,
    turn: AtomicU32,
}

#[derive(Debug, Default)]
struct Cell {
    answer: AtomicU64,
    /// When it was asked for its pods last, or said how many they are.
    asked: AtomicU64,
    /// Live connections of our own clients by way of this host.
    live: AtomicU32,
}

/// What a host said of a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It took a connection.
    Took,
    /// So many of its pods may take connections; none: it does not serve the port.
    Pods(u16),
    /// All of its pods have `maxConn` connections.
    Busy,
    /// It does not serve the port, or cannot now.
    NotHere,
    /// It took the request and said nothing for long: its pod may be slow.
    Silent,
}

/// What is known of a host and a port now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    Unknown,
    /// With so many pods; a host that does not say counts as one.
    Serves(u16),
    Busy,
    NotHere,
    /// It kept a connection waiting just now.
    Silent,
}

/// One live connection in the books of its port; dropping it takes it off.
#[derive(Debug)]
pub struct Share {
    answers: Arc<Answers>,
    /// `None`: a pod of this host.
    peer: Option<usize>,
}

/// One remembered answer, for `snproxy routes`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Remembered {
    pub peer: usize,
    pub standing: Standing,
    pub age: Duration,
    pub live: u32,
}

impl Answers {
    /// Nothing is known of so many hosts; first used at `used`, in milliseconds since `start`.
    pub(super) fn new(hosts: usize, start: Instant, used: u64) -> Self {
        Self {
            start,
            told: ArcSwapOption::empty(),
            used: AtomicU64::new(used),
            looked: AtomicU64::new(0),
            cells: (0..hosts).map(|_| Cell::default()).collect(),
            here: AtomicU32::new(0),
            turn: AtomicU32::new(0),
        }
    }

    pub(super) fn used_at(&self, millis: u64) {
        self.used.store(millis, Relaxed);
    }

    pub(super) fn last_used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Takes what the directory says, which `now` works out from what it said before.
    pub(super) fn tell(&self, now: impl FnOnce(Option<&Arc<Told>>) -> Arc<Told>) {
        let old = self.told.load();
        let told = now(old.as_ref());
        if !old.as_ref().is_some_and(|old| Arc::ptr_eq(old, &told)) {
            self.told.store(Some(told));
        }
    }

    /// There is no directory any more.
    pub(super) fn forget_told(&self) {
        self.told.store(None);
    }

    fn at(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.start))
    }

    /// What is known of this host now.
    pub fn standing(&self, peer: usize, now: Instant) -> Standing {
        self.standing_by(self.told().as_deref(), peer, now)
    }

    /// What the directory says of the port; `None` without one.
    pub fn told(&self) -> Option<Arc<Told>> {
        self.told.load_full()
    }

    /// What is known of this host now, `told` being what the directory says.
    pub fn standing_by(&self, told: Option<&Told>, peer: usize, now: Instant) -> Standing {
        let Some(Said { serves, is_sure }) = told.and_then(|told| told.of(peer)) else {
            return self.answered(peer, now);
        };
        let published = match serves {
            None => Standing::NotHere,
            Some(serves) if serves.is_full => Standing::Busy,
            Some(serves) => Standing::Serves(serves.pods),
        };
        let (_, _, age) = self.entry(peer, now);
        match self.answered(peer, now) {
            // It is on its way into the directory, or over.
            met @ (Standing::Busy | Standing::Silent | Standing::NotHere)
                if is_sure && age <= MET_FOR =>
            {
                met
            }
            _ if is_sure => published,
            // Only that it served the port is of use: what it did not serve it may by now.
            Standing::Unknown if serves.is_some() => published,
            answered => answered,
        }
    }

    /// What the host itself answered.
    fn answered(&self, peer: usize, now: Instant) -> Standing {
        let (kind, pods, age) = self.entry(peer, now);
        match kind {
            Kind::Busy if age <= BUSY_FOR => Standing::Busy,
            // Of one that was busy places come free.
            Kind::Serves | Kind::Busy if age <= SERVES_FOR => Standing::Serves(pods),
            Kind::NotHere if age <= NOT_HERE_FOR => Standing::NotHere,
            Kind::Silent if age <= SILENT_FOR => Standing::Silent,
            _ => Standing::Unknown,
        }
    }

    /// Takes note of an answer.
    pub fn note(&self, peer: usize, answer: Answer, now: Instant) {
        let (_, pods, _) = self.entry(peer, now);
        let known = pods.max(1);
        if let (Answer::Pods(_), Some(cell)) = (answer, self.cells.get(peer)) {
            cell.asked.store(self.at(now).max(1), Relaxed);
        }
        let (kind, pods) = match answer {
            Answer::Took => (Kind::Serves, known),
            // That it has pods says nothing of free places.
            Answer::Pods(pods @ 1..)
                if matches!(self.answered(peer, now), Standing::Busy | Standing::Silent) =>
            {
                return self.keep_time(peer, pods);
            }
            Answer::Pods(pods @ 1..) => (Kind::Serves, pods),
            Answer::Pods(0) | Answer::NotHere => (Kind::NotHere, 0),
            Answer::Busy => (Kind::Busy, known),
            Answer::Silent => (Kind::Silent, known),
        };
        if let Some(cell) = self.cells.get(peer) {
            cell.answer.store(pack(kind, pods, self.at(now)), Relaxed);
        }
    }

    /// A new number of pods beside the old kind and time.
    fn keep_time(&self, peer: usize, pods: u16) {
        if let Some(cell) = self.cells.get(peer) {
            let (kind, _, at) = unpack(cell.answer.load(Relaxed));
            cell.answer.store(pack(kind, pods, at), Relaxed);
        }
    }

    /// Whether it is time to look for stale answers of this port: true for one of many callers.
    pub fn begin_look(&self, now: Instant) -> bool {
        let (now, before) = (self.at(now), self.looked.load(Relaxed));
        (before == 0 || now >= before + millis(LOOK_AGAIN))
            && self
                .looked
                .compare_exchange(before, now.max(1), Relaxed, Relaxed)
                .is_ok()
    }

    /// Whether a no is old enough to be asked for again before it is believed.
    pub fn is_doubtful(&self, peer: usize, now: Instant) -> bool {
        self.entry(peer, now).2 >= STALE_NO
    }

    /// Whether this host is to be asked for its pods now; true takes note of it.
    pub fn begin_question(&self, peer: usize, now: Instant) -> bool {
        let Some(cell) = self.cells.get(peer) else {
            return false;
        };
        let (kind, _, age) = self.entry(peer, now);
        let (stale, pause) = match kind {
            Kind::None => (true, ASK_AGAIN),
            // Each connection that it takes is an answer too, and says nothing of how many pods it has by now.
            Kind::Serves => (true, STALE_SERVES),
            Kind::Busy | Kind::NotHere | Kind::Silent => (age >= STALE_NO, ASK_AGAIN),
        };
        let (now, asked) = (self.at(now), cell.asked.load(Relaxed));
        stale
            && (asked == 0 || now >= asked + millis(pause))
            && cell
                .asked
                .compare_exchange(asked, now.max(1), Relaxed, Relaxed)
                .is_ok()
    }

    /// Live connections of our own clients: by way of a host, or (`None`) to pods of this one.
    pub fn live(&self, peer: Option<usize>) -> u32 {
        self.counter(peer).map_or(0, |live| live.load(Relaxed))
    }

    /// Enters a connection in the books.
    pub fn share(self: &Arc<Self>, peer: Option<usize>) -> Share {
        if let Some(live) = self.counter(peer) {
            live.fetch_add(1, Relaxed);
        }
        Share {
            answers: Arc::clone(self),
            peer,
        }
    }

    /// Choices of this port so far.
    pub fn turn(&self) -> u32 {
        self.turn.load(Relaxed)
    }

    /// Counts choices of this port from 0.
    pub fn next_turn(&self) -> u32 {
        self.turn.fetch_add(1, Relaxed)
    }

    /// All that is remembered, in the order of the hosts.
    pub fn remembered(&self, now: Instant) -> impl Iterator<Item = Remembered> + '_ {
        (0..self.cells.len()).map(move |peer| Remembered {
            peer,
            standing: self.standing(peer, now),
            age: self.entry(peer, now).2,
            live: self.live(Some(peer)),
        })
    }

    fn counter(&self, peer: Option<usize>) -> Option<&AtomicU32> {
        match peer {
            Some(peer) => self.cells.get(peer).map(|cell| &cell.live),
            None => Some(&self.here),
        }
    }

    fn entry(&self, peer: usize, now: Instant) -> (Kind, u16, Duration) {
        let answer = self
            .cells
            .get(peer)
            .map_or(0, |cell| cell.answer.load(Relaxed));
        let (kind, pods, at) = unpack(answer);
        let age = Duration::from_millis(self.at(now).saturating_sub(at));
        (kind, pods, age)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(live) = self.answers.counter(self.peer) {
            live.fetch_sub(1, Relaxed);
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    None,
    Serves,
    Busy,
    NotHere,
    Silent,
}

/// Shape: milliseconds in the upper 40 bits (34 years), pods in 16, the kind in 8.
fn pack(kind: Kind, pods: u16, millis: u64) -> u64 {
    millis << 24 | u64::from(pods) << 8 | kind as u64
}

fn unpack(answer: u64) -> (Kind, u16, u64) {
    let kind = match answer & 0xff {
        1 => Kind::Serves,
        2 => Kind::Busy,
        3 => Kind::NotHere,
        4 => Kind::Silent,
        _ => Kind::None,
    };
    let pods = u16::try_from(answer >> 8 & 0xffff).unwrap_or(u16::MAX);
    (kind, pods, answer >> 24)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
