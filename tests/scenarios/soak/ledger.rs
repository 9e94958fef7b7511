//! The books: every connection, what both its ends say of it, and what the proxy's closing event says.

use super::job::{Job, Kind};
use snproxy_tests::Host;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

/// How long a pod may need to see the end that its client has seen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Faults that are kept: more say nothing new.
const KEPT: usize = 40;

/// A connection that was played to its end.
pub(super) struct Done {
    pub(super) job: Job,
    /// Index of the host whose proxy the client opened.
    pub(super) entry: usize,
    pub(super) client: SocketAddr,
    pub(super) port: u16,
    /// Its pod was stopped in the middle of it.
    pub(super) cut: bool,
}

#[derive(Default)]
pub(super) struct Ledger {
    books: Mutex<Books>,
    told: Condvar,
}

#[derive(Default)]
struct Books {
    pods: HashMap<u64, Verdict>,
    done: Vec<Done>,
    faults: Vec<String>,
}

struct Verdict {
    /// Index of the pod's host.
    home: usize,
    result: Result<(), String>,
}

/// Connections of a kind that went by way of one proxy, or of two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) one_host: u64,
    pub(super) two_hosts: u64,
    pub(super) bytes: u64,
}

impl Ledger {
    /// What the pod says of a job.
    pub(super) fn served(&self, job: &Job, home: usize, result: Result<(), String>) {
        let mut books = self.books.lock().expect("books");
        books.pods.insert(job.seed, Verdict { home, result });
        drop(books);
        self.told.notify_all();
    }

    /// What the client says of a job; waits for what the pod says.
    pub(super) fn played(&self, done: Done, result: &Result<(), String>) -> Option<Tally> {
        let end = Instant::now() + PATIENCE;
        let mut books = self.books.lock().expect("books");
        let verdict = loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Some(verdict) = books.pods.remove(&done.job.seed) {
                break Some(verdict);
            }
            // One that was cut may never have come to a pod.
            if left.is_zero() || done.cut {
                break None;
            }
            books = self.told.wait_timeout(books, left).expect("books").0;
        };
        let mut tally = None;
        if !done.cut {
            let from = (done.client, done.port);
            let mut fault = |who: &str, what: &str| {
                let text = format!("{who} of {:?} from {from:?}: {what}", done.job);
                books.faults.push(text);
            };
            if let Err(what) = result {
                fault("client", what);
            }
            match &verdict {
                None => fault("pod", "it never came, or did not see its end"),
                Some(Verdict {
                    result: Err(what), ..
                }) => fault("pod", what),
                Some(Verdict { home, .. }) => {
                    let (up, down) = done.job.bytes();
                    let across = u64::from(*home != done.entry);
                    tally = Some(Tally {
                        one_host: 1 - across,
                        two_hosts: across,
                        bytes: up + down,
                    });
                }
            }
        }
        books.done.push(done);
        tally
    }

    pub(super) fn fault(&self, what: String) {
        self.books.lock().expect("books").faults.push(what);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.books.lock().expect("books").faults.len() >= KEPT
    }

    /// All faults, once the proxies have been asked for their closing events as well.
    pub(super) fn close(&self, hosts: &[Host]) -> Vec<String> {
        let events: Vec<_> = hosts.iter().map(|host| Events::of(&host.log())).collect();
        let mut books = self.books.lock().expect("books");
        let mut events = events;
        let mut faults = std::mem::take(&mut books.faults);
        for done in &books.done {
            if let Err(what) = events[done.entry].take(done) {
                faults.push(format!("closing event of {:?}: {what}", done.job));
            }
        }
        for (host, events) in hosts.iter().zip(&events) {
            let left: usize = events.0.values().map(Vec::len).sum();
            if left > 0 {
                let name = host.name();
                faults.push(format!(
                    "{left} closing events on {name} that nobody opened"
                ));
            }
        }
        faults.truncate(KEPT);
        faults
    }

    pub(super) fn connections(&self) -> usize {
        self.books.lock().expect("books").done.len()
    }

    /// Those that had to end with their pod.
    pub(super) fn cut(&self) -> usize {
        let books = self.books.lock().expect("books");
        books.done.iter().filter(|done| done.cut).count()
    }
}

/// The closing events of clients' connections by client and cluster port, in the order they came.
struct Events(BTreeMap<(SocketAddr, u16), Vec<Event>>);

struct Event {
    bytes: (u64, u64),
    end: String,
}

impl Events {
    fn of(log: &str) -> Self {
        let mut events = BTreeMap::<_, Vec<_>>::new();
        for line in log.lines().filter(|line| line.contains(" closed ")) {
            if let Some((key, event)) = Self::read(line) {
                events.entry(key).or_default().push(event);
            }
        }
        Self(events)
    }

    fn read(line: &str) -> Option<((SocketAddr, u16), Event)> {
        let field = |key: &str| {
            let at = line.find(&format!(" {key}="))? + key.len() + 2;
            line.get(at..)?.split_whitespace().next()
        };
        // That of the other proxy has one of its own.
        if field("peer").is_some() {
            return None;
        }
        let key = (
            field("client")?.parse().ok()?,
            field("cluster_port")?.parse().ok()?,
        );
        let event = Event {
            bytes: (
                field("bytes_in")?.parse().ok()?,
                field("bytes_out")?.parse().ok()?,
            ),
            end: field("end")?.to_owned(),
        };
        Some((key, event))
    }

    /// Takes the event of a connection out, and compares.
    fn take(&mut self, done: &Done) -> Result<(), String> {
        let events = self.0.get_mut(&(done.client, done.port));
        let events = events.filter(|events| !events.is_empty());
        let Some(events) = events else {
            return Err("there is none".to_owned());
        };
        let event = events.remove(0);
        if done.cut {
            return Ok(());
        }
        let kind = done.job.kind;
        if event.end != kind.end() {
            return Err(format!("end {}, due {}", event.end, kind.end()));
        }
        let due = done.job.bytes();
        if !kind.is_torn() && event.bytes != due {
            return Err(format!("bytes {:?}, due {due:?}", event.bytes));
        }
        Ok(())
    }
}

/// Connections and bytes by kind.
#[derive(Default)]
pub(super) struct Tallies(Mutex<BTreeMap<Kind, Tally>>);

impl Tallies {
    pub(super) fn add(&self, kind: Kind, tally: Tally) {
        let mut tallies = self.0.lock().expect("tallies");
        let sum = tallies.entry(kind).or_default();
        sum.one_host += tally.one_host;
        sum.two_hosts += tally.two_hosts;
        sum.bytes += tally.bytes;
    }

    pub(super) fn all(&self) -> Vec<(Kind, Tally)> {
        let tallies = self.0.lock().expect("tallies");
        tallies
            .iter()
            .map(|(kind, tally)| (*kind, *tally))
            .collect()
    }

    pub(super) fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        for (_, tally) in self.all() {
            sum.one_host += tally.one_host;
            sum.two_hosts += tally.two_hosts;
            sum.bytes += tally.bytes;
        }
        sum
    }
}
