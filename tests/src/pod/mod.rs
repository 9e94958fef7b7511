//! Servers for the proxy to reach: each does one thing, and remembers its visitors.

mod guest;

pub use guest::{Guest, Visit};

use crate::{Namespace, eventually, process::locked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

const CHUNK: usize = 64 << 10;
/// Pods may have thousands of visitors at once, each with a thread.
const STACK: usize = 256 << 10;
const BACKLOG: i32 = 4096;
/// How long a scenario waits for what should be there at once.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long more visitors than expected must stay to be believed.
const SETTLING: Duration = Duration::from_millis(50);

/// A server on a host port; clones are the same pod. It may be started again after a stop and remembers on.
#[derive(Clone)]
pub struct Pod {
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    visits: Mutex<Vec<Arc<Visit>>>,
    /// Those whose thread is still serving.
    live: Mutex<Vec<Guest>>,
    most_inside: AtomicUsize,
    expected: AtomicUsize,
    running: Mutex<Option<Running>>,
}

enum Kind {
    Serving(Box<dyn Fn(&Guest) + Send + Sync>),
    /// The port is taken, but nobody listens: every SYN is answered with RST.
    Refusing,
    /// Listens with a full queue: no SYN is answered.
    Clogged,
}

struct Running {
    socket: Arc<Socket>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// What keeps a clogged pod's queue full.
    queue: Vec<Socket>,
}

impl Pod {
    /// A pod that does this with every connection, each on a thread of its own; the connection is closed after it.
    pub fn serving(serve: impl Fn(&Guest) + Send + Sync + 'static) -> Self {
        Self::of(Kind::Serving(Box::new(serve)))
    }

    /// Sends back what comes, as it comes, and FIN after FIN.
    pub fn echo() -> Self {
        Self::serving(|guest| {
            let mut chunk = vec![0; CHUNK];
            while let Ok(count @ 1..) = guest.read(&mut chunk) {
                if guest.send(&chunk[..count]).is_err() {
                    break;
                }
            }
        })
    }

    /// Greets with a line before it reads anything, then listens until the other side ends.
    pub fn answering(name: &str) -> Self {
        Self::banner(format!("{name}\n"))
    }

    /// Sends these bytes before it reads anything, then listens until the other side ends.
    pub fn banner(banner: impl Into<Vec<u8>>) -> Self {
        let banner = banner.into();
        Self::serving(move |guest| {
            let _ = guest.send(&banner);
            guest.read_all();
        })
    }

    /// Greets with a line, sends FIN at once, then listens until the other side ends.
    pub fn answering_once(name: &str) -> Self {
        let greeting = format!("{name}\n");
        Self::serving(move |guest| {
            let _ = guest.send(greeting.as_bytes());
            let _ = guest.stream().shutdown(Shutdown::Write);
            guest.read_all();
        })
    }

    /// Reads and remembers, says nothing.
    pub fn recording() -> Self {
        Self::serving(|guest| drop(guest.read_all()))
    }

    /// Reads to the client's FIN, only then sends everything back, then FIN.
    pub fn returning() -> Self {
        Self::serving(|guest| {
            let all = guest.read_all();
            let _ = guest.send(&all);
        })
    }

    /// Accepts, and neither reads nor writes until the other side ends.
    pub fn silent() -> Self {
        Self::serving(|guest| while !guest.wait_for_end(None) {})
    }

    /// Ends every connection with RST after its first bytes.
    pub fn resetting() -> Self {
        Self::serving(|guest| {
            let _ = guest.read(&mut [0; 1]);
            guest.reset_on_close();
        })
    }

    /// Holds the port, and refuses.
    pub fn refusing() -> Self {
        Self::of(Kind::Refusing)
    }

    /// Never answers a SYN, as a host that has stopped.
    pub fn clogged() -> Self {
        Self::of(Kind::Clogged)
    }

    fn of(kind: Kind) -> Self {
        let inner = Inner {
            kind,
            visits: Mutex::default(),
            live: Mutex::default(),
            most_inside: AtomicUsize::new(0),
            expected: AtomicUsize::new(usize::MAX),
            running: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Starts it in a namespace. An unspecified IPv6 address takes IPv4 as well.
    #[track_caller]
    pub(crate) fn start(&self, namespace: &Namespace, at: SocketAddr) {
        let mut running = locked(&self.inner.running);
        assert!(running.is_none(), "this pod runs already");
        let started = namespace.run(|| self.run(at));
        *running = Some(started.unwrap_or_else(|error| panic!("pod at {at}: {error}")));
    }

    /// Closes its port and its connections, as the end of a process does.
    pub fn stop(&self) {
        let Some(mut running) = locked(&self.inner.running).take() else {
            return;
        };
        running.stop.store(true, Relaxed);
        // Wakes the accepting thread; a socket that does not listen says ENOTCONN.
        let _ = running.socket.shutdown(Shutdown::Both);
        if let Some(thread) = running.thread.take() {
            let _ = thread.join();
        }
        for guest in &*locked(&self.inner.live) {
            let _ = guest.stream().shutdown(Shutdown::Both);
        }
    }

    /// Connections that came, since it was made.
    pub fn accepted(&self) -> usize {
        locked(&self.inner.visits).len()
    }

    /// Connections of which neither side has sent FIN or RST.
    pub fn inside(&self) -> usize {
        inside(&locked(&self.inner.live))
    }

    /// Says how many may be inside at once: more are counted by [`most_inside`](Self::most_inside) only when they stay so
    /// for 50 ms.
    ///
    /// A FIN that was sent before the SYN of the next connection is not always seen before it: it may wait on another
    /// CPU, or for a thread that holds the socket (seen over veth: 1 connection in 200).
    #[must_use]
    pub fn expecting_at_most(self, count: usize) -> Self {
        self.inner.expected.store(count, Relaxed);
        self
    }

    /// The highest [`inside`](Self::inside), seen at each accept.
    pub fn most_inside(&self) -> usize {
        self.inner.most_inside.load(Relaxed)
    }

    /// What it remembers of each connection, in the order they came.
    pub fn visits(&self) -> Vec<Arc<Visit>> {
        locked(&self.inner.visits).clone()
    }

    /// What it remembers of the connection that came as number `index`, from 0. Waits for it to come.
    #[track_caller]
    pub fn visit(&self, index: usize) -> Arc<Visit> {
        let mut visit = None;
        eventually(PATIENCE, &format!("visitor {index} of a pod"), || {
            visit = locked(&self.inner.visits).get(index).cloned();
            visit.is_some()
        });
        visit.expect("it has come")
    }

    /// What it remembers of the last connection so far.
    #[track_caller]
    pub fn last_visit(&self) -> Arc<Visit> {
        self.visit(self.accepted().saturating_sub(1))
    }

    fn run(&self, at: SocketAddr) -> io::Result<Running> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        if at.is_ipv6() {
            socket.set_only_v6(at.ip() != Ipv6Addr::UNSPECIFIED)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&at.into())?;
        let socket = Arc::new(socket);
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Running {
            socket: Arc::clone(&socket),
            stop: Arc::clone(&stop),
            thread: None,
            queue: Vec::new(),
        };
        match &self.inner.kind {
            Kind::Refusing => {}
            Kind::Clogged => {
                socket.listen(0)?;
                running.queue = fill_queue(at)?;
            }
            Kind::Serving(_) => {
                socket.listen(BACKLOG)?;
                let listener = TcpListener::from(socket.try_clone()?);
                let inner = Arc::clone(&self.inner);
                running.thread = Some(thread::spawn(move || accept(&inner, &listener, &stop)));
            }
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.socket.shutdown(Shutdown::Both);
        self.queue.clear();
    }
}

fn accept(inner: &Arc<Inner>, listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        match listener.accept() {
            Ok((stream, peer)) => welcome(inner, stream, peer),
            // After a shutdown, or out of descriptors for a while.
            Err(_) => sleep(Duration::from_millis(10)),
        }
    }
}

fn welcome(inner: &Arc<Inner>, stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let guest = Guest::new(stream, peer, local);
    locked(&inner.visits).push(guest.share_visit());
    let mut live = locked(&inner.live);
    live.push(guest.clone());
    inner
        .most_inside
        .fetch_max(settled(live, inner.expected.load(Relaxed)), Relaxed);
    let owner = Arc::clone(inner);
    let serve = move || {
        if let Kind::Serving(serve) = &owner.kind {
            serve(&guest);
        }
        locked(&owner.live).retain(|other| !other.is(&guest));
    };
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(serve)
        .expect("thread of a pod");
}

/// Those inside; a number above `expected` is given time to be a passing one.
fn settled(live: MutexGuard<'_, Vec<Guest>>, expected: usize) -> usize {
    let mut count = inside(&live);
    if count > expected {
        // Without the lock: those who leave need it.
        let guests = live.clone();
        drop(live);
        let end = Instant::now() + SETTLING;
        while count > expected && Instant::now() < end {
            sleep(Duration::from_millis(1));
            count = inside(&guests);
        }
    }
    count
}

/// The kernel is asked, not our threads: a thread may not have seen yet that its visitor has left.
fn inside(live: &[Guest]) -> usize {
    let mut asked: Vec<_> = live
        .iter()
        .map(|guest| PollFd::new(guest.stream(), PollFlags::RDHUP))
        .collect();
    let _ = poll(
        &mut asked,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    );
    asked.iter().filter(|fd| fd.revents().is_empty()).count()
}

/// Connects until one is not answered any more.
fn fill_queue(at: SocketAddr) -> io::Result<Vec<Socket>> {
    let loopback = match at {
        SocketAddr::V4(at) if at.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, at.port()).into(),
        SocketAddr::V6(at) if at.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, at.port()).into(),
        at => at,
    };
    let mut queue = Vec::new();
    for _ in 0..16 {
        let socket = Socket::new(Domain::for_address(loopback), Type::STREAM, None)?;
        let answered = socket
            .connect_timeout(&loopback.into(), Duration::from_millis(200))
            .is_ok();
        queue.push(socket);
        if !answered {
            return Ok(queue);
        }
    }
    Err(io::Error::other("the accept queue does not fill"))
}
