//! Which addresses are this host's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Whether an address is one of this host. Nothing is sent.
///
/// A bind alone says yes to every address under `ip_nonlocal_bind`.
pub fn is_own(ip: IpAddr) -> bool {
    match ip {
        // From an address of others there is no route.
        IpAddr::V4(_) => {
            UdpSocket::bind((ip, 0)).is_ok_and(|socket| socket.connect((ip, 1)).is_ok())
        }
        // An own address is reached from itself (RFC 6724, rule 1).
        IpAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok_and(|socket| {
            let connected = socket.connect((ip, 1)).and_then(|()| socket.local_addr());
            connected.is_ok_and(|local| local.ip() == ip)
        }),
    }
}

/// Whether this host has an address to reach another one from, of the same family; true where that cannot be told.
/// Nothing is sent.
pub fn has_source(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 1)));
    !connected.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_host_is_own() {
        assert!(is_own("127.0.0.7".parse().unwrap()));
        assert!(is_own("::1".parse().unwrap()));
        // For documentation: no host has them.
        assert!(!is_own("192.0.2.1".parse().unwrap()));
        assert!(!is_own("2001:db8::1".parse().unwrap()));
    }
}
