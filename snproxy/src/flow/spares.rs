//! Connections to other hosts' proxies that were made ahead of the clients who need them: a call over one costs a round
//! trip less.
//!
//! They are bare sockets, which connect by themselves and belong to no runtime until one is taken. Their number follows
//! use: a call makes replacements, and nobody else does.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use socket2::Socket;

use crate::net::dial::{self, Options};
use crate::route::Table;
use crate::sys::stream::Stream;

use super::call;

/// Most that wait for one host: half of the silent connections that a snproxy lets one source have, for more than one
/// proxy may call from an address.
const MOST_OF_ONE: usize = 8;
/// Most that wait in all.
const MOST_OF_ALL: usize = 512;
/// Most that one call makes.
const MOST_AT_ONCE: usize = 2;
/// How long one may wait. Other proxies let a connection be silent for longer: snproxy for a minute.
const RETIRED_AFTER: Duration = Duration::from_secs(30);
/// How long a host gets none that closed one.
const BARRED_FOR: Duration = Duration::from_mins(1);
/// How long none is made after descriptors were found to be few.
const SCARCE_FOR: Duration = Duration::from_secs(1);
/// Looks at a host with some to spare after which it gets one less.
const LOOKS: u8 = 4;
/// One in so many of the process's descriptors may be a spare connection's.
const DESCRIPTORS_PER_SPARE: usize = 16;

/// The spare connections, by the proxy that they lead to.
#[derive(Debug)]
pub struct Spares {
    hosts: Mutex<Hosts>,
    most: usize,
    /// The kernel gives out the lowest number that is free: one as high as this says that few are left.
    high: i32,
}

#[derive(Debug, Default)]
struct Hosts {
    by_addr: HashMap<SocketAddr, Kept>,
    /// Those that wait, and those that are being made.
    count: usize,
    /// When descriptors were found to be few.
    scarce: Option<Instant>,
    closed: bool,
}

/// What is kept for one host.
#[derive(Debug)]
struct Kept {
    /// The oldest in front.
    waiting: VecDeque<Spare>,
    /// Being made.
    coming: usize,
    wanted: usize,
    /// Fewest that waited since the last look.
    fewest: usize,
    /// Looks in a row that found that there was always one.
    plenty: u8,
    /// As they were made.
    options: Options,
    used: Instant,
    barred: Option<Instant>,
}

/// A connection that may still be connecting.
#[derive(Debug)]
pub(super) struct Spare {
    socket: Socket,
    since: Instant,
}

/// What a look at a waiting connection says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Looked {
    Waits,
    /// It never came to be.
    Failed,
    /// The other end closed it, or speaks without being asked.
    Closed,
}

impl Default for Spares {
    fn default() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            hosts: Mutex::default(),
            most: MOST_OF_ALL.min(limit / DESCRIPTORS_PER_SPARE),
            high: i32::try_from(limit / 4 * 3).unwrap_or(i32::MAX),
        }
    }
}

impl Spares {
    /// The one that has waited longest for a call to `addr`.
    pub(super) fn take(&self, addr: SocketAddr, now: Instant) -> Option<Spare> {
        loop {
            let spare = self.hosts().take(addr)?;
            match spare.look() {
                Looked::Waits if !spare.is_old(now) => return Some(spare),
                Looked::Waits | Looked::Failed => {}
                Looked::Closed => self.bar(addr, now),
            }
        }
    }

    /// Takes note of a call that `addr` took, or takes by a spare connection, and makes others for the next ones.
    pub(super) fn used(&self, addr: SocketAddr, options: Options, now: Instant) {
        let count = self.hosts().reserve(addr, options, now, self.most);
        if count > 0 {
            // Connected without the lock.
            let made = (0..count).map_while(|_| self.make(addr, options, now));
            let made: Vec<_> = made.collect();
            self.hosts().add(addr, count, made);
        }
    }

    /// Takes note that one was not there in time for a call.
    pub(super) fn missed(&self, addr: SocketAddr) {
        if let Some(kept) = self.hosts().by_addr.get_mut(&addr) {
            kept.want_more();
        }
    }

    /// Takes note that a host closed one without an answer: it gets none for a while.
    pub(super) fn bar(&self, addr: SocketAddr, now: Instant) {
        let dropped = self.hosts().bar(addr, now);
        // Closed without the lock.
        drop(dropped);
    }

    /// Closes those that waited for too long, lead to hosts that are gone, or were closed by the other end.
    pub fn look(&self, table: &Table, now: Instant) {
        let peers = table.peers.list();
        let is_host = |addr| peers.iter().any(|peer| peer.addr() == addr);
        let gone = self.hosts().look(is_host, call::options(&table.conf), now);
        drop(gone);
    }

    /// Closes all of them for want of descriptors: others need theirs.
    pub(super) fn give_way(&self, now: Instant) {
        let mut hosts = self.hosts();
        hosts.scarce = Some(now);
        let gone = hosts.clear();
        drop(hosts);
        drop(gone);
    }

    /// Closes all of them; there will be no others.
    pub fn close(&self) {
        let mut hosts = self.hosts();
        hosts.closed = true;
        let gone = hosts.clear();
        drop(hosts);
        drop(gone);
    }

    fn make(&self, addr: SocketAddr, options: Options, now: Instant) -> Option<Spare> {
        let (socket, _) = dial::open(options.from, addr).ok()?;
        if socket.as_raw_fd() >= self.high {
            self.hosts().scarce = Some(now);
            return None;
        }
        dial::begin(&socket, addr, options).ok()?;
        Some(Spare { socket, since: now })
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hosts {
    fn take(&mut self, addr: SocketAddr) -> Option<Spare> {
        let kept = self.by_addr.get_mut(&addr)?;
        let Some(spare) = kept.waiting.pop_front() else {
            kept.want_more();
            return None;
        };
        kept.fewest = kept.fewest.min(kept.waiting.len());
        self.count = self.count.saturating_sub(1);
        Some(spare)
    }

    /// How many are to be made now for a host that is in use: places are taken for them.
    fn reserve(&mut self, addr: SocketAddr, options: Options, now: Instant, most: usize) -> usize {
        let is_past = |at: Instant| now.saturating_duration_since(at) >= SCARCE_FOR;
        if self.closed || !self.scarce.is_none_or(is_past) {
            return 0;
        }
        let kept = self
            .by_addr
            .entry(addr)
            .or_insert_with(|| Kept::new(options, now));
        kept.used = now;
        if kept.is_barred(now) || kept.options != options {
            return 0;
        }
        let lacking = kept.wanted.saturating_sub(kept.waiting.len() + kept.coming);
        let room = most.saturating_sub(self.count);
        let count = lacking.min(MOST_AT_ONCE).min(room);
        kept.coming += count;
        self.count += count;
        count
    }

    /// Those that were made wait from now on, in place of `count`, unless they are not wanted any more.
    fn add(&mut self, addr: SocketAddr, count: usize, made: Vec<Spare>) {
        // Without it, the host went meanwhile, or all were closed, and the places with it.
        if let Some(kept) = self.by_addr.get_mut(&addr) {
            kept.coming = kept.coming.saturating_sub(count);
            self.count = self.count.saturating_sub(count);
            if kept.barred.is_none() {
                self.count += made.len();
                kept.waiting.extend(made);
            }
        }
    }

    fn bar(&mut self, addr: SocketAddr, now: Instant) -> VecDeque<Spare> {
        let Some(kept) = self.by_addr.get_mut(&addr) else {
            return VecDeque::new();
        };
        kept.barred = Some(now);
        kept.wanted = 1;
        self.count = self.count.saturating_sub(kept.waiting.len());
        std::mem::take(&mut kept.waiting)
    }

    fn clear(&mut self) -> HashMap<SocketAddr, Kept> {
        self.count = 0;
        std::mem::take(&mut self.by_addr)
    }

    fn look(
        &mut self,
        is_host: impl Fn(SocketAddr) -> bool,
        options: Options,
        now: Instant,
    ) -> Vec<Spare> {
        let mut gone = Vec::new();
        let mut count = 0;
        self.by_addr.retain(|addr, kept| {
            if !is_host(*addr) || kept.options != options {
                gone.extend(kept.waiting.drain(..));
                return false;
            }
            kept.look(now, &mut gone);
            count += kept.waiting.len() + kept.coming;
            let is_over = now.saturating_duration_since(kept.used) >= RETIRED_AFTER;
            !is_over || kept.is_barred(now) || kept.coming + kept.waiting.len() > 0
        });
        self.count = count;
        gone
    }
}

impl Kept {
    fn new(options: Options, now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            coming: 0,
            wanted: 1,
            fewest: 0,
            plenty: 0,
            options,
            used: now,
            barred: None,
        }
    }

    fn want_more(&mut self) {
        if self.barred.is_some() {
            return;
        }
        self.wanted = (self.wanted * 2).min(MOST_OF_ONE);
        self.fewest = 0;
    }

    fn is_barred(&mut self, now: Instant) -> bool {
        let is_over = |at: Instant| now.saturating_duration_since(at) >= BARRED_FOR;
        if self.barred.is_some_and(is_over) {
            self.barred = None;
        }
        self.barred.is_some()
    }

    fn look(&mut self, now: Instant, gone: &mut Vec<Spare>) {
        let mut is_closed = false;
        let mut left = VecDeque::with_capacity(self.waiting.len());
        for spare in self.waiting.drain(..) {
            let looked = spare.look();
            is_closed |= looked == Looked::Closed;
            if looked == Looked::Waits && !spare.is_old(now) {
                left.push_back(spare);
            } else {
                gone.push(spare);
            }
        }
        if is_closed {
            self.barred = Some(now);
            self.wanted = 1;
            gone.extend(left.drain(..));
        }
        self.waiting = left;
        self.plenty = if self.fewest > 0 { self.plenty + 1 } else { 0 };
        if self.plenty >= LOOKS {
            self.plenty = 0;
            self.wanted = (self.wanted - 1).max(1);
        }
        self.fewest = self.waiting.len();
    }
}

impl Spare {
    /// Writes `line` where the connection is made; `WouldBlock` while it is not.
    pub(super) fn send(&self, line: &[u8]) -> io::Result<()> {
        // The other end has read nothing yet: there is room.
        match self.socket.send(line)? {
            sent if sent == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// `WouldBlock` while it is not connected.
    pub(super) fn connected(&self) -> io::Result<()> {
        match self.socket.peer_addr() {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error),
        }
    }

    /// How long it has been there.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Hands it to the runtime of this thread.
    pub(super) fn into_stream(self) -> io::Result<Stream> {
        Stream::new(self.socket.into())
    }

    fn is_old(&self, now: Instant) -> bool {
        self.age(now) >= RETIRED_AFTER
    }

    fn look(&self) -> Looked {
        match self.socket.peek(&mut [MaybeUninit::uninit()]) {
            Err(error) => match error.kind() {
                // Also while it is connecting.
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Looked::Waits,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Looked::Closed,
                _ => Looked::Failed,
            },
            Ok(_) => Looked::Closed,
        }
    }
}

#[cfg(test)]
mod tests;
