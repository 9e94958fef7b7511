//! The hosts of the cluster as this one sees them: which line is this host, who else there is, who is a peer.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use crate::addr::PortSet;

use super::{Conf, HostAddr};

impl HostAddr {
    /// The address at which it is dialled; `None` for a name that does not resolve now.
    pub fn ip(&self) -> Option<IpAddr> {
        self.addrs.first().copied()
    }

    /// Where its proxy is dialled.
    pub fn addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip()?, self.port))
    }

    /// Whether it is written as a name.
    pub fn is_name(&self) -> bool {
        self.name.parse::<IpAddr>().is_err()
    }
}

impl Conf {
    /// Hosts that may serve what this one does not: all with an address but this one, each address once.
    pub fn other_hosts(&self) -> impl Iterator<Item = &HostAddr> {
        self.others.iter().filter_map(|at| self.hosts.get(*at))
    }

    /// Address on which a port is served.
    pub fn served_at(&self, port: u16) -> IpAddr {
        let apart = self.of_port(port).bind.filter(|_| port != self.port);
        apart.unwrap_or(self.host)
    }

    /// Whether this proxy would serve a port at an address that it dials: a connection there may come back.
    pub fn comes_back(&self, ip: IpAddr, port: u16) -> bool {
        let is_own = || self.own.binary_search(&ip).is_ok();
        match self.served_at(port) {
            IpAddr::V4(host) if host.is_unspecified() => ip.is_ipv4() && is_own(),
            // One socket for both families.
            IpAddr::V6(host) if host.is_unspecified() => is_own(),
            host => host == ip,
        }
    }

    /// Ports of this host on which a listener may well be one of our pods or targets.
    pub fn pod_ports(&self) -> PortSet {
        let mappings = self.mappings.iter();
        let mut ports: PortSet = mappings.map(|mapping| mapping.host_port.get()).collect();
        for target in self.apps.iter().flat_map(|app| &app.targets) {
            let mut addrs = target.addrs.iter();
            if addrs.any(|ip| self.comes_back(*ip, target.port)) {
                ports.insert(target.port);
            }
        }
        ports
    }

    /// Whether PORT is for this caller. Addresses of this host that no file names are the caller's business.
    pub fn allows_peer(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let peers = &self.peers;
        peers.any
            || ip.is_loopback()
            || (peers.hosts && self.host_ips.binary_search(&ip).is_ok())
            || peers.networks.iter().any(|network| network.contains(&ip))
    }

    /// By which name and where the other hosts reach this one, as the cluster directory tells them; `None`: they do not, or
    /// it cannot be told from the files.
    pub fn published_as(&self) -> Option<(Box<str>, SocketAddr)> {
        let this = self.this_host.and_then(|at| self.hosts.get(at));
        let this = this.filter(|host| host.is_local && host.port == self.port);
        let listed = this.and_then(|host| Some((host.name.clone(), host.ip()?)));
        let (name, ip) = listed.unwrap_or_else(|| (self.host.to_string().into(), self.host));
        let is_reached = self.port > 0 && !ip.is_unspecified() && !ip.is_loopback();
        is_reached.then(|| (name, SocketAddr::new(ip, self.port)))
    }

    /// Whether connections to a port of this host are clients' rather than other proxies'.
    pub fn is_for_clients(&self, port: u16) -> bool {
        port != self.port && self.cluster_ports.contains(port)
    }

    /// Hosts of the files that are no others, for their port is one of this host's own cluster ports.
    pub(super) fn own_for_clients(&self) -> impl Iterator<Item = &HostAddr> {
        let hosts = self.hosts.iter().enumerate();
        let apart = hosts.filter(|(at, _)| self.this_host != Some(*at));
        apart
            .map(|(_, host)| host)
            .filter(|host| is_self(self, host) && self.is_for_clients(host.port))
    }

    /// Works out all that follows from HOST, PORT and the hosts.
    pub fn place_hosts(&mut self) {
        self.this_host = this_host(self);
        let mut known = HashSet::new();
        let others = self.hosts.iter().enumerate().filter_map(|(at, host)| {
            let addr = host.addr()?;
            let other =
                self.this_host != Some(at) && !addr.ip().is_unspecified() && !is_self(self, host);
            (other && known.insert(addr)).then_some(at)
        });
        self.others = others.collect();
        let this = self.this_host.and_then(|at| self.hosts.get(at));
        self.dial_from = this
            .filter(|host| host.is_local)
            .and_then(HostAddr::ip)
            // From loopback no other machine is reached.
            .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
            .or_else(|| {
                self.published_as()
                    .map(|(_, addr)| addr.ip())
                    .filter(|_| self.etcd.is_some())
            });
        let mut ips: Vec<IpAddr> = self
            .hosts
            .iter()
            .flat_map(|host| host.addrs.iter().copied())
            .collect();
        ips.sort_unstable();
        ips.dedup();
        self.host_ips = ips.into();
    }
}

/// The host with a local address and PORT; of several the host at HOST, else the first of them. Without any: line 1 if
/// its address is local, or if HOST comes from line 1.
fn this_host(conf: &Conf) -> Option<usize> {
    let ours = |host: &HostAddr| host.port == conf.port && host.is_local;
    let mut found = conf.hosts.iter().enumerate().filter(|(_, host)| ours(host));
    let first = found.next();
    let mut all = first.into_iter().chain(found);
    let served = all.find(|(_, host)| host.ip() == Some(conf.host));
    let found = served.or(first).map(|(at, _)| at);
    let is_first = |host: &&HostAddr| host.is_local || conf.host_is_derived;
    found.or_else(|| conf.hosts.first().filter(is_first).map(|_| 0))
}

/// Whether a connection to this host's proxy would come back to us: at a cluster port as a client's, which goes on to the
/// other hosts, without end.
fn is_self(conf: &Conf, host: &HostAddr) -> bool {
    let served = if conf.host.is_unspecified() {
        host.is_local
    } else {
        host.ip() == Some(conf.host)
    };
    served && (host.port == conf.port || conf.is_for_clients(host.port))
}
