//! The pod: answers requests, takes streams and gives them.

use super::{
    end::End,
    hello::{HELLO, Hello},
    pattern::{PIECE, Pattern},
    socket::{self, Interest},
    stream::{Receiver, Sender},
};
use anyhow::{Context, ensure};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags},
};
use std::{mem, net::SocketAddr, os::fd::OwnedFd};

const EVENTS: usize = 256;
/// Key of the listener; connections have their index.
const LISTENER: u64 = u64::MAX;

#[derive(clap::Args)]
pub(crate) struct Pod {
    /// Where it listens; several are several pods in one process.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// What a client does that none of ours should ends its connection, not the pod.
    #[arg(long)]
    rough: bool,
}

impl Pod {
    /// Serves until it is killed.
    ///
    /// Errors: also whatever a client did that none of ours does.
    pub(crate) fn serve(self) -> anyhow::Result<()> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut listeners = Vec::new();
        for at in self.listen {
            let listener = socket::listener(at).with_context(|| format!("listen on {at}"))?;
            let key = LISTENER - listeners.len() as u64;
            socket::watch(&epoll, &listener, key, Interest::Read)?;
            listeners.push(listener);
        }
        let mut served = Served {
            epoll,
            pattern: Pattern::new(),
            scratch: vec![0; PIECE].into(),
            conns: Vec::new(),
            free: Vec::new(),
            buffers: Vec::new(),
        };
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&served.epoll, spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => continue,
                done => done?,
            };
            for event in &events {
                let key = event.data.u64();
                let listener = usize::try_from(LISTENER - key).ok();
                if let Some(listener) = listener.and_then(|index| listeners.get(index)) {
                    match served.accept(listener) {
                        // No descriptor is left, or who waited is gone: the next event asks again.
                        Err(_) if self.rough => {}
                        done => done?,
                    }
                } else {
                    let index = usize::try_from(key).context("index of a connection")?;
                    match served.advance(index) {
                        Err(_) if self.rough => served.drop(index),
                        done => done.with_context(|| format!("pod, connection {index}"))?,
                    }
                }
            }
        }
    }
}

struct Served {
    epoll: OwnedFd,
    pattern: Pattern,
    scratch: Box<[u8]>,
    conns: Vec<Option<Conn>>,
    /// Places of `conns` and buffers of requests, to be used again.
    free: Vec<usize>,
    buffers: Vec<Vec<u8>>,
}

struct Conn {
    socket: End,
    interest: Interest,
    state: State,
    /// The request being received or answered.
    request: Vec<u8>,
    done: usize,
}

enum State {
    Hello,
    Receiving,
    Answering,
    Up(Receiver),
    Down(Sender),
    /// A stream that the client wants no more of.
    Stopping(Sender),
    /// The last byte is sent: only the client's end is waited for.
    Ending,
}

impl State {
    fn interest(&self) -> Interest {
        match self {
            Self::Hello | Self::Receiving | Self::Up(_) | Self::Ending => Interest::Read,
            Self::Answering | Self::Stopping(_) => Interest::Write,
            Self::Down(_) => Interest::Both,
        }
    }
}

impl Served {
    fn accept(&mut self, listener: &OwnedFd) -> anyhow::Result<()> {
        // One per event: with level-triggered events a second accept() would mostly be for the EAGAIN.
        let Some(socket) = socket::accept(listener)? else {
            return Ok(());
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.conns.len() - 1
        });
        let interest = State::Hello.interest();
        socket::watch(&self.epoll, &socket, index as u64, interest)?;
        self.conns[index] = Some(Conn {
            socket: End::Plain(socket),
            interest,
            state: State::Hello,
            request: self.buffers.pop().unwrap_or_default(),
            done: 0,
        });
        Ok(())
    }

    fn advance(&mut self, index: usize) -> anyhow::Result<()> {
        // None: closed by an event before this one.
        let Some(conn) = &mut self.conns[index] else {
            return Ok(());
        };
        if conn.advance(&self.pattern, &mut self.scratch)? {
            let interest = conn.state.interest();
            if interest != conn.interest {
                conn.interest = interest;
                socket::watch_for(&self.epoll, &conn.socket, index as u64, interest)?;
            }
        } else {
            self.drop(index);
        }
        Ok(())
    }

    fn drop(&mut self, index: usize) {
        if let Some(Conn { mut request, .. }) = self.conns[index].take() {
            request.clear();
            self.buffers.push(request);
            self.free.push(index);
        }
    }
}

impl Conn {
    /// Does one step; false at the end.
    fn advance(&mut self, pattern: &Pattern, scratch: &mut [u8]) -> anyhow::Result<bool> {
        match &mut self.state {
            State::Hello => return self.hello(pattern, scratch),
            State::Receiving => {
                let room = &mut self.request[self.done..];
                if let Some(count) = self.socket.try_recv(room)? {
                    if count == 0 {
                        ensure!(self.done == 0, "a request ends after {} bytes", self.done);
                        return Ok(false);
                    }
                    self.done += count;
                    self.answer_if_whole()?;
                }
            }
            State::Answering => self.answer()?,
            State::Up(receiver) => {
                if receiver.receive(&self.socket, pattern, scratch)? {
                    let bytes = receiver.bytes().to_le_bytes();
                    let sent = self.socket.try_send(&bytes)?;
                    ensure!(sent == Some(bytes.len()), "no room for a number");
                    self.state = State::Ending;
                }
            }
            State::Down(sender) => match self.socket.try_recv(&mut scratch[..2])? {
                None => sender.send(&self.socket, pattern)?,
                Some(count) => {
                    ensure!(count == 1, "{count} bytes as the word to stop");
                    self.state = State::Stopping(mem::take(sender));
                }
            },
            State::Stopping(sender) => {
                if sender.end(&self.socket, pattern)? {
                    self.state = State::Ending;
                }
            }
            State::Ending => {
                if let Some(count) = self.socket.try_recv(&mut scratch[..1])? {
                    ensure!(count == 0, "a byte behind the end");
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Learns what this connection is for. The first request or the beginning of the stream may come with it.
    fn hello(&mut self, pattern: &Pattern, scratch: &mut [u8]) -> anyhow::Result<bool> {
        let Some(count) = self.socket.try_recv(scratch)? else {
            return Ok(true);
        };
        if count == 0 {
            ensure!(self.request.is_empty(), "ends within its hello");
            return Ok(false);
        }
        self.request.extend_from_slice(&scratch[..count]);
        let Some((hello, rest)) = self.request.split_first_chunk::<HELLO>() else {
            return Ok(true);
        };
        match Hello::decode(*hello).context("no hello")? {
            Hello::Echo(size) => {
                self.done = self.request.len();
                let size = usize::try_from(size)?;
                ensure!(self.done <= size, "more than one request at once");
                self.request.resize(size, 0);
                self.state = State::Receiving;
                self.answer_if_whole()?;
            }
            Hello::Up => {
                let mut receiver = Receiver::default();
                ensure!(!receiver.take(rest, pattern)?, "a stream of no length");
                self.state = State::Up(receiver);
            }
            Hello::Down => {
                ensure!(rest.is_empty(), "stops a stream that has not begun");
                self.state = State::Down(Sender::default());
            }
        }
        Ok(true)
    }

    fn answer_if_whole(&mut self) -> anyhow::Result<()> {
        if self.done < self.request.len() {
            return Ok(());
        }
        self.done = 0;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<()> {
        let sent = self.socket.try_send(&self.request[self.done..])?;
        self.done += sent.unwrap_or_default();
        self.state = if self.done < self.request.len() {
            State::Answering
        } else {
            self.done = 0;
            State::Receiving
        };
        Ok(())
    }
}
