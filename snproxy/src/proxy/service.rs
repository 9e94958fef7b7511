//! What a proxy serves, as whoever builds one says it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

use super::tls::{ClientTls, UpstreamTls};

pub use crate::conf::{Policy, SendProxy};

/// Addresses to listen on, and the upstreams that their connections go to.
///
/// Every upstream serves every address. Addresses that lead elsewhere are a service of their own.
#[derive(Clone, Debug)]
pub struct Service {
    pub(super) name: String,
    pub(super) listen: Vec<String>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) discovered: Option<String>,
    pub(super) send_proxy: Option<SendProxy>,
    pub(super) client_tls: Option<ClientTls>,
    pub(super) upstream_tls: Option<UpstreamTls>,
    pub(super) keys: Vec<(String, String)>,
}

impl Service {
    /// The name stands in the log and in [`Stats`](super::Stats); no two services of a proxy have the same.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            listen: Vec::new(),
            upstreams: Vec::new(),
            discovered: None,
            send_proxy: None,
            client_tls: None,
            upstream_tls: None,
            keys: Vec::new(),
        }
    }

    /// Listens there too: `127.0.0.1:8080`, `[::1]:8080`, `:8080` (every address of this host), a range of ports,
    /// `:5000-5999`, or port 0, for which a free one is found.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// One more upstream: an address or a name, and a port. A name stands for all of its addresses, as they are at each time.
    #[must_use]
    pub fn upstream(mut self, upstream: impl Into<Upstream>) -> Self {
        self.upstreams.push(upstream.into());
        self
    }

    /// The upstreams are those that [etcd](super::Builder::etcd) has under this key, as `<key>/<ip:port>`. Not together with
    /// [`upstream`](Self::upstream).
    #[must_use]
    pub fn discovered(mut self, key: impl Into<String>) -> Self {
        self.discovered = Some(key.into());
        self
    }

    /// Tells upstreams who the client is, by a PROXY header; but those that [say something else](Upstream::send_proxy).
    #[must_use]
    pub fn send_proxy(mut self, version: SendProxy) -> Self {
        self.send_proxy = Some(version);
        self
    }

    /// Which upstream a connection goes to.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        self.set("BALANCE", policy.to_string())
    }

    /// Connections at once on each port; further ones are reset, unless they may [wait](Self::set) (`QUEUE`).
    #[must_use]
    pub fn max_conn(self, connections: u32) -> Self {
        self.set("PORTMAXCONN", connections.to_string())
    }

    /// Clients speak TLS.
    #[must_use]
    pub fn client_tls(mut self, tls: ClientTls) -> Self {
        self.client_tls = Some(tls);
        self
    }

    /// Upstreams are spoken to in TLS.
    #[must_use]
    pub fn upstream_tls(mut self, tls: UpstreamTls) -> Self {
        self.upstream_tls = Some(tls);
        self
    }

    /// A key of a port, as README.md lists them, for this service alone: `service.set("IDLETIMEOUT", "5m")`.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.keys.push((key.into(), value.into()));
        self
    }
}

/// Where connections go.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub(super) address: String,
    pub(super) weight: Option<u32>,
    pub(super) max_conn: Option<u32>,
    pub(super) send_proxy: Option<SendProxy>,
}

impl Upstream {
    /// `10.0.0.7:80`, `[::1]:80` or `name:80`.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            weight: None,
            max_conn: None,
            send_proxy: None,
        }
    }

    /// Its share beside the others, 1 by default; 0 takes nothing new.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Connections at once.
    #[must_use]
    pub fn max_conn(mut self, connections: u32) -> Self {
        self.max_conn = Some(connections);
        self
    }

    /// Tells it who the client is, by a PROXY header.
    #[must_use]
    pub fn send_proxy(mut self, version: SendProxy) -> Self {
        self.send_proxy = Some(version);
        self
    }
}

impl From<&str> for Upstream {
    fn from(address: &str) -> Self {
        Self::new(address)
    }
}

impl From<String> for Upstream {
    fn from(address: String) -> Self {
        Self::new(address)
    }
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.to_string())
    }
}

/// An address to listen on, with its ports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Listen {
    pub(super) ip: IpAddr,
    /// 0 alone: a free one.
    pub(super) ports: RangeInclusive<u16>,
}

/// What [`parse`] takes.
pub(super) const EXPECTED: &str = "127.0.0.1:8080, [::1]:8080, :8080 or :5000-5999";

/// `None`: nothing of the kind.
pub(super) fn parse(text: &str) -> Option<Listen> {
    let (ip, ports) = text.rsplit_once(':')?;
    let ip = if ip.is_empty() {
        every_address()
    } else if let Some(inner) = ip.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
        inner.to_canonical()
    } else {
        ip.parse::<Ipv4Addr>().ok()?.into()
    };
    let port = |text: &str| {
        let is_plain = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_plain)
    };
    let ports = match ports.split_once('-') {
        Some((first, last)) => port(first)?..=port(last)?,
        None => port(ports)?..=port(ports)?,
    };
    let is_range = ports.start() < ports.end() && *ports.start() > 0;
    (is_range || ports.start() == ports.end()).then_some(Listen { ip, ports })
}

/// All addresses of this host: of both families where there are two.
pub(crate) fn every_address() -> IpAddr {
    let both = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match TcpListener::bind((both, 0)) {
        Ok(_) => both,
        Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

impl Listen {
    /// Its first address.
    pub(super) fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, *self.ports.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        let every = every_address();
        let four = |d| IpAddr::from([127, 0, 0, d]);
        for (text, ip, ports) in [
            (":80", every, 80..=80),
            (":0", every, 0..=0),
            (":5000-5999", every, 5000..=5999),
            ("127.0.0.1:5000-5000", four(1), 5000..=5000),
            ("127.0.0.1:65535", four(1), 65535..=65535),
            ("[::ffff:127.0.0.1]:80", four(1), 80..=80),
            ("[::1]:1-2", Ipv6Addr::LOCALHOST.into(), 1..=2),
            ("0.0.0.0:1", Ipv4Addr::UNSPECIFIED.into(), 1..=1),
        ] {
            assert_eq!(parse(text), Some(Listen { ip, ports }), "{text}");
        }
        for text in [
            "",
            ":",
            "80",
            "localhost:80",
            "::1:80",
            "[::1]",
            "[127.0.0.1]:1",
            "[::1:1",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:65536",
            ":+80",
            ":80-",
            ":-80",
            ":90-80",
            ":0-80",
            ":1-2-3",
            "127.0.0.1:80 ",
            "[fe80::1%eth0]:80",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
