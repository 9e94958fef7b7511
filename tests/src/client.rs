use crate::{Conn, Namespace, net::Addresses};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    process::Command,
    time::Duration,
};

/// Time for a connect that should succeed at once: more than one SYN retransmit (1 s, 3 s) on a busy machine.
const CONNECT: Duration = Duration::from_secs(10);

/// A machine that is no member of the cluster and opens connections to it.
pub struct Client {
    namespace: Namespace,
    at: Addresses,
}

/// What came of a connect.
#[derive(Debug)]
pub enum Attempt {
    Connected(Conn),
    /// RST in answer to the SYN.
    Refused,
    /// No answer within the limit.
    TimedOut,
    Failed(io::Error),
}

impl Client {
    pub(crate) fn new(namespace: Namespace, at: Addresses) -> Self {
        Self { namespace, at }
    }

    pub fn v4(&self) -> IpAddr {
        self.at.v4.into()
    }

    pub fn v6(&self) -> IpAddr {
        self.at.v6.into()
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Opens a connection that must succeed.
    #[track_caller]
    pub fn open(&self, to: impl Into<SocketAddr>) -> Conn {
        let to = to.into();
        match self.attempt(to) {
            Attempt::Connected(conn) => conn,
            other => panic!("connect to {to}: {other:?}"),
        }
    }

    pub fn attempt(&self, to: impl Into<SocketAddr>) -> Attempt {
        self.attempt_within(to, CONNECT)
    }

    pub fn attempt_within(&self, to: impl Into<SocketAddr>, limit: Duration) -> Attempt {
        let to = to.into();
        self.namespace
            .run(|| Attempt::made(Conn::connect(to, limit)))
    }

    /// Connects from an address and port of choice; port 0 lets the kernel choose.
    pub fn attempt_from(&self, from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> Attempt {
        let (from, to) = (from.into(), to.into());
        self.namespace
            .run(|| Attempt::made(Conn::connect_from(from, to, CONNECT)))
    }

    /// Whether the kernel over there answers the SYN with RST.
    pub fn is_refused(&self, to: impl Into<SocketAddr>) -> bool {
        matches!(self.attempt(to), Attempt::Refused)
    }

    /// Runs `body` here: for many connections, each by [`Conn::connect`].
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(body)
    }

    /// Runs curl here and gives the body it printed. It knows no names and no proxies of the environment.
    #[track_caller]
    pub fn curl(&self, arguments: &[&str]) -> String {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--noproxy",
            "*",
        ])
        .args(arguments);
        let output = self.namespace.output(&mut curl);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{curl:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Gives this machine one more address, such as `10.77.0.200/24`.
    pub fn add_address(&self, address: &str) {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.namespace
            .ip(&format!("address add {address} dev eth0 {nodad}"));
    }
}

impl Attempt {
    pub fn made(connected: io::Result<Conn>) -> Self {
        match connected {
            Ok(conn) => Self::Connected(conn),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Self::Refused,
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
                _ => Self::Failed(error),
            },
        }
    }

    pub fn connected(self) -> Option<Conn> {
        match self {
            Self::Connected(conn) => Some(conn),
            _ => None,
        }
    }
}
