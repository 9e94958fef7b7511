//! Probing alone, simulated: one host among many asks all others about the ports that its clients open.
//!
//! What is remembered, when who is asked, and where a connection goes, is snproxy's own `route`, which takes the time as
//! an argument. Who answers, the connections for questions (`flow/questions.rs`) and the network are simulated.

mod links;

use std::sync::Arc;
use std::time::{Duration, Instant};

use snproxy::conf::PortConf;
use snproxy::route::peers::{Answer, Answers, Peers, Share};
use snproxy::route::search::{Search, Step};
use snproxy::route::service::Asker;

use crate::agenda::{Agenda, until_next};
use crate::costs::{ANSWER_WAIT, MAX_CELLS, ROUND_TRIP};
use links::{Links, Next, Question};

/// How long a connection lives.
const LIFETIME: Duration = Duration::from_secs(1);
/// No host remembers anything for longer.
const LONGEST_MEMORY: f64 = 32.0;

/// A cluster, and what the clients of one host want of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) hosts: u32,
    /// Cluster ports that the clients of this host open.
    pub(crate) ports: u32,
    /// Connections to each of them, a second.
    pub(crate) rate: f64,
    /// Hosts that have a pod of a port; not the one that asks.
    pub(crate) pods: u32,
    /// Pods of a port that go to another host, a second.
    pub(crate) moves: f64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) seconds: f64,
    pub(crate) questions: u64,
    /// Segments with questions.
    pub(crate) batches: u64,
    /// Connections made for questions.
    pub(crate) connects: u64,
    pub(crate) connections: u64,
    /// Of these, those that had to wait for answers, and how long they did in all.
    pub(crate) waited: u64,
    pub(crate) wait: Duration,
    /// Calls of hosts that had no pod any more.
    pub(crate) in_vain: u64,
    /// Connections for which nobody was found.
    pub(crate) lost: u64,
}

enum Event {
    Opens(usize),
    Moves(usize),
    Link(Next),
    Called(usize, usize),
    WaitsEnough(usize, Duration),
    Ends(usize),
}

/// A client's connection.
struct Connection<'p> {
    port: usize,
    answers: Arc<Answers>,
    /// Until it is carried.
    search: Option<Search<'p>>,
    share: Option<Share>,
    waits_since: Option<Duration>,
}

struct Host<'p> {
    load: Load,
    random: fastrand::Rng,
    agenda: Agenda<Event>,
    peers: &'p Peers,
    conf: &'p PortConf,
    start: Instant,
    links: Links,
    /// By port: which hosts have a pod.
    pods: Vec<Vec<usize>>,
    /// By port: questions without an answer, and connections that wait for them.
    unanswered: Vec<usize>,
    waiting: Vec<Vec<usize>>,
    connections: Vec<Connection<'p>>,
    free: Vec<usize>,
    counted: Counted,
}

/// Runs a host until it asks as it will go on asking, and then for `seconds`.
pub(crate) fn run(load: Load, seconds: f64, seed: u64) -> Counted {
    let others = load.hosts - 1;
    let addresses: Vec<_> = (0..others)
        .map(|at| {
            let ip = std::net::Ipv4Addr::from(0x0a00_0002 + at);
            (ip.to_string(), std::net::SocketAddr::from((ip, 32767)))
        })
        .collect();
    let start = Instant::now();
    let list = addresses.iter().map(|(name, addr)| (&**name, *addr));
    let peers = Peers::build(list, Vec::new(), None, start);
    let conf = PortConf::default();
    let mut host = Host::new(load, &peers, &conf, start, seed);
    host.begin();
    // A port that is seldom used begins to be remembered late; what overflows is full early.
    let warm = if u64::from(others) * u64::from(load.ports) > 2 * MAX_CELLS && load.rate > 0.05 {
        6.0
    } else {
        4.0 + (4.0 / load.rate).min(LONGEST_MEMORY)
    };
    host.go_on(Duration::from_secs_f64(warm));
    host.counted = Counted::default();
    host.go_on(Duration::from_secs_f64(warm + seconds));
    Counted {
        seconds,
        ..host.counted
    }
}

impl<'p> Host<'p> {
    fn new(load: Load, peers: &'p Peers, conf: &'p PortConf, start: Instant, seed: u64) -> Self {
        let ports = load.ports as usize;
        let mut random = fastrand::Rng::with_seed(seed);
        let others = peers.list().len();
        let pods = load.pods.min(load.hosts - 1) as usize;
        let place = |_| random.choose_multiple(0..others, pods);
        Self {
            load,
            pods: (0..ports).map(place).collect(),
            random,
            agenda: Agenda::new(),
            peers,
            conf,
            start,
            links: Links::new(others),
            unanswered: vec![0; ports],
            waiting: vec![Vec::new(); ports],
            connections: Vec::new(),
            free: Vec::new(),
            counted: Counted::default(),
        }
    }

    fn begin(&mut self) {
        for port in 0..self.pods.len() {
            self.plan_next(port);
            self.plan_move(port);
        }
    }

    fn plan_next(&mut self, port: usize) {
        let after = until_next(self.load.rate, &mut self.random);
        self.agenda.plan(after, Event::Opens(port));
    }

    fn plan_move(&mut self, port: usize) {
        if self.load.moves > 0.0 {
            let after = until_next(self.load.moves, &mut self.random);
            self.agenda.plan(after, Event::Moves(port));
        }
    }

    fn go_on(&mut self, end: Duration) {
        while let Some(event) = self.agenda.next(end) {
            match event {
                Event::Opens(port) => {
                    self.plan_next(port);
                    self.open(port);
                }
                Event::Moves(port) => {
                    self.plan_move(port);
                    self.move_pod(port);
                }
                Event::Link(next) => self.link(next),
                Event::Called(number, at) => self.called(number, at),
                Event::WaitsEnough(number, since) => {
                    if self.connections[number].waits_since == Some(since) {
                        if let Some(search) = &mut self.connections[number].search {
                            search.stop_waiting();
                        }
                        self.look(number);
                    }
                }
                Event::Ends(number) => self.end(number),
            }
        }
    }

    fn now(&self) -> Instant {
        self.start + self.agenda.now()
    }

    fn open(&mut self, port: usize) {
        self.counted.connections += 1;
        let now = self.now();
        let number = u16::try_from(1024 + port).expect("a port");
        let answers = self.peers.answers(number, now).expect("other hosts");
        let asker = Asker {
            key: self.random.u64(..),
            kept: None,
        };
        let search = Search::new(None, self.peers, Arc::clone(&answers), self.conf, 0, asker);
        for at in search.questions(now) {
            self.unanswered[port] += 1;
            let next = self.links.ask(
                at,
                Question {
                    port,
                    answers: Arc::clone(&answers),
                },
            );
            self.plan_link(next);
        }
        let connection = Connection {
            port,
            answers,
            search: Some(search),
            share: None,
            waits_since: None,
        };
        let number = if let Some(number) = self.free.pop() {
            self.connections[number] = connection;
            number
        } else {
            self.connections.push(connection);
            self.connections.len() - 1
        };
        self.look(number);
    }

    /// What `flow/reach.rs` does with the next candidate.
    fn look(&mut self, number: usize) {
        let (now, random) = (self.now(), self.random.u64(..));
        let connection = &mut self.connections[number];
        let Some(search) = &mut connection.search else {
            return;
        };
        let step = search.next(true, random, now);
        if let (Step::Peer(..) | Step::Over(_), Some(since)) = (&step, connection.waits_since) {
            connection.waits_since = None;
            self.counted.wait += self.agenda.now().saturating_sub(since);
            self.waiting[connection.port].retain(|waits| *waits != number);
        }
        match step {
            Step::Peer(at, share) => {
                self.connections[number].share = Some(share);
                self.agenda.plan(ROUND_TRIP, Event::Called(number, at));
            }
            Step::Await => {
                if connection.waits_since.is_none() {
                    let since = self.agenda.now();
                    connection.waits_since = Some(since);
                    self.waiting[connection.port].push(number);
                    self.counted.waited += 1;
                    self.agenda
                        .plan(ANSWER_WAIT, Event::WaitsEnough(number, since));
                }
            }
            Step::Over(_) | Step::Pod(..) | Step::LastPods(_) | Step::Hold(_) => {
                self.counted.lost += 1;
                self.end(number);
            }
        }
    }

    fn called(&mut self, number: usize, at: usize) {
        let (now, port) = (self.now(), self.connections[number].port);
        let took = self.pods[port].contains(&at);
        let answer = if took { Answer::Took } else { Answer::NotHere };
        self.connections[number].answers.note(at, answer, now);
        if took {
            self.connections[number].search = None;
            self.agenda.plan(LIFETIME, Event::Ends(number));
        } else {
            self.counted.in_vain += 1;
            self.look(number);
        }
    }

    fn end(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        connection.search = None;
        connection.share = None;
        self.free.push(number);
    }

    fn move_pod(&mut self, port: usize) {
        let others = self.peers.list().len();
        let which = self.random.usize(..self.pods[port].len());
        let to = self.random.usize(..others);
        if !self.pods[port].contains(&to) {
            self.pods[port][which] = to;
        }
    }

    fn link(&mut self, next: Next) {
        let done = self.links.go_on(next, self.agenda.now());
        self.counted.connects += u64::from(done.connects);
        self.counted.batches += u64::from(done.sent);
        for next in done.next {
            self.plan_link(Some(next));
        }
        let now = self.now();
        for Question { port, answers } in done.answered {
            let has_pod = self.pods[port].contains(&done.at);
            self.counted.questions += 1;
            answers.note(done.at, Answer::Pods(u16::from(has_pod)), now);
            self.unanswered[port] -= 1;
            // Any answer has them look again; only these change what they see.
            if has_pod || self.unanswered[port] == 0 {
                for number in self.waiting[port].clone() {
                    self.look(number);
                }
            }
        }
    }

    fn plan_link(&mut self, next: Option<Next>) {
        if let Some(next) = next {
            self.agenda.plan(next.after(), Event::Link(next));
        }
    }
}
