//! TLS on a socket: plain bytes on one side, records on the other.
//!
//! What is held is bounded: the records of one write that the socket did not take, and of one read what its reader had no
//! room for.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;

use rustls::{Connection, InvalidMessage};

/// Most bytes of records that one read takes from the socket.
const SCRATCH: usize = 64 * 1024;
/// Reads from the socket in a row that brought nothing to whoever reads: then others have their turn.
const MAX_EMPTY: usize = 8;

thread_local! {
    static RECORDS: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// The socket, as a session needs it. Errors: `WouldBlock` where it has nothing, or no room.
pub(super) trait Socket {
    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize>;
    fn send(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<usize>) -> io::Result<usize>;
}

/// What a handshake waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Done,
    Reads,
    Writes,
}

/// One end of a TLS connection.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    /// Records that came, and were not taken in.
    incoming: Vec<u8>,
    /// Records that the socket did not take.
    outgoing: Vec<u8>,
    /// The other end stated its end.
    is_closed: bool,
    /// Why no more will come.
    failed: Option<rustls::Error>,
}

impl Session {
    /// `records` of the other end were read already.
    pub(super) fn new(connection: Connection, records: &[u8]) -> Self {
        Self {
            connection,
            incoming: records.to_vec(),
            outgoing: Vec::new(),
            is_closed: false,
            failed: None,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether a read tells something though the socket has nothing, once one left room.
    pub(super) fn has_more(&self) -> bool {
        !self.incoming.is_empty() || self.is_closed || self.failed.is_some()
    }

    /// Bytes that the socket has still to take.
    pub(super) fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Moves plain bytes into `bytes`: 0 at the end that the other side stated.
    ///
    /// Errors: `WouldBlock`; `ConnectionReset` for an end that nobody stated; `InvalidData` for what breaks the protocol,
    /// of which the other end is told.
    pub(super) fn read(&mut self, bytes: &mut [u8], socket: &impl Socket) -> io::Result<usize> {
        for _ in 0..MAX_EMPTY {
            let incoming = mem::take(&mut self.incoming);
            if !incoming.is_empty() {
                let (filled, taken) = self.take_in(&incoming, bytes, socket);
                if taken < incoming.len() {
                    self.incoming = incoming;
                    self.incoming.drain(..taken);
                }
                if filled > 0 {
                    return Ok(filled);
                }
            }
            match self.connection.reader().read(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A FIN alone may be anybody's: what came is not known to be all.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(ErrorKind::ConnectionReset.into());
                }
                read => return read,
            }
            if let Some(error) = &self.failed {
                return Err(io::Error::new(ErrorKind::InvalidData, error.clone()));
            }
            let filled = RECORDS.with_borrow_mut(|records| {
                let received = socket.receive(records)?;
                if received == 0 {
                    self.connection.read_tls(&mut io::empty())?;
                    return Ok(0);
                }
                let (filled, taken) = self.take_in(&records[..received], bytes, socket);
                self.incoming.extend_from_slice(&records[taken..received]);
                io::Result::Ok(filled)
            })?;
            if filled > 0 {
                return Ok(filled);
            }
        }
        Err(ErrorKind::WouldBlock.into())
    }

    /// Decrypts records as long as there is room in `bytes`: how many plain bytes there are, and how many of the records
    /// were taken.
    fn take_in(
        &mut self,
        records: &[u8],
        bytes: &mut [u8],
        socket: &impl Socket,
    ) -> (usize, usize) {
        let mut rest = records;
        let mut filled = 0;
        while !rest.is_empty() && filled < bytes.len() {
            let before = rest.len();
            self.feed(&mut rest, socket);
            while let Ok(read @ 1..) = self.connection.reader().read(&mut bytes[filled..]) {
                filled += read;
            }
            if rest.len() == before && filled == 0 {
                // Nothing more is wanted of it.
                rest = &[];
            }
        }
        (filled, records.len() - rest.len())
    }

    /// Gives some records to the connection; all of them, unheeded, where it wants no more.
    fn feed(&mut self, records: &mut &[u8], socket: &impl Socket) {
        if self.failed.is_some() {
            *records = &[];
            return;
        }
        match self.connection.read_tls(records) {
            // The other end stated its end: what follows is nobody's.
            Ok(0) => *records = &[],
            Ok(_) => match self.connection.process_new_packets() {
                Ok(state) => self.is_closed |= state.peer_has_closed(),
                Err(error) => self.failed = Some(error),
            },
            // A message of a handshake that is longer than all that is kept of one.
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                self.failed = Some(InvalidMessage::HandshakePayloadTooLarge.into());
                *records = &[];
            }
            // More plain bytes wait than it keeps: they are read first.
            Err(_) => {}
        }
        // An alert, or the answer to a change of keys; what is not taken now goes with the next write.
        let _ = self.flush(socket);
    }

    /// Takes plain bytes, all or some, once what was taken before is with the socket.
    ///
    /// Errors: `WouldBlock`, or what the socket says.
    pub(super) fn write(&mut self, bytes: &[u8], socket: &impl Socket) -> io::Result<usize> {
        self.flush(socket)?;
        let taken = self.connection.writer().write(bytes)?;
        match self.flush(socket) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// States the end of what is sent.
    pub(super) fn end(&mut self, socket: &impl Socket) {
        self.connection.send_close_notify();
        // What is not taken now is with `unsent`.
        let _ = self.flush(socket);
    }

    /// Sends what waits. Errors: `WouldBlock` where some of it has to go on waiting.
    pub(super) fn flush(&mut self, socket: &impl Socket) -> io::Result<()> {
        let sent = self.send_all(socket);
        if sent.is_err() {
            while self.connection.wants_write() {
                self.connection.write_tls(&mut self.outgoing)?;
            }
        }
        sent
    }

    fn send_all(&mut self, socket: &impl Socket) -> io::Result<()> {
        let mut sent = 0;
        let result = loop {
            if sent == self.outgoing.len() {
                break Ok(());
            }
            match socket.send(|socket| socket.write(&self.outgoing[sent..])) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.outgoing.drain(..sent);
        result?;
        self.outgoing = Vec::new();
        while self.connection.wants_write() {
            match socket.send(|mut socket| self.connection.write_tls(&mut socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Goes on with the handshake as far as the socket lets it.
    ///
    /// Errors: it came to nothing, of which the other end is told.
    pub(super) fn shake_hands(&mut self, socket: &impl Socket) -> io::Result<Step> {
        loop {
            match self.flush(socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Writes),
                sent => sent?,
            }
            if !self.connection.is_handshaking() {
                return Ok(Step::Done);
            }
            if let Some(error) = &self.failed {
                return Err(io::Error::new(ErrorKind::InvalidData, error.clone()));
            }
            let records = mem::take(&mut self.incoming);
            if !records.is_empty() {
                self.incoming = self.greet(&records, socket).to_vec();
                continue;
            }
            let received = RECORDS.with_borrow_mut(|records| {
                let received = socket.receive(records)?;
                self.incoming = self.greet(&records[..received], socket).to_vec();
                io::Result::Ok(received)
            });
            match received {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Reads),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes in what belongs to the handshake: the records behind it are left.
    fn greet<'r>(&mut self, mut records: &'r [u8], socket: &impl Socket) -> &'r [u8] {
        while !records.is_empty() && self.connection.is_handshaking() {
            let before = records.len();
            self.feed(&mut records, socket);
            if records.len() == before {
                // Whatever the reason, the same bytes again would not be taken either.
                self.failed = Some(InvalidMessage::MessageTooLarge.into());
                break;
            }
        }
        records
    }
}
