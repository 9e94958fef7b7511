//! Connections to the members, kept from one call to the next.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::conf::Endpoint;
use crate::net::dns;
use crate::net::tls::ClientConfig;

/// Longest wait for one address of a member.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Longest wait for name servers while the last addresses are known.
const NAME_LIMIT: Duration = Duration::from_millis(500);

/// How long the other family of addresses may take once one is known.
const GRACE: Duration = Duration::from_millis(300);

/// Silence before the kernel asks whether the other side is still there, and between its questions.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Where requests go.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// One member of etcd.
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    /// The connection that the last call left.
    idle: Mutex<Option<Sender>>,
    /// When it last answered.
    answered: Mutex<Option<Instant>>,
    name: Arc<MemberName>,
}

impl Member {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            idle: Mutex::new(None),
            answered: Mutex::new(None),
            name: Arc::default(),
        }
    }

    /// A connection that was there already.
    pub(super) fn take_idle(&self) -> Option<Sender> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        { idle }.take().filter(Sender::is_ready)
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, sender: Sender) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    /// Takes note of an answer.
    pub(super) fn has_answered(&self) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        *answered = Some(Instant::now());
    }

    /// When it last answered; `None`: it never did.
    pub(super) fn answered(&self) -> Option<Instant> {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of its own.
    pub(super) async fn connect(&self, tls: Option<Arc<ClientConfig>>) -> io::Result<Sender> {
        let stream = self.dial().await?;
        if !self.endpoint.is_https {
            return send_over(stream).await;
        }
        let tls = tls.ok_or_else(|| io::Error::other("https, and no certificates are known"))?;
        let name =
            ServerName::try_from(self.endpoint.host.to_string()).map_err(io::Error::other)?;
        send_over(
            TlsConnector::from(tls.config())
                .connect(name, stream)
                .await?,
        )
        .await
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for ip in self.addresses().await? {
            let addr = SocketAddr::new(ip, self.endpoint.port);
            match timeout(CONNECT_LIMIT, TcpStream::connect(addr)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    let keepalive = TcpKeepalive::new()
                        .with_time(KEEPALIVE)
                        .with_interval(KEEPALIVE);
                    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failed)
    }

    async fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let host = &*self.endpoint.host;
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let (name, asked) = (Arc::clone(&self.name), host.to_owned());
        // A task of its own: an answer that comes after this call has ended serves the next one.
        let look_up = tokio::spawn(async move { name.look_up(&asked).await });
        let last = self.name.last();
        if last.is_empty() {
            return look_up.await.map_err(io::Error::other)?;
        }
        // No name server may answer, while etcd does.
        Ok(match timeout(NAME_LIMIT, look_up).await {
            Ok(Ok(Ok(addrs))) => addrs,
            _ => last,
        })
    }
}

/// The name of a member, and the addresses that it last had.
#[derive(Default)]
struct MemberName {
    last: Mutex<Vec<IpAddr>>,
    /// Held while name servers are asked: calls that end early must not leave many look-ups behind.
    asking: tokio::sync::Mutex<()>,
}

impl MemberName {
    fn last(&self) -> Vec<IpAddr> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let Ok(_asking) = self.asking.try_lock() else {
            // Another call has asked already.
            drop(self.asking.lock().await);
            let last = self.last();
            let is_known = !last.is_empty();
            return is_known
                .then_some(last)
                .ok_or(io::ErrorKind::TimedOut.into());
        };
        let addrs = dns::addresses(name, GRACE).await?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone_from(&addrs);
        Ok(addrs)
    }
}

async fn send_over<T>(stream: T) -> io::Result<Sender>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends with the sender; what ends it early is seen by who waits for the answer.
    tokio::spawn(connection);
    Ok(sender)
}
