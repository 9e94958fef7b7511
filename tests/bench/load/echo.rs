//! Requests and answers, on connections that stay or on a new one each.

use super::{
    Case, Figures, Load, Outcome,
    end::{Dial, End},
    hello::{HELLO, Hello},
    latency::{Latency, to_f64},
    pattern::{PIECE, Pattern},
    socket::{self, Interest},
    usage::Usage,
};
use anyhow::{Context, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags},
    },
};
use std::{
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

/// Longer than a SYN or a FIN that was lost takes to come again, twice.
const STALLED: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
/// How far apart in the pattern one request stands from the next: another prime.
const STEP: usize = 7919;
const MOST_EVENTS: usize = 256;

pub(super) fn run(load: &Load) -> anyhow::Result<Outcome> {
    let dial = load.dial()?;
    let part = Load {
        connections: load.connections / load.threads,
        ..load.clone()
    };
    let (part, dial) = (&part, &dial);
    let tallies: anyhow::Result<Vec<_>> = thread::scope(|scope| {
        let one = |thread| scope.spawn(move || clients(part, dial, thread));
        let threads: Vec<_> = (0..load.threads).map(one).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        joined.collect()
    });
    outcome(load, &tallies?)
}

/// Those of one thread.
fn clients<'l>(load: &'l Load, dial: &'l Dial, thread: usize) -> anyhow::Result<Tally<'l>> {
    let size = usize::try_from(load.size)?;
    ensure!(
        (HELLO..=PIECE).contains(&size),
        "--size: {HELLO} to {PIECE}"
    );
    let mut clients = Clients {
        load,
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        pattern: Pattern::new(),
        scratch: vec![0; size].into(),
        all: Vec::with_capacity(load.connections),
        tally: Tally::new(load),
    };
    let now = Instant::now();
    for index in 0..load.connections {
        // Far apart, so that an answer to another connection's request is wrong.
        let position = (thread * load.connections + index) * STEP * STEP;
        let mut first = clients.pattern.at(position, size).to_vec();
        first[..HELLO].copy_from_slice(&Hello::Echo(load.size).encode());
        clients.all.push(Client {
            dial: if load.resume {
                dial.of_its_own()
            } else {
                dial.clone()
            },
            socket: None,
            interest: Interest::Read,
            state: State::Ending,
            first,
            is_first: true,
            position,
            done: 0,
            since: now,
        });
        clients.open(index, now)?;
    }
    clients.serve()?;
    Ok(clients.tally)
}

struct Clients<'l> {
    load: &'l Load,
    epoll: OwnedFd,
    pattern: Pattern,
    scratch: Box<[u8]>,
    all: Vec<Client>,
    tally: Tally<'l>,
}

struct Client {
    dial: Dial,
    socket: Option<End>,
    interest: Interest,
    state: State,
    /// The first request of a connection: hello and pattern.
    first: Vec<u8>,
    is_first: bool,
    /// Where in the pattern this request stands.
    position: usize,
    /// Bytes of it that are sent, or of its answer that are received.
    done: usize,
    since: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Sending,
    Receiving,
    /// FIN is sent; the pod's is waited for, which it sends when it has seen ours.
    Ending,
}

/// What an event brought to an end.
enum Came {
    Nothing,
    Answer,
    End,
}

impl Clients<'_> {
    fn serve(&mut self) -> anyhow::Result<()> {
        let is_per_connection = self.load.case == Case::Connect;
        let mut live = self.all.len();
        let mut events = Vec::with_capacity(live.min(MOST_EVENTS));
        while live > 0 {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&STALLED))?;
            ensure!(!events.is_empty(), "nothing moves: {live} connections wait");
            for event in &events {
                let index = usize::try_from(event.data.u64())?;
                let done = (|| {
                    match self.advance(index)? {
                        Came::Nothing => {}
                        Came::Answer if is_per_connection => self.finish(index)?,
                        Came::Answer => {
                            let now = Instant::now();
                            self.tally.add(self.all[index].since, now)?;
                            if self.tally.is_over(now) {
                                self.finish(index)?;
                            } else {
                                self.request(index, now)?;
                            }
                        }
                        Came::End => {
                            let now = Instant::now();
                            if is_per_connection {
                                let before = self.tally.operations;
                                self.tally.add(self.all[index].since, now)?;
                                let ended = self.all[index].socket.as_ref();
                                if self.tally.operations > before
                                    && ended.is_some_and(End::is_resumed)
                                {
                                    self.tally.resumed += 1;
                                }
                            }
                            self.all[index].socket = None;
                            if self.tally.is_over(now) {
                                live -= 1;
                            } else {
                                ensure!(is_per_connection, "ends by itself");
                                self.open(index, now)?;
                            }
                        }
                    }
                    anyhow::Ok(())
                })();
                done.with_context(|| format!("connection {index}"))?;
            }
        }
        Ok(())
    }

    fn open(&mut self, index: usize, now: Instant) -> anyhow::Result<()> {
        let client = &mut self.all[index];
        let socket = client.dial.open()?;
        client.is_first = true;
        client.start(now);
        // As a rule the connection is there already: this is the same kernel, and it took the way to the
        // listener and back within connect(2).
        client.send(&socket, &self.pattern, self.scratch.len())?;
        let interest = socket.interest(client.state.interest());
        client.interest = interest;
        socket::watch(&self.epoll, &socket, index as u64, interest)?;
        client.socket = Some(socket);
        Ok(())
    }

    fn request(&mut self, index: usize, now: Instant) -> anyhow::Result<()> {
        let client = &mut self.all[index];
        client.is_first = false;
        client.position += STEP;
        client.start(now);
        self.advance(index).map(drop)
    }

    fn finish(&mut self, index: usize) -> anyhow::Result<()> {
        let client = &mut self.all[index];
        client.state = State::Ending;
        let socket = client.socket.as_ref().context("a closed socket")?;
        socket.finish().context("send FIN")
    }

    fn advance(&mut self, index: usize) -> anyhow::Result<Came> {
        let size = self.scratch.len();
        let client = &mut self.all[index];
        // Given back below, so that the client can be changed meanwhile.
        let Some(socket) = client.socket.take() else {
            return Ok(Came::Nothing);
        };
        let came = match client.state {
            State::Sending => {
                client.send(&socket, &self.pattern, size)?;
                Came::Nothing
            }
            State::Receiving => client.receive(&socket, &self.pattern, &mut self.scratch)?,
            State::Ending => match socket.try_recv(&mut self.scratch[..1])? {
                None => Came::Nothing,
                Some(0) => Came::End,
                Some(_) => bail!("bytes behind the answer"),
            },
        };
        let interest = socket.interest(client.state.interest());
        if interest != client.interest {
            client.interest = interest;
            socket::watch_for(&self.epoll, &socket, index as u64, interest)?;
        }
        client.socket = Some(socket);
        Ok(came)
    }
}

impl State {
    fn interest(self) -> Interest {
        match self {
            Self::Sending => Interest::Write,
            Self::Receiving | Self::Ending => Interest::Read,
        }
    }
}

impl Client {
    fn start(&mut self, now: Instant) {
        self.state = State::Sending;
        self.done = 0;
        self.since = now;
    }

    fn send(&mut self, socket: &End, pattern: &Pattern, size: usize) -> anyhow::Result<()> {
        let request = if self.is_first {
            &self.first
        } else {
            pattern.at(self.position, size)
        };
        let sent = socket.try_send(&request[self.done..]).context("send")?;
        self.done += sent.unwrap_or_default();
        if self.done == size {
            self.done = 0;
            self.state = State::Receiving;
        }
        Ok(())
    }

    fn receive(
        &mut self,
        socket: &End,
        pattern: &Pattern,
        scratch: &mut [u8],
    ) -> anyhow::Result<Came> {
        let size = scratch.len();
        let room = &mut scratch[self.done..];
        let Some(count) = socket.try_recv(room).context("receive")? else {
            return Ok(Came::Nothing);
        };
        ensure!(count > 0, "ends after {} of {size} bytes", self.done);
        let expected = if self.is_first {
            &self.first
        } else {
            pattern.at(self.position, size)
        };
        let to = self.done + count;
        ensure!(
            scratch[self.done..to] == expected[self.done..to],
            "a wrong byte among those from {} to {to} of {size}",
            self.done
        );
        self.done = to;
        Ok(if to == size {
            Came::Answer
        } else {
            Came::Nothing
        })
    }
}

/// What was done between the two moments that count, and what that cost.
struct Tally<'l> {
    load: &'l Load,
    begin: Instant,
    end: Instant,
    from: Option<(Instant, Usage)>,
    until: Option<(Instant, Usage)>,
    operations: u64,
    latency: Latency,
    /// Those of them that took up a session again.
    resumed: u64,
}

impl<'l> Tally<'l> {
    fn new(load: &'l Load) -> Self {
        let begin = Instant::now() + load.warming();
        Self {
            load,
            begin,
            end: begin + load.measured(),
            from: None,
            until: None,
            operations: 0,
            latency: Latency::new(),
            resumed: 0,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }

    /// Counts an operation that ends now.
    fn add(&mut self, since: Instant, now: Instant) -> anyhow::Result<()> {
        if now < self.begin || self.until.is_some() {
            return Ok(());
        }
        if self.from.is_none() {
            self.from = Some((Instant::now(), Usage::now(&self.load.watch)?));
            return Ok(());
        }
        self.operations += 1;
        self.latency.add(now - since);
        if now >= self.end {
            self.until = Some((now, Usage::now(&self.load.watch)?));
        }
        Ok(())
    }

    fn figures(&self) -> anyhow::Result<Figures> {
        let (from, before) = self.from.context("nothing was done in time")?;
        let (until, after) = self.until.context("nothing was done at the end")?;
        Ok(Figures {
            operations: self.operations,
            took: until - from,
            cost: after.since(before),
        })
    }
}

/// Of all threads. They begin and end together, within the time of an operation: time and cost are their mean.
fn outcome(load: &Load, tallies: &[Tally<'_>]) -> anyhow::Result<Outcome> {
    let figures: anyhow::Result<Vec<_>> = tallies.iter().map(Tally::figures).collect();
    let figures = figures?;
    let count = u32::try_from(figures.len())?;
    let mean = |cost: fn(&Figures) -> u64| figures.iter().map(cost).sum::<u64>() / u64::from(count);
    let took: Duration = figures.iter().map(|one| one.took).sum();
    let all = Figures {
        operations: figures.iter().map(|one| one.operations).sum(),
        took: took / count,
        cost: (mean(|one| one.cost.0), mean(|one| one.cost.1)),
    };
    let mut latency = Latency::new();
    for tally in tallies {
        latency.join(&tally.latency);
    }
    let resumed = to_f64(tallies.iter().map(|tally| tally.resumed).sum());
    Ok(Outcome {
        p50_us: latency.quantile_us(0.5),
        p99_us: latency.quantile_us(0.99),
        resumed: (load.resume).then(|| resumed / to_f64(all.operations)),
        ..all.outcome(load)
    })
}
