//! What holds for the connections of a port: every key of it may be said for all ports or for some.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{ClientProxy, ClientTls, Locality, Policy, UpstreamTls};
use crate::addr::PortSet;

/// Different treatments of ports that one configuration may hold, about 400 bytes each.
pub(super) const MAX_KINDS: usize = 4096;

/// The settings of one port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortConf {
    /// Address on which it is served; `None`: HOST.
    pub bind: Option<IpAddr>,
    pub balance: Balance,
    pub locality: Locality,
    /// `None`: off.
    pub persist: Option<Persist>,
    /// Time over which a new upstream, or one that came back, comes to its full share; `None`: at once.
    pub slow_start: Option<Duration>,
    pub health: Check,
    /// What becomes of the connections of an upstream that was taken out of the files.
    pub on_remove: Fate,
    /// What becomes of the connections of an upstream that went down.
    pub on_down: Fate,
    /// Connections of the port at once; `None`: no limit.
    pub max_conn: Option<u32>,
    /// Percent of a limit below which what was full takes new connections again.
    pub reopen: u8,
    /// Percent of a port's upstreams that may be down where one goes down for its silence.
    pub eject_max: u8,
    /// Connections that may wait for a place; 0: none waits.
    pub queue: u32,
    /// Longest wait; `None`: as long as the client waits.
    pub queue_timeout: Option<Duration>,
    pub over_limit: OverLimit,
    /// Connections at once of one source network; `None`: no limit.
    pub source_max_conn: Option<SourceMaxConn>,
    /// New connections of one source network; `None`: no limit.
    pub source_rate: Option<SourceRate>,
    /// New connections of the port; `None`: no limit.
    pub port_rate: Option<Rate>,
    pub connect_timeout: Duration,
    /// The whole attempt at another host's proxy: connect and answer.
    pub peer_timeout: Duration,
    pub client_proxy: ClientProxy,
    /// How long a client may keep silent before its PROXY header is made for it; zero: not at all.
    pub proxy_wait: Duration,
    /// From the client's first byte to the upstream's; `None`: off, here and below.
    pub first_byte_timeout: Option<Duration>,
    /// Time in which nothing moves in either direction.
    pub idle_timeout: Option<Duration>,
    pub client_idle_timeout: Option<Duration>,
    pub upstream_idle_timeout: Option<Duration>,
    /// How long one direction may stay open when the other has ended.
    pub linger_timeout: Option<Duration>,
    pub max_lifetime: Option<Lifetime>,
    /// `None`: clients speak plain, and so do upstreams below.
    pub client_tls: Option<Arc<ClientTls>>,
    pub upstream_tls: Option<Arc<UpstreamTls>>,
    /// Of a TLS handshake, with a client or an upstream.
    pub tls_timeout: Duration,
}

/// Which upstream is next.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Balance {
    pub policy: Policy,
    /// `sh`, `mh`: the client's port is part of the key.
    pub port: bool,
    /// `sh`, `mh`: a client whose upstream cannot take it gets no other one.
    pub strict: bool,
}

/// Clients of one network keep their upstream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Persist {
    /// Since the last connection of theirs began.
    pub time: Duration,
    pub network: Network,
}

/// How many bits of an address make one source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    pub v4: u8,
    pub v6: u8,
}

/// How the health of an upstream is found out.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Check {
    /// Between two checks of an upstream that is up; `None`: dials alone tell.
    pub interval: Option<Duration>,
    /// Dials that fail in a row until it is down.
    pub fails: u32,
    /// From then to the first check; doubles.
    pub hold: Duration,
    /// Checks that succeed in a row until it is up.
    pub rise: u32,
    /// Checks that fail in a row until it is down.
    pub fall: u32,
    /// Percent by which an interval may be longer or shorter.
    pub jitter: u8,
    pub timeout: Duration,
    /// What a check says.
    pub send: Box<[u8]>,
    /// How the answer must begin; empty: none is waited for.
    pub expect: Box<[u8]>,
}

/// What becomes of connections whose upstream is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Keep,
    /// They end by themselves, or are reset after so long.
    Drain(Duration),
    Reset,
}

/// What becomes of a connection over a limit that may not wait, or waited too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OverLimit {
    /// Reset.
    Refuse,
    /// FIN.
    Close,
}

/// Connections at once of one source network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SourceMaxConn {
    pub count: u32,
    pub network: Network,
}

/// New connections of one source network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SourceRate {
    pub rate: Rate,
    pub network: Network,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// At least 1.
    pub per_second: u32,
    /// At least 1.
    pub burst: u32,
}

/// How old a connection may grow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lifetime {
    pub time: Duration,
    /// Percent by which it may be shorter, so that what began together does not end together.
    pub jitter: u8,
}

/// The settings of all ports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortConfs {
    /// The first one is that of the ports of which nothing is said.
    kinds: Vec<Arc<PortConf>>,
    /// By port: which of the kinds. `None`: the first one for all.
    index: Option<Box<[u16]>>,
}

impl PortConfs {
    /// The same for all ports.
    pub fn new(common: PortConf) -> Self {
        Self {
            kinds: vec![Arc::new(common)],
            index: None,
        }
    }

    pub fn of(&self, port: u16) -> &Arc<PortConf> {
        let kind = self
            .index
            .as_ref()
            .map_or(0, |index| index[usize::from(port)]);
        &self.kinds[usize::from(kind)]
    }

    /// Of the ports of which nothing is said.
    pub fn common(&self) -> &PortConf {
        &self.kinds[0]
    }

    /// Those that some port has, each with the first port that has it.
    pub fn kinds(&self) -> impl Iterator<Item = (u16, &PortConf)> {
        let mut first = vec![None; self.kinds.len()];
        match &self.index {
            None => first[0] = Some(1),
            // 0 is no port.
            Some(index) => {
                for (port, kind) in (0..=u16::MAX).zip(index).skip(1) {
                    first[usize::from(*kind)].get_or_insert(port);
                }
            }
        }
        let kinds = first.into_iter().zip(&self.kinds);
        kinds.filter_map(|(port, kind)| Some((port?, &**kind)))
    }

    /// Certificates that are named by a path of no root are those beside proxy.conf.
    pub(super) fn place_certs(&mut self, folder: &Path) {
        for kind in &mut self.kinds {
            if kind.client_tls.is_none() && kind.upstream_tls.is_none() {
                continue;
            }
            let kind = Arc::make_mut(kind);
            if let Some(tls) = &mut kind.client_tls {
                Arc::make_mut(tls).certs.beside(folder);
            }
            if let Some(tls) = &mut kind.upstream_tls {
                Arc::make_mut(tls).certs.beside(folder);
            }
        }
    }

    pub(super) fn common_mut(&mut self) -> &mut PortConf {
        debug_assert!(
            self.index.is_none(),
            "what is said of all ports comes first"
        );
        Arc::make_mut(&mut self.kinds[0])
    }

    /// Other settings for some ports, on top of those that they have; false where there are [`MAX_KINDS`] already.
    pub(super) fn refine(&mut self, ports: &PortSet, change: impl Fn(&mut PortConf)) -> bool {
        let new_index = || vec![0; 65_536].into_boxed_slice();
        let index = self.index.get_or_insert_with(new_index);
        let mut refined: HashMap<u16, u16> = HashMap::new();
        for port in ports.iter() {
            let slot = &mut index[usize::from(port)];
            if let Some(kind) = refined.get(slot) {
                *slot = *kind;
                continue;
            }
            if self.kinds.len() >= MAX_KINDS {
                return false;
            }
            let mut conf = PortConf::clone(&self.kinds[usize::from(*slot)]);
            change(&mut conf);
            let kind = u16::try_from(self.kinds.len()).expect("MAX_KINDS is less");
            self.kinds.push(Arc::new(conf));
            refined.insert(*slot, kind);
            *slot = kind;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_share_settings_until_they_are_told_apart() {
        let mut confs = PortConfs::new(PortConf::default());
        assert_eq!(confs.of(0), confs.of(65_535));
        let wide: PortSet = (5000..=5999).collect();
        assert!(confs.refine(&wide, |conf| conf.queue = 1));
        let narrow: PortSet = (5990..=6010).collect();
        assert!(confs.refine(&narrow, |conf| conf.reopen = 50));
        let of = |port| (confs.of(port).queue, confs.of(port).reopen);
        assert_eq!(of(5000), (1, 100));
        assert_eq!(of(5995), (1, 50));
        assert_eq!(of(6005), (0, 50));
        assert_eq!(of(6011), (0, 100));
        let firsts = |confs: &PortConfs| confs.kinds().map(|(port, _)| port).collect::<Vec<_>>();
        assert_eq!(firsts(&confs), [1, 5000, 5990, 6000]);
        // Nobody has those that all ports of were told apart.
        assert!(confs.refine(&wide, |conf| conf.queue = 2));
        assert!(confs.refine(&(1..=u16::MAX).collect(), |conf| conf.reopen = 60));
        assert_eq!(firsts(&confs), [1, 5000, 5990, 6000]);
        assert!(confs.kinds.len() > 4);
    }

    #[test]
    fn kinds_are_bounded() {
        let mut confs = PortConfs::new(PortConf::default());
        let one = |port: u16| std::iter::once(port).collect::<PortSet>();
        let fits = (1..).take_while(|port| confs.refine(&one(*port), |_| {}));
        assert_eq!(fits.count(), MAX_KINDS - 1);
    }
}
