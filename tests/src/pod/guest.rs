use super::{CHUNK, PATIENCE};
use crate::{Ended, eventually, process::locked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Bytes of each visitor that are remembered.
const REMEMBERED: usize = 4 << 10;

/// What a pod remembers of one connection.
pub struct Visit {
    peer: SocketAddr,
    local: SocketAddr,
    came: Instant,
    first: Mutex<Vec<u8>>,
    received: AtomicU64,
    ended: Mutex<Option<Ended>>,
}

/// A connection being served: what the closure of [`Pod::serving`](super::Pod::serving) gets.
#[derive(Clone)]
pub struct Guest {
    stream: Arc<TcpStream>,
    visit: Arc<Visit>,
}

impl Guest {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, local: SocketAddr) -> Self {
        let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
        let visit = Visit {
            peer: canonical(peer),
            local: canonical(local),
            came: Instant::now(),
            first: Mutex::default(),
            received: AtomicU64::new(0),
            ended: Mutex::default(),
        };
        Self {
            stream: Arc::new(stream),
            visit: Arc::new(visit),
        }
    }

    pub(crate) fn share_visit(&self) -> Arc<Visit> {
        Arc::clone(&self.visit)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.visit, &other.visit)
    }

    pub fn visit(&self) -> &Visit {
        &self.visit
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once, and remembers.
    pub fn read(&self, chunk: &mut [u8]) -> io::Result<usize> {
        let read = (&*self.stream).read(chunk);
        match &read {
            Ok(0) => *locked(&self.visit.ended) = Some(Ended::Eof),
            Ok(count) => self.visit.remember(&chunk[..*count]),
            Err(_) => *locked(&self.visit.ended) = Some(Ended::Reset),
        }
        read
    }

    /// Reads until the other side ends.
    pub fn read_all(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = self.read(&mut chunk) {
            all.extend_from_slice(&chunk[..count]);
        }
        all
    }

    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(bytes)
    }

    /// The close will be RST.
    pub fn reset_on_close(&self) {
        let _ = SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Whether the other side has ended, without reading: bytes stay where they are. `None` waits for it.
    pub fn wait_for_end(&self, limit: Option<Duration>) -> bool {
        self.polled(PollFlags::RDHUP, limit)
    }

    /// Whether something comes within `limit`, bytes or an end.
    pub fn is_readable(&self, limit: Duration) -> bool {
        self.polled(PollFlags::IN, Some(limit))
    }

    fn polled(&self, flags: PollFlags, limit: Option<Duration>) -> bool {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        poll(&mut [PollFd::new(&*self.stream, flags)], limit.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

impl Visit {
    /// Who connected: the proxy, or whoever came without it.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// When it was accepted.
    pub fn came(&self) -> Instant {
        self.came
    }

    /// The first bytes that came, at most 4 KiB.
    pub fn first_bytes(&self) -> Vec<u8> {
        locked(&self.first).clone()
    }

    /// All bytes that came, counted.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// How the other side ended; `None` while it has not, or while nobody reads.
    pub fn ended(&self) -> Option<Ended> {
        *locked(&self.ended)
    }

    /// Waits until the other side has ended, and tells how.
    #[track_caller]
    pub fn wait_for_end(&self) -> Ended {
        eventually(PATIENCE, &format!("end of {self:?}"), || {
            self.ended().is_some()
        });
        self.ended().expect("it has ended")
    }

    /// Waits until that many bytes have come, and gives the first bytes.
    #[track_caller]
    pub fn wait_for_bytes(&self, count: u64) -> Vec<u8> {
        eventually(PATIENCE, &format!("{count} bytes of {self:?}"), || {
            self.received() >= count
        });
        self.first_bytes()
    }

    fn remember(&self, bytes: &[u8]) {
        let mut first = locked(&self.first);
        let room = REMEMBERED - first.len();
        first.extend_from_slice(&bytes[..bytes.len().min(room)]);
        drop(first);
        self.received.fetch_add(bytes.len() as u64, Relaxed);
    }
}

impl fmt::Debug for Visit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first_bytes();
        write!(
            out,
            "{} -> {}: {} bytes, first `{}`",
            self.peer,
            self.local,
            self.received(),
            first.escape_ascii()
        )
    }
}
