//! Ports and addresses by role.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

/// Port of a service: the same number on every host of the cluster.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterPort(NonZeroU16);

impl ClusterPort {
    /// `None` for port 0, which no socket can be reached on.
    pub fn new(port: u16) -> Option<Self> {
        NonZeroU16::new(port).map(Self)
    }

    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for ClusterPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Port on one host where a pod listens.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostPort(NonZeroU16);

impl HostPort {
    /// `None` for port 0, which no socket can be reached on.
    pub fn new(port: u16) -> Option<Self> {
        NonZeroU16::new(port).map(Self)
    }

    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of ports.
///
/// Shape: one bit per port, 8 KiB whatever it holds.
#[derive(Clone, Eq, PartialEq)]
pub struct PortSet(Box<[u64; 1024]>);

impl PortSet {
    pub fn new() -> Self {
        Self(Box::new([0; 1024]))
    }

    pub fn insert(&mut self, port: u16) {
        self.0[usize::from(port >> 6)] |= 1 << (port & 63);
    }

    /// Both ends included; nothing where they are turned around.
    pub fn insert_range(&mut self, first: u16, last: u16) {
        self.change_range(first, last, |word, bits| *word |= bits);
    }

    /// As [`insert_range`](Self::insert_range).
    pub fn remove_range(&mut self, first: u16, last: u16) {
        self.change_range(first, last, |word, bits| *word &= !bits);
    }

    fn change_range(&mut self, first: u16, last: u16, change: impl Fn(&mut u64, u64)) {
        if first > last {
            return;
        }
        let from = u64::MAX << (first & 63);
        let until = u64::MAX >> (63 - (last & 63));
        match &mut self.0[usize::from(first >> 6)..=usize::from(last >> 6)] {
            [] => {}
            [word] => change(word, from & until),
            [head, middle @ .., tail] => {
                change(head, from);
                for word in middle {
                    change(word, u64::MAX);
                }
                change(tail, until);
            }
        }
    }

    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] & (1 << (port & 63)) != 0
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Ports in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=u16::MAX).filter(|port| self.contains(*port))
    }

    /// Runs of adjacent ports, both ends included, in ascending order.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for port in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == port => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        ranges
    }
}

impl Default for PortSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PortSet({self})")
    }
}

/// The form of CLUSTERPORTS: `1024-29999,32768-65535`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut set = Self::new();
        for port in ports {
            set.insert(port);
        }
        set
    }
}

/// What becomes of the connections to one port.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Action {
    /// Not ours: the kernel looks on, as if we were not there.
    #[default]
    Pass,
    /// Ours: given to the one listener.
    Steer,
    /// Ours: given to the one listener as long as there are no more of them than the port's rate allows, else refused.
    SteerLimited,
    /// As `Steer`, to the listener of ports that are set aside.
    SteerAside,
    /// As `SteerLimited`, to the listener of ports that are set aside.
    SteerLimitedAside,
    /// Ours, but nobody can serve it: the client is refused at its first SYN.
    Refuse,
}

impl Action {
    /// Whether connections reach us, all of them or some.
    pub fn is_steered(self) -> bool {
        !matches!(self, Self::Pass | Self::Refuse)
    }

    /// The same by way of the listener of ports that are set aside.
    #[must_use]
    pub fn aside(self) -> Self {
        match self {
            Self::Steer => Self::SteerAside,
            Self::SteerLimited => Self::SteerLimitedAside,
            other => other,
        }
    }
}

/// As commands and the control socket say it.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Refuse => "refuse",
            _ => "steer",
        })
    }
}

/// The address without its IPv6 wrapping: `::ffff:192.0.2.1` is the client 192.0.2.1.
///
/// A dual-stack socket reports IPv4 ends in the mapped form; past this function none is seen.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Whether an address is loopback, RFC 1918, RFC 6598, link-local or unique local (RFC 4193).
///
/// Layout: an address without its IPv6 wrapping, see [`canonical`].
pub fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xC0 == 64;
            ip.is_loopback() || ip.is_private() || is_shared || ip.is_link_local()
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

/// The loopback address of the same family.
pub fn loopback(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_set_prints_as_the_ranges_it_holds() {
        let mut set: PortSet = (1024..=29999).collect();
        set.insert(65535);
        set.insert(0);
        assert_eq!(set.to_string(), "0,1024-29999,65535");
        assert_eq!(set.len(), 28978);
        assert!(!set.contains(30000));
    }

    #[test]
    fn a_range_is_what_its_ports_are() {
        for (first, last) in [
            (0, 0),
            (0, 63),
            (63, 64),
            (1024, 29999),
            (65535, 65535),
            (0, 65535),
            (5, 4),
        ] {
            let mut set = PortSet::new();
            set.insert_range(first, last);
            assert!(set == (first..=last).collect(), "{first}-{last}: {set}");
            let mut rest = PortSet::new();
            rest.insert_range(0, u16::MAX);
            rest.remove_range(first, last);
            let is_out = |port: &u16| !(first..=last).contains(port);
            assert!(
                rest == (0..=u16::MAX).filter(is_out).collect(),
                "{first}-{last}: {rest}"
            );
        }
    }

    #[test]
    fn a_mapped_address_is_the_plain_one() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped).to_string(), "192.0.2.1:80");
        let plain: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(canonical(plain), plain);
    }
}
