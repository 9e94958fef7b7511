use socket2::{Domain, SockRef, Socket, Type};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

/// Longest wait for one read or write unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(15);
const LONGEST_LINE: usize = 64 << 10;
/// Between bytes that are segments of their own.
pub(crate) const PIECE: Duration = Duration::from_millis(2);

/// One end of a TCP connection. Reads and writes that must succeed panic when they do not, or when nothing moves for 15 s.
pub struct Conn {
    stream: TcpStream,
}

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// FIN.
    Eof,
    /// RST.
    Reset,
    /// It did not: nothing came within the limit.
    Open,
}

impl Conn {
    pub fn connect(to: SocketAddr, limit: Duration) -> io::Result<Self> {
        TcpStream::connect_timeout(&to, limit).and_then(Self::new)
    }

    pub fn connect_from(from: SocketAddr, to: SocketAddr, limit: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), limit)?;
        Self::new(socket.into())
    }

    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    #[track_caller]
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("local address")
    }

    /// The bare stream, for what has no word here.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> &Self {
        (&self.stream)
            .write_all(bytes.as_ref())
            .unwrap_or_else(|error| panic!("send on {self:?}: {error}"));
        self
    }

    /// Sends each byte as a segment of its own.
    #[track_caller]
    pub fn dribble(&self, bytes: impl AsRef<[u8]>) -> &Self {
        for byte in bytes.as_ref().chunks(1) {
            self.send(byte);
            sleep(PIECE);
        }
        self
    }

    /// Writes until nothing has been taken for `quiet` and gives how much was taken.
    pub fn offer(&self, bytes: &[u8], quiet: Duration) -> usize {
        self.stream
            .set_write_timeout(Some(quiet))
            .expect("write timeout");
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match (&self.stream).write(rest) {
                Ok(count) => taken += count,
                Err(_) => break,
            }
        }
        self.stream
            .set_write_timeout(Some(PATIENCE))
            .expect("write timeout");
        taken
    }

    /// Exactly this many bytes.
    #[track_caller]
    pub fn read(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        (&self.stream)
            .read_exact(&mut bytes)
            .unwrap_or_else(|error| panic!("read {count} on {self:?}: {error}"));
        bytes
    }

    /// One line without its end, read byte by byte so that nothing behind it is taken.
    #[track_caller]
    pub fn line(&self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') && line.len() < LONGEST_LINE {
            line.extend(self.read(1));
        }
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// The line with which [`Pod::answering`](crate::Pod::answering) greets.
    #[track_caller]
    pub fn greeting(&self) -> String {
        self.line()
    }

    /// All bytes until the other side ends the connection in order.
    #[track_caller]
    pub fn read_to_end(&self) -> Vec<u8> {
        let (bytes, ended) = self.rest(PATIENCE);
        assert_eq!(ended, Ended::Eof, "after {} bytes on {self:?}", bytes.len());
        bytes
    }

    /// All bytes until the connection ends or nothing comes for `quiet`, and how it ended.
    pub fn rest(&self, quiet: Duration) -> (Vec<u8>, Ended) {
        self.stream
            .set_read_timeout(Some(quiet))
            .expect("read timeout");
        let mut bytes = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        let ended = loop {
            match (&self.stream).read(&mut chunk) {
                Ok(0) => break Ended::Eof,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => break Ended::Open,
                    io::ErrorKind::Interrupted => {}
                    _ => break Ended::Reset,
                },
            }
        };
        self.stream
            .set_read_timeout(Some(PATIENCE))
            .expect("read timeout");
        (bytes, ended)
    }

    /// How the connection ends, whatever comes before; `Open` when it does not for 15 s.
    pub fn ended(&self) -> Ended {
        self.rest(PATIENCE).1
    }

    /// Whether the connection stays open and nothing comes for that long.
    pub fn stays_quiet(&self, quiet: Duration) -> bool {
        self.rest(quiet) == (Vec::new(), Ended::Open)
    }

    /// Time until the first byte (or the end) is there to be read.
    #[track_caller]
    pub fn first_byte_after(&self) -> Duration {
        let start = Instant::now();
        self.stream
            .peek(&mut [0])
            .unwrap_or_else(|error| panic!("first byte on {self:?}: {error}"));
        start.elapsed()
    }

    /// Sends FIN; reading goes on.
    pub fn half_close(&self) -> &Self {
        // A connection that the other side has ended already is as closed as asked for.
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.stream.local_addr(), self.stream.peer_addr()) {
            (Ok(local), Ok(peer)) => write!(out, "{local} -> {peer}"),
            _ => write!(out, "an ended connection"),
        }
    }
}
