//! `snproxy register`: keeps the key of a node in etcd for a program that cannot do it itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use crate::conf::{Etcd, LogFormat, LogLevel, parse_duration};
use crate::daemon::etcd_tls;
use crate::discovery::certs::Store;
use crate::net::etcd::{Client, EtcdError, Lease};
use crate::sys::signal as signals;

use super::ambassador::needs_no_certs;
use super::output::err;
use super::{BAD_CONFIGURATION, BAD_USAGE, DONE, FAILED, log, show};

/// Time between two looks at the node, and at how long its lease has.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait for the node to take a connection.
const CHECK_LIMIT: Duration = Duration::from_secs(1);
/// Failed checks in a row after which the key goes: a node may be busy for a moment.
const MAX_FAILED: u32 = 2;
/// Shortest lease that outlives a member that says nothing, and the next look.
const MIN_TTL: Duration = Duration::from_secs(5);
/// How often certificates are read again.
const RENEWAL: Duration = Duration::from_mins(1);
/// Longest wait for etcd to forget the node at the end.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// What is registered, and where.
#[derive(Args, Debug)]
pub(super) struct Node {
    /// The service that the node is of, such as /srv/redis: its key is this, `/` and the address
    #[arg(long, value_name = "KEY")]
    srv: String,
    /// Where the node takes connections: `10.0.0.5:6379`, `[fd00::5]:6379`
    #[arg(long, value_name = "ADDRESS", value_parser = addr)]
    addr: SocketAddr,
    /// A member of etcd; may be given several times, or as a comma list
    #[arg(long, value_name = "URL", required = true)]
    dsc: Vec<String>,
    /// For `https`: a folder with ca.pem, and cert.pem and key.pem where etcd asks for them, or "ca=FILE cert=FILE key=FILE"
    #[arg(long, value_name = "CERTS")]
    dsc_certs: Option<String>,
    /// The user that etcd knows
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file whose first line is the user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<String>,
    /// For how long the key stays when this process is gone
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = ttl)]
    ttl: Duration,
    /// When the key is there: while the address takes connections, or always
    #[arg(long, value_name = "HOW", default_value = "tcp")]
    check: Check,
    /// The value of the key; only other programs read it
    #[arg(long, value_name = "TEXT", default_value = "")]
    value: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Check {
    /// A connection is made, and closed, once a second.
    Tcp,
    None,
}

fn addr(text: &str) -> Result<SocketAddr, String> {
    let addr = text.parse().ok();
    let addr = addr.filter(|addr: &SocketAddr| addr.port() > 0 && !addr.ip().is_unspecified());
    let expected = "expected an IP address and a port where others reach the node: 10.0.0.5:6379, [fd00::5]:6379";
    addr.ok_or_else(|| expected.to_owned())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_duration(text)?;
    if ttl < MIN_TTL {
        return Err(format!("expected at least {MIN_TTL:?}"));
    }
    Ok(ttl)
}

/// Runs until TERM or INT, and takes the key away then.
pub(super) fn register(node: &Node) -> anyhow::Result<u8> {
    let mut etcd = node.dsc.join(",");
    match &node.dsc_certs {
        Some(certs) => etcd.extend([" ", certs]),
        None => {
            if let Err(why) = needs_no_certs(&node.dsc) {
                err!("snproxy: {why}");
                return Ok(BAD_USAGE);
            }
        }
    }
    if let Some(user) = &node.user {
        etcd.extend([" user=", user]);
    }
    if let Some(path) = &node.password_file {
        etcd.extend([" password-file=", path]);
    }
    let etcd = match Etcd::parse(&etcd) {
        Ok((etcd, warnings)) => {
            for why in warnings {
                err!("snproxy: --dsc: warning: {why}");
            }
            etcd
        }
        Err(why) => {
            err!("snproxy: --dsc: {why}");
            return Ok(BAD_USAGE);
        }
    };
    let srv = node.srv.trim_end_matches('/');
    if srv.is_empty() {
        err!("snproxy: --srv: expected the key of a service, such as /srv/redis");
        return Ok(BAD_USAGE);
    }
    let certs = Arc::new(Store::default());
    let tls = match etcd_tls(&etcd, &certs, SystemTime::now()) {
        Ok(tls) => tls,
        Err(found) => {
            show(&[found]);
            return Ok(BAD_CONFIGURATION);
        }
    };
    let log = log::start(LogLevel::Info, LogFormat::Text, None)?;
    let _written = log.thread;
    let registration = Registration {
        key: format!("{srv}/{}", node.addr),
        value: node.value.clone().into_bytes(),
        addr: node.addr,
        ttl: node.ttl,
        check: node.check,
        client: Client::new(&etcd, tls),
        etcd,
        certs,
        renewed: Instant::now(),
        lease: None,
        is_registered: false,
        failed: 0,
        is_lost: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(registration.run())
}

struct Registration {
    key: String,
    value: Vec<u8>,
    addr: SocketAddr,
    ttl: Duration,
    check: Check,
    client: Client,
    etcd: Arc<Etcd>,
    certs: Arc<Store>,
    /// When the certificates were last read.
    renewed: Instant,
    /// With the key under it; `None`: the key is not there, as far as it is ours.
    lease: Option<(Lease, Instant)>,
    /// Whether etcd has said that the key is there, under this lease.
    is_registered: bool,
    /// Checks in a row that did not pass.
    failed: u32,
    /// Whether etcd did not answer last.
    is_lost: bool,
}

impl Registration {
    async fn run(mut self) -> anyhow::Result<u8> {
        let mut terminate = signal(SignalKind::terminate()).context("wait for TERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("wait for INT")?;
        signals::start_is_over();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            loop {
                looks.tick().await;
                self.look().await;
            }
        };
        tokio::select! {
            () = work => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(self.leave().await)
    }

    /// Reads the certificates anew now and then: those in use end some day.
    async fn renew_certs(&mut self) {
        let Some(source) = self.etcd.certs.clone() else {
            return;
        };
        if self.renewed.elapsed() < RENEWAL {
            return;
        }
        self.renewed = Instant::now();
        let (etcd, certs) = (Arc::clone(&self.etcd), Arc::clone(&self.certs));
        let read = spawn_blocking(move || {
            certs.renew(&[source]);
            etcd_tls(&etcd, &certs, SystemTime::now())
        });
        match read.await {
            Ok(Ok(tls)) => self.client.set_tls(tls),
            Ok(Err(found)) => warn!("{found}: the last good certificates stay in use"),
            Err(error) => warn!(%error, "read the certificates"),
        }
    }

    /// Brings etcd to what the node is like.
    async fn look(&mut self) {
        self.renew_certs().await;
        let done = if self.takes_connections().await {
            self.keep().await
        } else {
            self.take_away().await
        };
        match done {
            Ok(()) if self.is_lost => {
                info!(key = %self.key, "etcd answers again");
                self.is_lost = false;
            }
            Ok(()) => {}
            Err(error) if self.is_lost => debug!(error = %error.why(), "etcd"),
            Err(error) => {
                let what = match error {
                    EtcdError::Refused { .. } => "etcd refuses",
                    EtcdError::Password { .. } => "etcd is not asked",
                    _ => "etcd does not answer",
                };
                warn!(key = %self.key, error = %error.why(), "{what}: tried again and again");
                self.is_lost = true;
            }
        }
    }

    async fn takes_connections(&mut self) -> bool {
        if self.check == Check::None {
            return true;
        }
        let dialled = timeout(CHECK_LIMIT, TcpStream::connect(self.addr)).await;
        let why = match dialled {
            Ok(Ok(_)) => {
                if self.failed >= MAX_FAILED {
                    info!(addr = %self.addr, "the node takes connections again");
                }
                self.failed = 0;
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CHECK_LIMIT:?}"),
        };
        self.failed = self.failed.saturating_add(1);
        // A key that is not there yet does not come for a node that does not.
        let is_down = self.failed >= MAX_FAILED || self.lease.is_none();
        if self.failed == MAX_FAILED {
            warn!(addr = %self.addr, %why, "the node takes no connections");
        }
        !is_down
    }

    /// Sees to it that the key is there for another while.
    async fn keep(&mut self) -> Result<(), EtcdError> {
        if let Some((lease, since)) = self.lease {
            if since.elapsed() < lease.ttl / 3 {
                return Ok(());
            }
            let asked = Instant::now();
            let kept = match self.client.keep_alive(lease.id).await {
                Ok(ttl) => Some((Lease { ttl, ..lease }, asked)),
                Err(EtcdError::NoLease { .. }) => {
                    warn!(key = %self.key, "the lease is over: a new one is asked for");
                    self.lease = None;
                    None
                }
                Err(error) => return Err(error),
            };
            // Somebody may have removed the key, or have it under a lease of his own. Without an answer to this the next
            // look is due at once: the key may be gone.
            let found = self.client.get(&self.key).await?;
            self.lease = kept;
            match found {
                Some(found) if found.lease == lease.id => {
                    self.is_registered = true;
                    return Ok(());
                }
                _ if self.lease.is_none() || !self.is_registered => {}
                Some(_) => warn!(key = %self.key, "another process registers the same node"),
                None => warn!(key = %self.key, "somebody removed the key: it is set again"),
            }
        }
        let (lease, since) = if let Some(lease) = self.lease {
            lease
        } else {
            self.is_registered = false;
            (self.client.grant(self.ttl).await?, Instant::now())
        };
        // From here on it is ours, whether or not the answer comes.
        self.lease = Some((lease, since));
        let put = self.client.put(&self.key, &self.value, Some(lease.id));
        match put.await {
            Ok(revision) => {
                let ttl = lease.ttl;
                self.is_registered = true;
                info!(key = %self.key, ?ttl, revision, "registered");
                Ok(())
            }
            Err(error) => {
                // Looked at again with the next one, at once.
                self.lease = Some((lease, since.checked_sub(lease.ttl).unwrap_or(since)));
                Err(error)
            }
        }
    }

    async fn take_away(&mut self) -> Result<(), EtcdError> {
        let Some((lease, _)) = self.lease else {
            return Ok(());
        };
        self.client.revoke(lease.id).await?;
        self.lease = None;
        if std::mem::take(&mut self.is_registered) {
            info!(key = %self.key, "no longer registered");
        }
        Ok(())
    }

    async fn leave(mut self) -> u8 {
        let Some((lease, _)) = self.lease else {
            return DONE;
        };
        match timeout(LEAVE_LIMIT, self.take_away()).await {
            Ok(Ok(())) => return DONE,
            Ok(Err(error)) => warn!(error = %error.why(), "etcd"),
            Err(_) => {}
        }
        warn!(key = %self.key, within = ?lease.ttl, "not taken away: it goes with its lease");
        FAILED
    }
}
