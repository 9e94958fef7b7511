//! TLS ends of connections, by the library that the proxy uses too; openssl is there for the other ones.

use crate::{Conn, Issued};
use rustls::{
    ClientConfig, ClientConnection, Connection, DEFAULT_VERSIONS, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    cell::RefCell,
    io::{self, ErrorKind, Read, Write},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(15);

/// One end of a TLS connection.
pub struct TlsConn {
    conn: Conn,
    tls: RefCell<Connection>,
}

/// How the other side ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsEnded {
    /// It said so.
    Closed,
    /// A FIN, and not a word.
    Cut,
    Reset,
    /// It did not: nothing came within the limit.
    Open,
}

impl Issued {
    /// A client that believes the authority, and shows its certificate if it is asked.
    #[track_caller]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.client_with(ring::default_provider(), DEFAULT_VERSIONS))
    }

    /// The same with this cryptography and these versions of the protocol.
    #[track_caller]
    pub fn client_with(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(versions)
            .expect("protocol versions")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(self.chain(), self.private_key())
            .expect("a certificate and its key")
    }

    /// The same with a chain of so many certificates.
    #[track_caller]
    pub fn client_with_chain(&self, count: usize) -> Arc<ClientConfig> {
        let chain = vec![self.chain().remove(0); count];
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, self.private_key());
        Arc::new(config.expect("a certificate and its key"))
    }

    /// What its client says first: one record.
    #[track_caller]
    pub fn client_hello(&self, name: &str) -> Vec<u8> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(self.client(), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a write to memory");
        hello
    }

    /// The same without a certificate.
    #[track_caller]
    pub fn nameless_client(&self) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        Arc::new(config)
    }

    /// A server whose clients have to show a certificate of the authority.
    #[track_caller]
    pub fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(ring::default_provider());
        let roots = self.roots().into();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(self.chain(), self.private_key());
        Arc::new(config.expect("a certificate and its key"))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("a certificate");
        roots.add(ca).expect("an authority");
        roots
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate")]
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key")
    }
}

impl TlsConn {
    /// The client's end, with its handshake behind it.
    pub fn connect(conn: Conn, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::new(conn, tls.into())
    }

    /// The server's.
    pub fn accept(conn: Conn, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Self::new(conn, tls.into())
    }

    fn new(conn: Conn, mut tls: Connection) -> io::Result<Self> {
        while tls.is_handshaking() {
            tls.complete_io(&mut conn.stream())?;
        }
        let tls = RefCell::new(tls);
        Ok(Self { conn, tls })
    }

    pub fn conn(&self) -> &Conn {
        &self.conn
    }

    /// The certificate of the other side.
    pub fn peer(&self) -> Option<CertificateDer<'static>> {
        let tls = self.tls.borrow();
        let chain = tls.peer_certificates()?;
        chain.first().map(|first| first.clone().into_owned())
    }

    /// The protocol that ALPN agreed upon.
    pub fn protocol(&self) -> Option<String> {
        let tls = self.tls.borrow();
        let protocol = tls.alpn_protocol()?;
        Some(String::from_utf8_lossy(protocol).into_owned())
    }

    #[track_caller]
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> &Self {
        let mut tls = self.tls.borrow_mut();
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            let taken = tls.writer().write(rest).expect("plain bytes");
            rest = &rest[taken..];
            while tls.wants_write() {
                tls.write_tls(&mut self.conn.stream())
                    .unwrap_or_else(|error| panic!("send on {:?}: {error}", self.conn));
            }
        }
        self
    }

    /// Sends `bytes` and gives as many that come meanwhile; both sides have other keys after each `part` that went.
    #[track_caller]
    pub fn exchange(&self, bytes: &[u8], part: usize) -> Vec<u8> {
        self.conn.stream().set_nonblocking(true).expect("a socket");
        let mut tls = self.tls.borrow_mut();
        let (mut sent, mut got) = (0, Vec::new());
        let mut last = Instant::now();
        while got.len() < bytes.len() {
            if !tls.wants_write() && sent < bytes.len() {
                let end = bytes.len().min((sent / part + 1) * part);
                sent += tls.writer().write(&bytes[sent..end]).expect("plain bytes");
                if sent == end {
                    tls.refresh_traffic_keys().expect("other keys");
                }
            }
            if self.step(&mut tls, &mut got) {
                last = Instant::now();
            } else {
                assert!(last.elapsed() < PATIENCE, "{sent} sent, {} got", got.len());
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.conn.stream().set_nonblocking(false).expect("a socket");
        got
    }

    /// Moves what can be moved without waiting; whether anything was.
    fn step(&self, tls: &mut Connection, got: &mut Vec<u8>) -> bool {
        let moved = |moved: io::Result<usize>| match moved {
            Ok(count) => count > 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{:?}: {error}", self.conn),
        };
        let mut stream = self.conn.stream();
        let has_sent = tls.wants_write() && moved(tls.write_tls(&mut stream));
        let has_come = tls.wants_read() && moved(tls.read_tls(&mut stream));
        tls.process_new_packets().expect("good records");
        let before = got.len();
        let _ = tls.reader().read_to_end(got);
        has_sent || has_come || got.len() > before
    }

    /// Sends back what comes, to its end; both sides have other keys after each `part`.
    pub fn echo(&self, part: usize) {
        let (mut count, mut next) = (0, part);
        while let Ok(bytes) = self.read_some(usize::MAX, PATIENCE) {
            self.send(&bytes);
            count += bytes.len();
            if count >= next {
                next += part;
                let mut tls = self.tls.borrow_mut();
                tls.refresh_traffic_keys().expect("other keys");
            }
        }
        self.half_close();
    }

    /// Says that no more will come, and sends FIN; reading goes on.
    pub fn half_close(&self) -> &Self {
        let mut tls = self.tls.borrow_mut();
        tls.send_close_notify();
        // A connection that the other side has ended already is as closed as asked for.
        let _ = tls.write_tls(&mut self.conn.stream());
        self.conn.half_close();
        self
    }

    /// Exactly this many bytes.
    #[track_caller]
    pub fn read(&self, count: usize) -> Vec<u8> {
        let mut got = Vec::new();
        let until = Instant::now() + PATIENCE;
        while got.len() < count {
            match self.read_some(count - got.len(), PATIENCE) {
                Ok(bytes) => got.extend(bytes),
                Err(ended) => panic!(
                    "{ended:?} after {} of {count} on {:?}",
                    got.len(),
                    self.conn
                ),
            }
            assert!(Instant::now() < until, "{} of {count} bytes", got.len());
        }
        got
    }

    /// All bytes until the other side ends or nothing comes for `quiet`, and how it ended.
    pub fn rest(&self, quiet: Duration) -> (Vec<u8>, TlsEnded) {
        let mut got = Vec::new();
        loop {
            match self.read_some(usize::MAX, quiet) {
                Ok(bytes) => got.extend(bytes),
                Err(ended) => return (got, ended),
            }
        }
    }

    /// How it ends, whatever comes before.
    pub fn ended(&self) -> TlsEnded {
        self.rest(PATIENCE).1
    }

    fn read_some(&self, most: usize, quiet: Duration) -> Result<Vec<u8>, TlsEnded> {
        let mut stream = self.conn.stream();
        let _ = stream.set_read_timeout(Some(quiet));
        let mut tls = self.tls.borrow_mut();
        let mut chunk = vec![0; most.min(64 << 10)];
        loop {
            match tls.reader().read(&mut chunk) {
                Ok(0) => return Err(TlsEnded::Closed),
                Ok(count) => {
                    chunk.truncate(count);
                    return Ok(chunk);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(TlsEnded::Cut),
            }
            match tls.read_tls(&mut stream) {
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(TlsEnded::Open),
                    ErrorKind::Interrupted => {}
                    _ => return Err(TlsEnded::Reset),
                },
            }
            if tls.process_new_packets().is_err() {
                let _ = tls.write_tls(&mut stream);
                return Err(TlsEnded::Reset);
            }
        }
    }
}
