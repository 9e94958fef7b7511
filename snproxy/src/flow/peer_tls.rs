//! TLS between proxies: in which way a host is spoken to, and what is said of those who cannot be.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;
use tracing::warn;

use crate::conf::Conf;
use crate::net::dial::{DialError, Options};
use crate::net::tls::{self, ClientConfig, HandshakeError, PeerConfigs};
use crate::route::peers::Peer;
use crate::sys::stream::Stream;

use super::Shared;
use super::call::{self, Unsettled};
use super::seldom::Seldom;

/// How long a host is called in plain that did not speak TLS, before it is asked to again.
const PLAIN_FOR: Duration = Duration::from_secs(30);

/// Hosts that do not speak TLS, where that is optional, and when what was said of others.
#[derive(Debug, Default)]
pub(super) struct PeerSpeech {
    plain_until: Mutex<HashMap<SocketAddr, Instant>>,
    untrusted: Seldom,
    refused: Seldom,
    failed: Seldom,
}

/// How the proxy of a host is spoken to.
#[derive(Clone, Debug)]
pub(super) enum Speech {
    Plain,
    /// As this name it is asked for; `None`: there are no certificates to do that with.
    Tls(Option<(Arc<ClientConfig>, ServerName<'static>)>),
}

/// Why a host could not be spoken to in TLS.
#[derive(Debug)]
pub(super) enum NotGreeted {
    /// It left, or said something else: it may not speak it.
    NotTls(io::Error),
    /// One of the two does not believe the other, or there is nothing to show.
    Untrusted(io::Error),
    Silent,
}

/// Why there is no connection to a host's proxy over which it could be asked.
#[derive(Debug)]
pub(super) enum NotOpened {
    NotConnected(DialError),
    NotGreeted(NotGreeted),
}

/// A connection to a host's proxy over which it can be asked.
pub(super) struct Opened {
    pub(super) connection: Unsettled,
    pub(super) plain: Plain,
}

/// What it means that a connection is not in TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Plain {
    /// It is, or does not have to be.
    No,
    /// The host did not speak TLS some time ago.
    Remembered,
    /// The host did not speak TLS just now.
    Found,
}

impl PeerSpeech {
    /// Takes note of a host that answered in plain.
    pub(super) fn note_plain(&self, host: SocketAddr) {
        let now = Instant::now();
        let mut hosts = self.hosts();
        hosts.retain(|_, until| *until > now);
        hosts.insert(host, now + PLAIN_FOR);
    }

    /// Takes note of a host that did not answer in plain: next time it is asked for TLS.
    pub(super) fn forget_plain(&self, host: SocketAddr) {
        self.hosts().remove(&host);
    }

    fn is_plain(&self, host: SocketAddr) -> bool {
        self.hosts()
            .get(&host)
            .is_some_and(|until| *until > Instant::now())
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.plain_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Says now and then that a host that was called does not count.
    pub(super) fn say_untrusted(&self, peer: &Peer, why: &NotGreeted) {
        if let Some(failed) = self.untrusted.count(Instant::now()) {
            warn!(host = %peer.name, addr = %peer.addr(), failed, "TLS with another host's proxy failed: {why}");
        }
    }

    /// Says now and then that a proxy was turned away because it did not speak TLS.
    pub(super) fn say_refused(&self, source: IpAddr) {
        if let Some(refused) = self.refused.count(Instant::now()) {
            warn!(
                %source, refused,
                "refused on PORT: no TLS (set PEERTLS there, or `optional` here until that is done)"
            );
        }
    }

    /// Says now and then that the handshake of a proxy that called failed.
    pub(super) fn say_failed(&self, source: IpAddr, why: &HandshakeError) {
        if let Some(failed) = self.failed.count(Instant::now()) {
            warn!(%source, failed, "refused on PORT: {why}");
        }
    }
}

impl Shared {
    /// What proxies show each other.
    pub(super) fn peer_configs(&self, conf: &Conf) -> Option<Arc<PeerConfigs>> {
        let tls = conf.peer_tls.as_ref()?;
        self.tls.load().peers.get(tls).cloned()
    }

    /// How a host is spoken to first.
    pub(super) fn speech(&self, conf: &Conf, peer: &Peer) -> Speech {
        match &conf.peer_tls {
            None => Speech::Plain,
            Some(tls) if tls.optional && self.peer_speech.is_plain(peer.addr()) => Speech::Plain,
            Some(_) => self.secure_speech(conf, peer),
        }
    }

    /// TLS with a host.
    pub(super) fn secure_speech(&self, conf: &Conf, peer: &Peer) -> Speech {
        let is_named = conf.peer_tls.as_ref().is_some_and(|tls| tls.verify_host);
        let by_address = || ServerName::from(peer.addr().ip());
        let name = match ServerName::try_from(&*peer.name) {
            Ok(name) if is_named => name.to_owned(),
            _ => by_address(),
        };
        let configs = self.peer_configs(conf);
        Speech::Tls(configs.map(|configs| (Arc::clone(&configs.client), name)))
    }
}

impl Speech {
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }
}

/// Whether proxies that do not speak TLS are called in plain.
pub(super) fn may_be_plain(conf: &Conf) -> bool {
    conf.peer_tls.as_ref().is_none_or(|tls| tls.optional)
}

/// Makes the connection speak so.
pub(super) async fn greet(
    stream: &mut Stream,
    speech: &Speech,
    limit: Duration,
) -> Result<(), NotGreeted> {
    let Speech::Tls(tls) = speech else {
        return Ok(());
    };
    let Some((config, name)) = tls.clone() else {
        let error = io::Error::other("no certificates");
        return Err(NotGreeted::Untrusted(error));
    };
    match tls::connect(stream, &config, name, limit).await {
        Ok(()) => Ok(()),
        Err(HandshakeError::Timeout { .. }) => Err(NotGreeted::Silent),
        Err(HandshakeError::Refused(error)) if is_distrust(&error) => {
            Err(NotGreeted::Untrusted(error))
        }
        Err(HandshakeError::Refused(error)) => Err(NotGreeted::NotTls(error)),
        Err(error) => Err(NotGreeted::Untrusted(io::Error::other(error))),
    }
}

/// Whether TLS itself said no, one way or the other. That the other end does not believe us shows only when it is
/// waited for its answer.
pub(super) fn is_distrust(error: &io::Error) -> bool {
    let said = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    !matches!(
        said,
        None | Some(rustls::Error::InvalidMessage(_) | rustls::Error::DecryptError)
    )
}

/// Connects to a host's proxy in whichever way it speaks.
pub(super) async fn open(
    shared: &Shared,
    peer: &Peer,
    options: Options,
    limits: Limits,
) -> Result<Opened, NotOpened> {
    let table = shared.table.load_full();
    let mut speech = shared.speech(&table.conf, peer);
    let mut plain = match (&speech, &table.conf.peer_tls) {
        (Speech::Plain, Some(_)) => Plain::Remembered,
        _ => Plain::No,
    };
    loop {
        let connected = call::connect(peer, options, limits.connect).await;
        let mut connection = connected.map_err(NotOpened::NotConnected)?;
        match greet(connection.stream_mut(), &speech, limits.greet).await {
            Ok(()) => return Ok(Opened { connection, plain }),
            Err(NotGreeted::NotTls(_)) if may_be_plain(&table.conf) => {
                speech = Speech::Plain;
                plain = Plain::Found;
            }
            Err(error) => {
                shared.peer_speech.say_untrusted(peer, &error);
                return Err(NotOpened::NotGreeted(error));
            }
        }
    }
}

/// How long the two parts of it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connect: Duration,
    pub(super) greet: Duration,
}

impl NotOpened {
    /// What this says of the host: that it lives, that it does not, or nothing.
    pub(super) fn upstream_lives(&self) -> Option<bool> {
        match self {
            Self::NotConnected(error) => error.upstream_lives(),
            // Nothing can be had of it.
            Self::NotGreeted(_) => Some(false),
        }
    }
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(error) => error.fmt(f),
            Self::NotGreeted(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for NotGreeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls(error) => write!(f, "it may not speak TLS ({error})"),
            Self::Untrusted(error) => f.write_str(&tls::message(error)),
            Self::Silent => f.write_str("it said nothing in time"),
        }
    }
}
