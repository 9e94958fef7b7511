//! From a client's port to a connection that serves it: a pod of this host, or another host's proxy.
//!
//! Nobody who is slow holds up the client: the next candidate starts beside it, and the first to answer wins.

mod calls;
mod last_pods;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use crate::addr::ClusterPort;
use crate::conf::{Locality, PortConf};
use crate::pump;
use crate::route::Table;
use crate::route::balance;
use crate::route::load::Permit;
use crate::route::peers::{Answer, Answers, Peer, Share};
use crate::route::search::{Over, Search, Step};
use crate::route::service::{Asker, Exhausted, Pod, Service, Tried};
use crate::wire::peer::Request;

use super::end::End;
use super::header::Preface;
use super::limits::{Thing, wait_for_pod};
use super::pod::{Greeting, dial_pod, header_after, to_pod};
use super::questions::{self, note_host};
use super::reached::{Held, Reached, Server};
use super::{Shared, random};

use calls::Event;
use last_pods::last_pods;

/// A candidate that has not connected by then does not hold up the next one.
const STAGGER: Duration = Duration::from_millis(250);
/// Longest wait for hosts to say whether they serve a port of which nothing is known.
const ANSWER_WAIT: Duration = Duration::from_millis(250);
/// Most pods of this host that one connection tries.
const MAX_TRIES: usize = 32;
/// Most dials and calls that one connection may wait for to their limit.
const MAX_WAITS: u32 = 4;

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) client: SocketAddr,
    pub(super) asked: SocketAddr,
    /// How long it may wait for places; `None`: as long as it likes.
    pub(super) until: Option<Instant>,
    /// It was in a queue already.
    pub(super) has_waited: bool,
    /// What pods hear before TLS.
    pub(super) preface: Option<&'a Preface>,
}

impl Wanted<'_> {
    /// How many may wait before it in a queue for `most`: who waited for one place is not turned away at the next.
    pub(super) fn room(&self, most: u32) -> u32 {
        if self.has_waited { u32::MAX } else { most }
    }

    /// What other hosts are asked: for whom the client's own header speaks, if it has one, as far as it was looked at.
    fn request(&self, port: ClusterPort) -> Request {
        let told = self.preface.and_then(Preface::ends);
        let (client, asked) = told.unwrap_or((self.client, self.asked));
        Request::connect(port, client, asked)
    }
}

type Dialling = Pin<Box<dyn Future<Output = Result<Reached, Over>> + Send>>;
type LastDialing<'t> = Pin<Box<dyn Future<Output = Result<Reached, Over>> + Send + 't>>;
type Calling = Pin<Box<dyn Future<Output = Event> + Send>>;

/// What the newest candidate has yet to do.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Newest {
    Pod,
    Connects(usize),
    Answers(usize),
}

/// All that is under way for one connection.
struct Race<'t> {
    shared: &'t Arc<Shared>,
    table: &'t Table,
    conf: &'t PortConf,
    port: u16,
    answers: Arc<Answers>,
    request: Request,
    preface: Option<&'t Preface>,
    asker: Asker,
    pod: Option<Dialling>,
    /// Dials of pods that are down.
    last_pods: Option<LastDialing<'t>>,
    calls: FuturesUnordered<Calling>,
    /// A host is called that is down: the call finds out what a probe would.
    calls_last_hosts: bool,
    /// When the next candidate starts, whatever the newest one does.
    patience: Option<(Newest, Instant)>,
}

/// Finds who serves the port, on this host or another; waits in the port's queue where all are full.
pub(super) async fn reach(
    shared: &Arc<Shared>,
    table: &Table,
    port: ClusterPort,
    wanted: Wanted<'_>,
) -> Result<Reached, End> {
    let conf = table.conf.of_port(port.get());
    let line = || Thing::Pod(table.line(port.get()));
    if conf.queue == 0 || !shared.limits.is_waited_for(line) {
        match attempt(shared, table, port, wanted).await {
            Err(End::Busy) if conf.queue > 0 => {}
            reached => return reached,
        }
    }
    // Boxed: few have to wait.
    Box::pin(wait_for_pod(shared, port.get(), wanted, || {
        let table = shared.table.load_full();
        async move { attempt(shared, &table, port, wanted).await }
    }))
    .await
}

async fn attempt(
    shared: &Arc<Shared>,
    table: &Table,
    port: ClusterPort,
    wanted: Wanted<'_>,
) -> Result<Reached, End> {
    let now = std::time::Instant::now();
    let conf = table.conf.of_port(port.get());
    let crosses = conf.locality != Locality::Only;
    let asker = asker(shared, conf, port, wanted.client);
    let answers = crosses.then(|| table.peers.answers(port.get(), now));
    let Some(answers) = answers.flatten() else {
        let service = table.service(port.get()).ok_or(End::NotMapped)?;
        return connect(shared, table, service, asker, wanted.preface).await;
    };
    let mut search = table.search(port.get(), asker, Arc::clone(&answers));
    let hosts = search.questions(now);
    questions::ask(shared, table, port, &answers, &hosts);
    let race = Race {
        shared,
        table,
        conf,
        port: port.get(),
        answers,
        request: wanted.request(port),
        preface: wanted.preface,
        asker,
        pod: None,
        last_pods: None,
        calls: FuturesUnordered::new(),
        calls_last_hosts: false,
        patience: None,
    };
    // Boxed: of the connections that stay, most found a pod of this host, and have the room for as long as they live.
    Box::pin(race.run(&mut search)).await
}

impl Race<'_> {
    async fn run(mut self, search: &mut Search<'_>) -> Result<Reached, End> {
        let conf = self.conf;
        let start = Instant::now();
        let longest = to_connect(conf).max(conf.peer_timeout);
        let last = start + longest * MAX_WAITS;
        let mut is_waiting = false;
        let mut hold = None;
        let mut start_next = true;
        let shared = self.shared;
        loop {
            let mut answered = pin!(shared.answered.notified());
            if is_waiting || hold.is_some() {
                // Before the look, so that no answer is missed.
                answered.as_mut().enable();
            }
            if start_next {
                let pods = self.pod.is_none() && self.last_pods.is_none();
                match search.next(pods, random(), std::time::Instant::now()) {
                    Step::Pod(pod, permit, share) => {
                        is_waiting = false;
                        // There may be more of them.
                        let line = || Thing::Pod(self.table.line(self.port));
                        shared.limits.may_be_free(line);
                        self.dial(pod, permit, share);
                    }
                    Step::Peer(at, share) => {
                        is_waiting = false;
                        self.call(at, share);
                    }
                    Step::Await if is_waiting => {}
                    Step::Await => {
                        is_waiting = true;
                        continue;
                    }
                    Step::LastPods(share) => self.dial_last_pods(share),
                    Step::Hold(until) => {
                        let was_held = hold.replace(Instant::from(until)).is_some();
                        if !was_held {
                            continue;
                        }
                    }
                    Step::Over(over) if pods && self.calls.is_empty() => {
                        return Err(over.into());
                    }
                    // Whoever is under way may still answer.
                    Step::Over(_) => self.patience = None,
                }
            }
            // One timer for all: the runtime's thread is woken for each that is earlier than what it sleeps for.
            let enough = start + ANSWER_WAIT;
            let waited = is_waiting.then_some(enough);
            let patience = self.patience.map(|(_, until)| until);
            let next = [waited, hold, patience]
                .into_iter()
                .flatten()
                .fold(last, Instant::min);
            tokio::select! {
                Some(reached) = dialled(&mut self.pod) => {
                    self.pod = None;
                    if let Some(reached) = self.note_dial(reached, search) {
                        return Ok(reached);
                    }
                    start_next = self.patience.is_none();
                }
                Some(reached) = dialled(&mut self.last_pods) => {
                    self.last_pods = None;
                    if let Some(reached) = self.note_dial(reached, search) {
                        return Ok(reached);
                    }
                    start_next = self.patience.is_none();
                }
                Some(event) = self.calls.next() => {
                    if let Some(reached) = self.note(event, search) {
                        self.leave_the_verdict_to_the_dial();
                        return Ok(reached);
                    }
                    start_next = self.patience.is_none();
                }
                () = answered, if is_waiting || hold.is_some() => {
                    hold = None;
                    start_next = true;
                }
                () = sleep_until(next) => {
                    let now = Instant::now();
                    if now >= last {
                        return Err(End::NoUpstream);
                    }
                    if let Some((newest, _)) = self.patience.filter(|(_, until)| now >= *until) {
                        self.give_up_on(newest);
                        start_next = true;
                    }
                    if hold.is_some_and(|hold| now >= hold) {
                        hold = None;
                        start_next = true;
                    }
                    if is_waiting && now >= enough {
                        is_waiting = false;
                        search.stop_waiting();
                        start_next = true;
                    }
                }
            }
        }
    }

    /// Gives the connection of a dial that succeeded; notes one that failed.
    fn note_dial(
        &mut self,
        reached: Result<Reached, Over>,
        search: &mut Search<'_>,
    ) -> Option<Reached> {
        match reached {
            Ok(reached) => Some(reached),
            Err(over) => {
                search.note(over);
                self.is_past(Newest::Pod);
                None
            }
        }
    }

    fn dial(&mut self, pod: &Pod, permit: Permit, share: Share) {
        let shared = Arc::clone(self.shared);
        let upstream = Arc::clone(&pod.upstream);
        let send = header_after(pod);
        let options = to_pod(&self.table.conf);
        let greeting = Greeting::new(self.conf, pod, self.preface);
        self.pod = Some(Box::pin(async move {
            let stream = dial_pod(&shared, &upstream, options, greeting).await?;
            Ok(Reached {
                upstream: stream,
                server: Server::Pod(upstream),
                send,
                early: BytesMut::new(),
                held: Held::new(Some(permit), Some(share)),
            })
        }));
        self.patience = Some((Newest::Pod, Instant::now() + STAGGER));
    }

    fn dial_last_pods(&mut self, share: Share) {
        let (shared, table, asker) = (&**self.shared, self.table, self.asker);
        let Some(service) = table.service(self.port) else {
            return;
        };
        let share = Some(share);
        let dialing = last_pods(
            shared,
            table,
            service,
            (asker, Tried::default()),
            self.preface,
            share,
        );
        self.last_pods = Some(Box::pin(dialing));
        self.patience = Some((Newest::Pod, Instant::now() + STAGGER));
    }

    /// The newest candidate takes too long: others of its kind are not to wait for it as well.
    fn give_up_on(&mut self, newest: Newest) {
        self.patience = None;
        match newest {
            Newest::Pod => {}
            Newest::Connects(at) => {
                note_host(self.peer(at), false);
                self.probe(at);
            }
            // Its host may be well, and only the pod slow: the probe finds out.
            Newest::Answers(at) => {
                self.remember(at, Answer::Silent);
                self.probe(at);
            }
        }
    }

    /// Another one was faster; what becomes of the dial says how the pod is all the same.
    fn leave_the_verdict_to_the_dial(&mut self) {
        if let Some(dial) = self.pod.take() {
            tokio::spawn(async {
                if let Ok(reached) = dial.await {
                    // No client ended anything: the pod must not take it for one that was done.
                    pump::reset_on_close(&reached.upstream);
                }
            });
        }
    }

    fn peer(&self, at: usize) -> &Peer {
        &self.table.peers.list()[at]
    }

    fn remember(&self, at: usize, answer: Answer) {
        self.answers.note(at, answer, std::time::Instant::now());
    }

    fn probe(&self, at: usize) {
        if !self.calls_last_hosts {
            let from = self.table.conf.dial_from;
            questions::probe(self.shared, &self.table.peers, at, from);
        }
    }

    fn is_newest(&self, newest: Newest) -> bool {
        self.patience.is_some_and(|(is, _)| is == newest)
    }

    /// Nothing is waited for if this is what the newest candidate had to do.
    fn is_past(&mut self, done: Newest) {
        if self.is_newest(done) {
            self.patience = None;
        }
    }
}

/// What becomes of the dial; `None` without one.
async fn dialled<D>(dial: &mut Option<D>) -> Option<Result<Reached, Over>>
where
    D: Future<Output = Result<Reached, Over>> + Unpin,
{
    match dial {
        Some(dial) => Some(dial.await),
        None => None,
    }
}

/// What is known of a client that says which pod it gets.
pub fn asker(shared: &Shared, conf: &PortConf, port: ClusterPort, client: SocketAddr) -> Asker {
    let now = std::time::Instant::now();
    let persist = conf.persist;
    Asker {
        key: balance::key(client.ip(), conf.balance.port.then_some(client.port())),
        kept: persist.and_then(|persist| shared.kept.find(persist, port.get(), client.ip(), now)),
    }
}

/// From now on the client's network is carried there, if the port keeps clients.
pub(super) fn keep(
    shared: &Shared,
    conf: &PortConf,
    port: ClusterPort,
    client: SocketAddr,
    upstream: SocketAddr,
) {
    if let Some(persist) = conf.persist {
        let now = std::time::Instant::now();
        shared
            .kept
            .note(persist, port.get(), client.ip(), upstream, now);
    }
}

/// Longest dial of one pod.
fn to_connect(conf: &PortConf) -> Duration {
    let tls = conf.upstream_tls.as_ref().map(|_| conf.tls_timeout);
    conf.connect_timeout + tls.unwrap_or_default()
}

/// Dials pods of this host in the order of the policy until one answers.
pub(super) async fn connect(
    shared: &Shared,
    table: &Table,
    service: Service<'_>,
    asker: Asker,
    preface: Option<&Preface>,
) -> Result<Reached, End> {
    let deadline = Instant::now() + to_connect(service.conf) * MAX_WAITS;
    let mut tried = Tried::default();
    let mut over = Over::NoUpstream;
    while tried.len() < MAX_TRIES && Instant::now() < deadline {
        let now = std::time::Instant::now();
        let (pod, permit) = match service.take(asker, random(), now, &mut tried) {
            Ok(taken) => taken,
            Err(Exhausted::Full) => return Err(End::Busy),
            Err(Exhausted::Tried) => {
                // Boxed: few connections find no pod that is up.
                let last = last_pods(shared, table, service, (asker, tried), preface, None);
                return Ok(Box::pin(last).await.map_err(|why| over.max(why))?);
            }
        };
        // There may be more of them.
        shared
            .limits
            .may_be_free(|| Thing::Pod(table.line(service.port.get())));
        let greeting = Greeting::new(service.conf, pod, preface);
        match dial_pod(shared, &pod.upstream, to_pod(&table.conf), greeting).await {
            Ok(upstream) => {
                return Ok(Reached {
                    upstream,
                    server: Server::Pod(Arc::clone(&pod.upstream)),
                    send: header_after(pod),
                    early: BytesMut::new(),
                    held: Held::new(Some(permit), None),
                });
            }
            Err(why) => over = over.max(why),
        }
    }
    Err(over.into())
}
