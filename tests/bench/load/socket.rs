//! Sockets of the load generator: non-blocking, without Nagle's algorithm, with one congestion control.

use rustix::{
    event::epoll,
    io::{self, Errno},
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags,
        SocketType, accept_with, bind, connect, listen, recv, send, sendmsg, shutdown, socket_with,
        sockopt,
    },
};
use std::{
    io::IoSlice,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

/// bbr, the default of some machines, paces also what never leaves the host.
pub(crate) const CONGESTION_CONTROL: &str = "cubic";
const BACKLOG: i32 = 65_535;
const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

fn new(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, FLAGS, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_tcp_congestion(&socket, CONGESTION_CONTROL)?;
    Ok(socket)
}

/// What it accepts inherits both options.
pub(super) fn listener(at: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new(at)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &at)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A connection being opened.
pub(super) fn open(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = new(to)?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// `None` when nobody waits.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    unless_it_would_block(accept_with(listener, FLAGS))
}

/// `None` when there is no room. Also while the connection is being opened.
pub(super) fn try_send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    unless_it_would_block(send(socket, bytes, SendFlags::NOSIGNAL))
}

/// The same of several pieces in one go.
pub(super) fn try_send_pieces(
    socket: &OwnedFd,
    pieces: &[IoSlice<'_>],
) -> io::Result<Option<usize>> {
    let mut control = SendAncillaryBuffer::default();
    unless_it_would_block(sendmsg(socket, pieces, &mut control, SendFlags::NOSIGNAL))
}

/// `None` when nothing is there; `Some(0)` at the end.
pub(super) fn try_recv(socket: &OwnedFd, into: &mut [u8]) -> io::Result<Option<usize>> {
    unless_it_would_block(recv(socket, into, RecvFlags::empty()).map(|(count, _)| count))
}

pub(super) fn finish(socket: &OwnedFd) -> io::Result<()> {
    shutdown(socket, Shutdown::Write)
}

fn unless_it_would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is waited for, level-triggered: so a socket that was read as far as its answer takes no second look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Interest {
    Read,
    Write,
    Both,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

pub(super) fn watch(
    epoll: &OwnedFd,
    socket: impl AsFd,
    key: u64,
    interest: Interest,
) -> io::Result<()> {
    epoll::add(
        epoll,
        socket,
        epoll::EventData::new_u64(key),
        interest.flags(),
    )
}

pub(super) fn watch_for(
    epoll: &OwnedFd,
    socket: impl AsFd,
    key: u64,
    interest: Interest,
) -> io::Result<()> {
    epoll::modify(
        epoll,
        socket,
        epoll::EventData::new_u64(key),
        interest.flags(),
    )
}
