//! Streams to the pod and from it.

use super::{
    Case, Figures, Load, Outcome,
    end::{Dial, End},
    hello::Hello,
    pattern::{PIECE, Pattern},
    socket::{self, Interest},
    stream::{Receiver, Sender},
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
    mem,
    time::{Duration, Instant},
};

const STALLED: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
const STOP: &[u8] = b"s";

/// Counts from the first connect(2) until the last byte was received and its count was told, without the bytes of
/// the warm-up, which has connections of its own.
pub(super) fn run(load: &Load) -> anyhow::Result<Outcome> {
    let dial = load.dial()?;
    let pattern = Pattern::new();
    if !load.warming().is_zero() {
        transfer(load, &dial, &pattern, load.warming())?;
    }
    let before = Usage::now(&load.watch)?;
    let start = Instant::now();
    let operations = transfer(load, &dial, &pattern, load.measured())?;
    let took = start.elapsed();
    let cost = Usage::now(&load.watch)?.since(before);
    let figures = Figures {
        operations,
        took,
        cost,
    };
    Ok(figures.outcome(load))
}

struct Stream {
    socket: Option<End>,
    interest: Interest,
    state: State,
    bytes: u64,
}

enum State {
    Hello,
    Sending(Sender),
    /// The trailer is under way.
    Telling(Sender),
    /// The pod tells how much it received.
    Told,
    Receiving(Receiver),
    /// The pod was told to stop.
    Stopping(Receiver),
    /// FIN is sent.
    Ending,
}

impl State {
    fn interest(&self) -> Interest {
        match self {
            Self::Hello | Self::Sending(_) | Self::Telling(_) => Interest::Write,
            Self::Told | Self::Receiving(_) | Self::Stopping(_) | Self::Ending => Interest::Read,
        }
    }
}

/// Gives the bytes that went through.
fn transfer(load: &Load, dial: &Dial, pattern: &Pattern, time: Duration) -> anyhow::Result<u64> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let end = Instant::now() + time;
    let mut scratch = vec![0; PIECE];
    let mut streams = Vec::with_capacity(load.connections);
    for index in 0..load.connections {
        let socket = dial.open()?;
        let interest = Interest::Write;
        socket::watch(&epoll, &socket, index as u64, interest)?;
        streams.push(Stream {
            socket: Some(socket),
            interest,
            state: State::Hello,
            bytes: 0,
        });
    }
    let mut live = streams.len();
    let mut events = Vec::with_capacity(live);
    while live > 0 {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), Some(&STALLED))?;
        ensure!(!events.is_empty(), "nothing moves: {live} streams wait");
        let is_over = Instant::now() >= end;
        for event in &events {
            let index = usize::try_from(event.data.u64())?;
            let stream = &mut streams[index];
            let ended = stream
                .advance(load.case, pattern, &mut scratch, is_over)
                .with_context(|| format!("stream {index}"))?;
            if ended {
                stream.socket = None;
                live -= 1;
                continue;
            }
            let socket = stream.socket.as_ref().context("a closed socket")?;
            let interest = socket.interest(stream.state.interest());
            if interest != stream.interest {
                stream.interest = interest;
                socket::watch_for(&epoll, socket, index as u64, interest)?;
            }
        }
    }
    Ok(streams.iter().map(|stream| stream.bytes).sum())
}

impl Stream {
    /// Does one step; true at the end.
    fn advance(
        &mut self,
        case: Case,
        pattern: &Pattern,
        scratch: &mut [u8],
        is_over: bool,
    ) -> anyhow::Result<bool> {
        let Some(socket) = &self.socket else {
            return Ok(false);
        };
        match &mut self.state {
            State::Hello => {
                let (hello, state) = match case {
                    Case::Up => (Hello::Up, State::Sending(Sender::default())),
                    _ => (Hello::Down, State::Receiving(Receiver::default())),
                };
                if send_whole(socket, &hello.encode())? {
                    self.state = state;
                }
            }
            State::Sending(sender) if !is_over => sender.send(socket, pattern)?,
            State::Sending(sender) => self.state = State::Telling(mem::take(sender)),
            State::Telling(sender) => {
                if sender.end(socket, pattern)? {
                    self.bytes = sender.bytes();
                    self.state = State::Told;
                }
            }
            State::Told => {
                if let Some(count) = socket.try_recv(&mut scratch[..8])? {
                    ensure!(
                        scratch[..count] == self.bytes.to_le_bytes(),
                        "{} bytes were sent, and others received",
                        self.bytes
                    );
                    socket.finish()?;
                    self.state = State::Ending;
                }
            }
            State::Receiving(receiver) => {
                if receiver.receive(socket, pattern, scratch)? {
                    bail!("ends by itself after {} bytes", receiver.bytes());
                }
                if is_over {
                    ensure!(send_whole(socket, STOP)?, "no room for the word to stop");
                    self.state = State::Stopping(mem::take(receiver));
                }
            }
            State::Stopping(receiver) => {
                if receiver.receive(socket, pattern, scratch)? {
                    self.bytes = receiver.bytes();
                    socket.finish()?;
                    self.state = State::Ending;
                }
            }
            State::Ending => {
                if let Some(count) = socket.try_recv(&mut scratch[..1])? {
                    ensure!(count == 0, "a byte behind the end");
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// False where it has to be tried again.
fn send_whole(socket: &End, bytes: &[u8]) -> anyhow::Result<bool> {
    let Some(sent) = socket.try_send(bytes)? else {
        return Ok(false);
    };
    ensure!(sent == bytes.len(), "no room for {} bytes", bytes.len());
    Ok(true)
}
