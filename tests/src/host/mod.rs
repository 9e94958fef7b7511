//! One machine of the cluster.

mod files;
mod kernel;
mod launch;
mod proxy;

use crate::{
    Attempt, Client, Conn, Ended, Namespace, PROXY_PORT, Pod, Process, net::Addresses,
    process::locked,
};
use launch::Launch;

pub use launch::snproxy_binary;
use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(15);

/// One machine of the cluster: its namespace, its configuration, its pods, and the snproxy on it.
///
/// Methods take `&self`, so that threads of a scenario share it; those that configure give it back for chaining.
pub struct Host {
    name: String,
    at: Addresses,
    // Fields drop in this order: the proxy, the pods, then the namespace.
    snproxy: Mutex<Option<Arc<Process>>>,
    pods: Mutex<Vec<Pod>>,
    keys: Mutex<BTreeMap<String, String>>,
    launch: Mutex<Launch>,
    folder: TempDir,
    namespace: Namespace,
    /// Who opens connections to it.
    client: Arc<Client>,
}

impl Host {
    pub(crate) fn new(
        name: &str,
        namespace: Namespace,
        at: Addresses,
        all: &[(&str, Addresses)],
        client: Arc<Client>,
    ) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("snproxy-host-")
            .tempdir()
            .expect("folder of a host");
        // For scenarios that run snproxy as an ordinary user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .expect("mode of the folder");
        let admin = format!("unix:{}", folder.path().join("admin.sock").display());
        let keys = [("HOST", at.v4.to_string()), ("ADMIN", admin)]
            .map(|(key, value)| (key.to_owned(), value));
        let host = Self {
            name: name.to_owned(),
            at,
            snproxy: Mutex::default(),
            pods: Mutex::default(),
            keys: Mutex::new(keys.into()),
            launch: Mutex::default(),
            folder,
            namespace,
            client,
        };
        // The own line first, as the Simplenetes daemon writes it.
        let others = all
            .iter()
            .filter(|(other, _)| *other != name)
            .map(|(_, at)| at.v4);
        let lines = [at.v4]
            .into_iter()
            .chain(others)
            .map(|v4| format!("{v4}:{PROXY_PORT}\n"));
        host.hosts(&lines.collect::<String>())
            .mappings("")
            .write_keys();
        host
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.at
    }

    pub fn v4(&self) -> IpAddr {
        self.at.v4.into()
    }

    pub fn v6(&self) -> IpAddr {
        self.at.v6.into()
    }

    /// A port of this host over IPv4.
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.at.v4, port).into()
    }

    /// A port of this host over IPv6.
    pub fn port6(&self, port: u16) -> SocketAddr {
        (self.at.v6, port).into()
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Starts a pod on a host port, on every address of this host.
    #[track_caller]
    pub fn pod(&self, port: u16, pod: Pod) -> Pod {
        self.pod_at((Ipv6Addr::UNSPECIFIED, port), pod)
    }

    /// Starts a pod on one address of this host.
    #[track_caller]
    pub fn pod_at(&self, at: impl Into<SocketAddr>, pod: Pod) -> Pod {
        pod.start(&self.namespace, at.into());
        locked(&self.pods).push(pod.clone());
        pod
    }

    /// Opens a connection to a port of this host from the net's first client.
    #[track_caller]
    pub fn open(&self, port: u16) -> Conn {
        self.client.open(self.port(port))
    }

    /// What comes of a connect to a port of this host from the net's first client.
    pub fn attempt(&self, port: u16) -> Attempt {
        self.client.attempt(self.port(port))
    }

    /// Whether the kernel refuses the net's first client at this port.
    pub fn is_refused(&self, port: u16) -> bool {
        self.client.is_refused(self.port(port))
    }

    /// Whether the net's first client is let in at this port and then reset, without a byte.
    pub fn is_reset(&self, port: u16) -> bool {
        match self.attempt(port) {
            Attempt::Connected(conn) => conn.rest(PATIENCE) == (Vec::new(), Ended::Reset),
            // So soon that connect() was still waiting for its thread.
            Attempt::Failed(error) => error.kind() == ErrorKind::ConnectionReset,
            _ => false,
        }
    }

    /// Whether the net's first client is let in at this port, and a [`Pod::answering`] there greets it as `name`.
    pub fn is_greeted(&self, port: u16, name: &str) -> bool {
        let Attempt::Connected(conn) = self.attempt(port) else {
            return false;
        };
        let mut said = vec![0; name.len()];
        conn.stream().read_exact(&mut said).is_ok() && said == name.as_bytes()
    }

    /// Opens a connection from this host itself.
    #[track_caller]
    pub fn open_locally(&self, to: impl Into<SocketAddr>) -> Conn {
        let to = to.into();
        let made = self
            .namespace
            .run(|| Conn::connect(to, Duration::from_secs(10)));
        made.unwrap_or_else(|error| panic!("connect to {to} on {}: {error}", self.name))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Their threads hold the pods as well: without a stop they would serve on.
        for pod in &*locked(&self.pods) {
            pod.stop();
        }
    }
}
