//! A TCP connection whose readiness the runtime watches, and which may be tried before it is known.
//!
//! Where tokio's own stream asks the kernel only once an event came, this one asks at once: bytes often wait already,
//! and a handshake on the same host is over when `connect()` returns. A read that got less than there was room for
//! is known to have emptied the socket, so that no second one is made to hear that from the kernel.

#![expect(
    unsafe_code,
    reason = "tokio has to be told that a descriptor stays what it is"
)]

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use rustls::Connection;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::tls::{Session, Socket, Step};

/// Most bytes that one read appends.
const SCRATCH: usize = 4096;

thread_local! {
    /// Bytes are read here first, so that what they are kept in is as large as they are.
    static READ: RefCell<[u8; SCRATCH]> = const { RefCell::new([0; SCRATCH]) };
}

/// One end of a connection. It belongs to the runtime of the thread that made it.
#[derive(Debug)]
pub struct Stream {
    io: AsyncFd<TcpStream>,
    /// No read came to the end of what there was yet: one is worth trying, of which no event told.
    is_fresh: AtomicBool,
    /// `None`: what is read and written is what the socket has.
    tls: Option<Box<Mutex<Session>>>,
}

impl Stream {
    /// Registers a non-blocking socket.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        // Urgent data: see `is_urgent`.
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        // SAFETY: a TcpStream owns its descriptor until it is dropped, and it never leaves the AsyncFd.
        let socket = unsafe { AsyncFd::register_with_interest(socket, interest) };
        Ok(Self {
            io: socket?,
            is_fresh: AtomicBool::new(true),
            tls: None,
        })
    }

    /// From now on what is read and written is what `connection` makes of it; `records` of the other end were read
    /// already. [`shake_hands`](Self::shake_hands) comes first.
    pub fn start_tls(&mut self, connection: Connection, records: &[u8]) {
        self.tls = Some(Box::new(Mutex::new(Session::new(connection, records))));
    }

    /// From now on it is the socket itself that is read and written.
    pub fn stop_tls(&mut self) {
        let _ = self.try_flush();
        self.tls = None;
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What the handshake agreed upon; `None` without TLS.
    pub fn with_tls<T>(&self, look: impl FnOnce(&Connection) -> T) -> Option<T> {
        self.tls.as_ref().map(|tls| look(lock(tls).connection()))
    }

    /// Ends when the TLS handshake has.
    ///
    /// Errors: `InvalidData` for what the other end may not say or we do not believe, of which it is told, and
    /// `UnexpectedEof` where it left.
    /// Cancel safety: yes.
    pub async fn shake_hands(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        loop {
            let step = lock(tls).shake_hands(self)?;
            match step {
                Step::Done => {
                    // Plain bytes may have come right behind it.
                    self.is_fresh.store(true, Relaxed);
                    return Ok(());
                }
                Step::Reads => self.readable().await?,
                Step::Writes => self.writable().await?,
            }
        }
    }

    /// Bytes that were taken by a write, and not by the socket yet.
    pub fn unsent(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| lock(tls).unsent())
    }

    /// Hands what is [`unsent`](Self::unsent) to the socket.
    ///
    /// Errors: `WouldBlock` where there is no room for all of it.
    pub fn try_flush(&self) -> io::Result<()> {
        let tls = self.tls.as_ref();
        tls.map_or(Ok(()), |tls| lock(tls).flush(self))
    }

    /// States that no more will be written, where the protocol has words for it; a FIN follows what is unsent.
    pub fn end(&self) {
        if let Some(tls) = &self.tls {
            lock(tls).end(self);
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// The pending error of the socket, which is thereby taken.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get_ref().take_error()
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.io.get_ref().shutdown(how)
    }

    /// Reads at once, known to be readable or not.
    ///
    /// Errors: `WouldBlock` where there is nothing; then [`readable`](Self::readable) waits for more.
    pub fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.receive(bytes);
        };
        let mut session = lock(tls);
        let read = session.read(bytes, self);
        let is_full = read.as_ref().is_ok_and(|read| *read == bytes.len());
        if is_full || session.has_more() {
            // Of what is decrypted already no event will tell.
            self.is_fresh.store(true, Relaxed);
        }
        read
    }

    /// Reads from the socket itself.
    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        self.attempt(Interest::READABLE, |mut socket| {
            let read = socket.read(bytes);
            let drained = matches!(read, Ok(read @ 1..) if read < bytes.len());
            (read, drained)
        })
    }

    /// The same, appended to `bytes`: at most `most` of them, and 4 KiB. Where there are none, nothing is allocated.
    pub fn try_read_buf(&self, bytes: &mut BytesMut, most: usize) -> io::Result<usize> {
        READ.with_borrow_mut(|scratch| {
            let read = self.try_read(&mut scratch[..most.min(SCRATCH)])?;
            bytes.extend_from_slice(&scratch[..read]);
            Ok(read)
        })
    }

    /// Writes at once, known to be writable or not.
    ///
    /// Errors: `WouldBlock` where there is no room; then [`writable`](Self::writable) waits for it.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tls) = &self.tls {
            return lock(tls).write(bytes, self);
        }
        self.attempt(Interest::WRITABLE, |mut socket| {
            (socket.write(bytes), false)
        })
    }

    /// Does `operation`, which moves bytes from or to the socket, at once.
    ///
    /// It says besides whether it came to the end of what there was; `WouldBlock` says so too.
    pub fn attempt<T>(
        &self,
        interest: Interest,
        operation: impl FnOnce(&TcpStream) -> (io::Result<T>, bool),
    ) -> io::Result<T> {
        let mut operation = Some(operation);
        let mut result = None;
        // Within `try_io`, so that an event that comes meanwhile is not cleared with the ones before it.
        let _ = self.io.try_io(interest, |socket| {
            let operation = operation.take().ok_or(ErrorKind::Other)?;
            let (done, is_over) = operation(socket);
            let is_over = match &done {
                Ok(_) => is_over && !self.is_urgent(),
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            result = Some(done);
            if is_over {
                return Err(ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        let (result, is_over) = match (result, operation) {
            (Some(result), _) => (result, true),
            // Nothing is known yet, so that there is nothing to clear.
            (None, Some(operation)) => operation(self.io.get_ref()),
            (None, None) => (Err(ErrorKind::WouldBlock.into()), true),
        };
        let is_dry = |error: &io::Error| error.kind() == ErrorKind::WouldBlock;
        if interest.is_readable() && (is_over || result.as_ref().is_err_and(is_dry)) {
            self.is_fresh.store(false, Relaxed);
        }
        result
    }

    /// Whether urgent data came, before which a read stops short although more is there, and which splice(2) never
    /// passes.
    pub fn is_urgent(&self) -> bool {
        // Also true after a FIN, which a closer look tells apart.
        if self.io.try_io(Interest::PRIORITY, |_| Ok(())).is_err() {
            return false;
        }
        let look = pin!(self.io.ready(Interest::PRIORITY));
        match look.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(mut guard)) => {
                guard.retain_ready();
                guard.ready().is_priority()
            }
            // The task's budget is used up, or the runtime goes down: as good as urgent.
            Poll::Ready(Err(_)) | Poll::Pending => true,
        }
    }

    /// Resolves when a read is worth trying. Keeps the waker of the last call.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_fresh.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        self.io
            .poll_read_ready(cx)
            .map_ok(|mut guard| guard.retain_ready())
    }

    /// Resolves when a write is worth trying. Keeps the waker of the last call.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io
            .poll_write_ready(cx)
            .map_ok(|mut guard| guard.retain_ready())
    }

    /// Resolves when a read is worth trying.
    ///
    /// Cancel safety: yes.
    pub async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await
    }

    /// Resolves when a write is worth trying.
    ///
    /// Cancel safety: yes.
    pub async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await
    }

    /// Resolves when the kernel reports an error (a reset).
    ///
    /// Cancel safety: yes.
    pub async fn broken(&self) {
        // An error of the wait itself says that the runtime goes down: as good as a reset.
        let _ = self.ready(Interest::ERROR).await;
    }

    /// Whether the kernel has reported an error.
    pub fn is_broken(&self) -> bool {
        self.io.try_io(Interest::ERROR, |_| Ok(())).is_ok()
    }

    async fn ready(&self, interest: Interest) -> io::Result<()> {
        self.io.ready(interest).await?.retain_ready();
        Ok(())
    }
}

/// Registers a non-blocking listener, which other threads may watch too.
pub fn watch(listener: Arc<TcpListener>) -> io::Result<AsyncFd<Arc<TcpListener>>> {
    // SAFETY: the TcpListener owns its descriptor until the last Arc is dropped, and this one is in the AsyncFd.
    let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    Ok(listener?)
}

impl Socket for Stream {
    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Self::receive(self, bytes)
    }

    fn send(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<usize>) -> io::Result<usize> {
        self.attempt(Interest::WRITABLE, |mut socket| (write(&mut socket), false))
    }
}

fn lock(tls: &Mutex<Session>) -> MutexGuard<'_, Session> {
    // A panic inside leaves a session that fails by itself.
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }
}
