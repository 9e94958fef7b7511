//! One end of a connection, plain or with TLS.
//!
//! A client that speaks TLS is the same for whoever is measured: one version, one suite, one curve.

use super::socket::{self, Interest};
use anyhow::{Context, ensure};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup,
    client::Resumption,
    crypto::{
        CryptoProvider,
        ring::{self, cipher_suite, kx_group},
    },
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use serde::{Deserialize, Serialize};
use snproxy_tests::Issued;
use std::{
    cell::RefCell,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

/// Whom the certificate of each contestant names.
pub(crate) const NAME: &str = "server.example";
/// Most bytes of records that are received at once.
const RECORDS: usize = 64 << 10;
/// Sessions that a client remembers: there is one server.
const SESSIONS: usize = 8;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; RECORDS].into());
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
pub(crate) enum Version {
    #[value(name = "1.2")]
    #[serde(rename = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    #[serde(rename = "1.3")]
    Tls13,
}

/// How clients speak TLS; all of them show a certificate and verify the server's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Tls {
    pub(crate) version: Version,
    /// A session that the server has given is taken up again.
    pub(crate) resume: bool,
}

impl Version {
    /// `folder` holds the client's certificate, its key, and the authority.
    pub(super) fn config(self, folder: &Path) -> anyhow::Result<Arc<ClientConfig>> {
        let provider = CryptoProvider {
            cipher_suites: vec![match self {
                Self::Tls12 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                Self::Tls13 => cipher_suite::TLS13_AES_256_GCM_SHA384,
            }],
            // Of the second one is the server's certificate, for which TLS 1.2 asks the client.
            kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
            ..ring::default_provider()
        };
        let version = match self {
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        };
        let issued = Issued::read_folder(folder).context("certificates of the client")?;
        let mut config = issued.client_with(provider, &[version]);
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Where connections lead, and how.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) to: SocketAddr,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

pub(super) enum End {
    Plain(OwnedFd),
    Tls(OwnedFd, Box<RefCell<Session>>),
}

pub(super) struct Session {
    tls: ClientConnection,
    is_closed: bool,
}

impl Dial {
    /// The same for a client of its own, which knows nobody else's sessions.
    pub(super) fn of_its_own(&self) -> Self {
        let own = |config: &Arc<ClientConfig>| {
            let mut config = ClientConfig::clone(config);
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
            Arc::new(config)
        };
        let tls = self.tls.as_ref();
        Self {
            tls: tls.map(own),
            ..self.clone()
        }
    }

    /// A connection being opened.
    pub(super) fn open(&self) -> anyhow::Result<End> {
        let socket = socket::open(self.to).context("open a connection")?;
        let Some(config) = &self.tls else {
            return Ok(End::Plain(socket));
        };
        let name = ServerName::try_from(NAME)?;
        let tls = ClientConnection::new(Arc::clone(config), name)?;
        let is_closed = false;
        let session = RefCell::new(Session { tls, is_closed });
        Ok(End::Tls(socket, Box::new(session)))
    }
}

impl End {
    /// `None` when there is no room, or the handshake waits for the other side.
    pub(super) fn try_send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(socket) => Ok(socket::try_send(socket, bytes)?),
            Self::Tls(socket, session) => session.borrow_mut().try_send(bytes, socket),
        }
    }

    /// `None` when nothing is there; `Some(0)` at the end.
    pub(super) fn try_recv(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(socket) => Ok(socket::try_recv(socket, into)?),
            Self::Tls(socket, session) => session.borrow_mut().try_recv(into, socket),
        }
    }

    pub(super) fn finish(&self) -> anyhow::Result<()> {
        match self {
            Self::Plain(socket) => Ok(socket::finish(socket)?),
            Self::Tls(socket, session) => session.borrow_mut().finish(socket),
        }
    }

    /// What there is to wait for on the socket by whoever waits for `wanted`.
    pub(super) fn interest(&self, wanted: Interest) -> Interest {
        let Self::Tls(_, session) = self else {
            return wanted;
        };
        let tls = &session.borrow().tls;
        match (tls.wants_write(), tls.is_handshaking()) {
            (true, _) => Interest::Both,
            (false, true) => Interest::Read,
            (false, false) => wanted,
        }
    }

    /// Whether a session was taken up again.
    pub(super) fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(_, session) => {
                session.borrow().tls.handshake_kind() == Some(HandshakeKind::Resumed)
            }
        }
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) | Self::Tls(socket, _) => socket.as_fd(),
        }
    }
}

impl Session {
    fn try_send(&mut self, bytes: &[u8], socket: &OwnedFd) -> io::Result<Option<usize>> {
        // What ends the handshake goes out together with what is sent first.
        if !self.tls.is_handshaking() && !self.flush(socket)? {
            return Ok(None);
        }
        while self.tls.is_handshaking() {
            if !self.flush(socket)? || self.take_in(&mut [], socket)?.is_none() {
                return Ok(None);
            }
            if self.is_closed {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let group = self.tls.negotiated_key_exchange_group();
        if group.is_some_and(|group| group.name() != NamedGroup::X25519) {
            return Err(io::Error::other(format!("another curve: {group:?}")));
        }
        let taken = self.tls.writer().write(bytes)?;
        self.flush(socket)?;
        Ok(Some(taken))
    }

    fn try_recv(&mut self, into: &mut [u8], socket: &OwnedFd) -> io::Result<Option<usize>> {
        self.flush(socket)?;
        loop {
            match self.tls.reader().read(into) {
                Ok(read) => return Ok(Some(read)),
                // Every stream and answer tells its own length.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(0)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            match self.take_in(into, socket)? {
                None => return Ok(None),
                Some(0) => {}
                filled => return Ok(filled),
            }
        }
    }

    /// Receives records and decrypts all of them; `None` when none are there.
    fn take_in(&mut self, into: &mut [u8], socket: &OwnedFd) -> io::Result<Option<usize>> {
        SCRATCH.with_borrow_mut(|records| {
            let Some(count) = socket::try_recv(socket, records)? else {
                return Ok(None);
            };
            if count == 0 {
                self.is_closed = true;
                self.tls.read_tls(&mut io::empty())?;
                return Ok(Some(0));
            }
            let mut rest = &records[..count];
            let mut filled = 0;
            while !rest.is_empty() && !self.is_closed {
                self.tls.read_tls(&mut rest)?;
                let state = self.tls.process_new_packets().map_err(io::Error::other)?;
                self.is_closed = state.peer_has_closed();
                while filled < into.len() {
                    match self.tls.reader().read(&mut into[filled..]) {
                        Ok(read @ 1..) => filled += read,
                        _ => break,
                    }
                }
            }
            Ok(Some(filled))
        })
    }

    /// Whether all of it went out.
    fn flush(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Raw(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn finish(&mut self, socket: &OwnedFd) -> anyhow::Result<()> {
        self.tls.send_close_notify();
        ensure!(self.flush(socket)?, "no room for an end");
        Ok(socket::finish(socket)?)
    }
}

/// The socket, as rustls writes to it.
struct Raw<'s>(&'s OwnedFd);

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        socket::try_send(self.0, bytes)?.ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        socket::try_send_pieces(self.0, pieces)?.ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
