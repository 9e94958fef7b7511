//! From a name to its addresses: search list, families, aliases, and one server after the other.

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use domain::base::Name;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::config::Config;
use super::message::{Question, Said};
use super::server::{Failure, Form, Server};
use super::{Answer, Families, IpVersion};

/// Longest time until the next server is asked too; the answer of the first one still counts.
const NEXT_SERVER: Duration = Duration::from_secs(1);
/// Most questions for one name and family: an alias about which the reply says nothing takes one more.
const MAX_QUESTIONS: usize = 8;
/// Longest wait for one candidate of the search list, whatever resolv.conf sets.
const CANDIDATE_LIMIT: Duration = Duration::from_secs(30);

/// The name servers of one resolv.conf.
#[derive(Debug)]
pub struct Resolver {
    config: Config,
    servers: Vec<Arc<Server>>,
    /// Questions so far, for `rotate`.
    asked: AtomicUsize,
}

/// Receives the answers of a look-up: one for each family that was asked for, as soon as it is known.
pub(super) type Note<'a> = &'a mut (dyn FnMut(IpVersion, Answer) + Send);

/// The families of a candidate that has no address.
type Nothing = Vec<(IpVersion, Result<Said, Failure>)>;

impl Resolver {
    pub(super) fn new(text: &str) -> Self {
        let name = rustix::system::uname();
        Self::with(Config::parse(text, &name.nodename().to_string_lossy()))
    }

    pub(super) fn with(config: Config) -> Self {
        let servers = config.servers.iter().copied();
        Self {
            servers: servers.map(|addr| Arc::new(Server::new(addr))).collect(),
            config,
            asked: AtomicUsize::new(0),
        }
    }

    /// How long a server has for one answer, by resolv.conf.
    pub fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// Looks a name up by DNS. Once one family has an address, the other has `grace` left.
    ///
    /// The first name of the search list that has an address in either family is the one that is meant.
    ///
    /// # Cancel safety
    ///
    /// Yes; what was not passed to `note` is lost.
    pub async fn look_up(&self, name: &str, families: Families, grace: Duration, note: Note<'_>) {
        let asked = Families {
            v6: families.v6 && !self.config.no_aaaa,
            ..families
        };
        if families.v6 && !asked.v6 {
            note(IpVersion::V6, Answer::Empty);
        }
        let mut failed: Option<io::Error> = None;
        let mut is_silent = false;
        for candidate in self.candidates(name) {
            // A suffix may make it too long for a name.
            let Ok(full) = Name::from_str(&candidate) else {
                continue;
            };
            // Source: glibc, res_query.c: after a silence the name is tried as it is, and no other suffix.
            if is_silent && candidate != name {
                continue;
            }
            let Some(nothing) = self.ask_all(&full, asked, grace, note).await else {
                return;
            };
            for (_, said) in nothing {
                if let Err(Failure { error, is_answer }) = said {
                    is_silent |= !is_answer;
                    failed.get_or_insert(error);
                }
            }
        }
        for version in [IpVersion::V4, IpVersion::V6] {
            if asked.has(version) {
                let error = match &failed {
                    Some(error) => io::Error::new(error.kind(), error.to_string()),
                    None => io::Error::new(io::ErrorKind::NotFound, "no such name"),
                };
                note(version, Answer::Failed(error));
            }
        }
    }

    /// The names that may be meant, in order. Source: resolv.conf(5), `search` and `ndots`; `res_query.c` of glibc.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let with = |suffix: &String| match suffix.as_str() {
            "" => name.to_owned(),
            suffix => format!("{name}.{suffix}"),
        };
        let mut candidates: Vec<String> = self.config.search.iter().map(with).collect();
        if name.matches('.').count() >= self.config.ndots {
            candidates.retain(|candidate| candidate != name);
            candidates.insert(0, name.to_owned());
        } else if !candidates.iter().any(|candidate| candidate == name) {
            candidates.push(name.to_owned());
        }
        candidates
    }

    /// Asks for all families of one full name; `None` if one of them has an address, and all were noted.
    async fn ask_all(
        &self,
        name: &Name<Vec<u8>>,
        families: Families,
        grace: Duration,
        note: Note<'_>,
    ) -> Option<Nothing> {
        let mut under_way: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
        let mut left = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            if families.has(version) {
                let name = name.clone();
                let follow = async move { (version, self.follow(name, version).await) };
                under_way.push(Box::pin(follow));
                left.push(version);
            }
        }
        let mut held: Nothing = Vec::new();
        let mut end: Option<Instant> = None;
        loop {
            let next = match end {
                Some(end) => timeout_at(end, under_way.next()).await,
                None => Ok(under_way.next().await),
            };
            match next {
                Ok(Some((version, said))) => {
                    left.retain(|other| *other != version);
                    if let Ok(Said::Addresses { addrs, ttl }) = said {
                        let ttl = Duration::from_secs(ttl.into());
                        note(version, Answer::Addresses { addrs, ttl });
                        end.get_or_insert(Instant::now() + grace);
                    } else {
                        held.push((version, said));
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    let late = left.drain(..).map(|version| (version, Err(silence())));
                    held.extend(late);
                    break;
                }
            }
        }
        if end.is_none() {
            return Some(held);
        }
        for (version, said) in held {
            let answer = match said {
                Err(Failure { error, .. }) => Answer::Failed(error),
                Ok(_) => Answer::Empty,
            };
            note(version, answer);
        }
        None
    }

    /// Asks for a name, and for the names that it stands for.
    async fn follow(&self, name: Name<Vec<u8>>, version: IpVersion) -> Result<Said, Failure> {
        let mut question = Question { name, version };
        let mut shortest = u32::MAX;
        for _ in 0..MAX_QUESTIONS {
            match self.ask(&question).await? {
                Said::Alias { name, ttl } => {
                    shortest = shortest.min(ttl);
                    question.name = name;
                }
                Said::Addresses { addrs, ttl } => {
                    let ttl = ttl.min(shortest);
                    return Ok(Said::Addresses { addrs, ttl });
                }
                Said::Empty => break,
            }
        }
        Ok(Said::Empty)
    }

    /// Asks one server after the other, each as soon as those before it failed or had their time; the first answer
    /// counts, whoever it is from.
    async fn ask(&self, question: &Question) -> Result<Said, Failure> {
        let servers = self.in_order();
        // A server may answer nothing to EDNS: it is asked once more without.
        let rounds = self.config.attempts.max(2);
        let turns: Vec<(u32, Arc<Server>)> = (0..rounds)
            .flat_map(|round| servers.iter().map(move |it| (round, Arc::clone(it))))
            .collect();
        let mut turns = turns.into_iter();
        let pause = NEXT_SERVER.min(self.config.timeout / 2);
        let start = Instant::now();
        let others = u32::try_from(servers.len().saturating_sub(1)).unwrap_or(0);
        let end = self.config.timeout * self.config.attempts + pause * others;
        let end = start + end.min(CANDIDATE_LIMIT);
        let mut under_way: FuturesUnordered<BoxFuture<'_, _>> = FuturesUnordered::new();
        let mut waiting: Vec<(Arc<Server>, Instant)> = Vec::new();
        let mut failed = None;
        let mut next_turn = start;
        let mut has_turns = true;
        loop {
            let now = Instant::now();
            if has_turns && (under_way.is_empty() || now >= next_turn) {
                let is_late = |(_, asked): &&(_, Instant)| now >= *asked + pause;
                let late = waiting.iter().filter(is_late);
                late.for_each(|(server, _)| server.note_silence());
                match turns.next() {
                    Some((round, server)) => {
                        if !waiting.iter().any(|(other, _)| other.addr == server.addr) {
                            waiting.push((Arc::clone(&server), now));
                        }
                        let use_tcp = self.config.use_tcp;
                        under_way.push(Box::pin(async move {
                            let form = if round == 0 {
                                server.form()
                            } else {
                                Form::Plain
                            };
                            let said = server.ask(question, form, use_tcp).await;
                            (server, round, said)
                        }));
                        next_turn = now + pause;
                    }
                    None if under_way.is_empty() => break,
                    None => has_turns = false,
                }
            }
            tokio::select! {
                Some((server, round, said)) = under_way.next() => {
                    waiting.retain(|(other, _)| other.addr != server.addr);
                    match said {
                        Ok(said) => {
                            if round > 0 {
                                // It failed or was silent as long as the question came with EDNS.
                                server.note_plain();
                            }
                            return Ok(said);
                        }
                        Err(failure) => {
                            // The answer of a server says more than silence.
                            let is_better = |kept: &Failure| failure.is_answer && !kept.is_answer;
                            if failed.as_ref().is_none_or(is_better) {
                                failed = Some(failure);
                            }
                            next_turn = Instant::now();
                        }
                    }
                }
                () = sleep_until(next_turn), if has_turns => {}
                () = sleep_until(end) => break,
            }
        }
        Err(failed.unwrap_or_else(silence))
    }

    /// Those that lately did not answer come last.
    fn in_order(&self) -> Vec<Arc<Server>> {
        let mut servers = self.servers.clone();
        if self.config.rotate {
            let turn = self.asked.fetch_add(1, Ordering::Relaxed);
            let length = servers.len().max(1);
            servers.rotate_left(turn % length);
        }
        servers.sort_by_key(|server| server.is_silent());
        servers
    }
}

fn silence() -> Failure {
    io::Error::new(io::ErrorKind::TimedOut, "no name server answers").into()
}
