//! PROXY headers: who really opened a connection, said in front of its payload.
//!
//! [`decode`] reads both versions, [`encode`] and [`encode_local`] write the one asked for.
//! Whether a header is expected, believed, stripped or made is not decided here.
//! Source: PROXY protocol (2020/03/05).

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;

use super::proxy_v2::Tlvs;
use super::{Decoded, Invalid, proxy_v1, proxy_v2};
use crate::addr::canonical;

#[cfg(test)]
mod tests;

/// Most bytes a header of either version takes: read no more in search of one.
pub const MAX_HEADER: usize = if proxy_v1::MAX_LINE > proxy_v2::MAX_HEADER {
    proxy_v1::MAX_LINE
} else {
    proxy_v2::MAX_HEADER
};

pub(super) const HEADER: &str = "PROXY header";

/// The two ends of the connection that a header stands for.
///
/// Shape: both ends of one family; [`ProxyHeader::new`] sees to it, and so do the encoders. A header that
/// was decoded keeps its addresses as sent, which may be IPv4 in IPv6 form: see [`canonical`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ProxyHeader {
    /// Who opened the connection.
    pub source: SocketAddr,
    /// What it was opened to.
    pub destination: SocketAddr,
}

/// Forms of a PROXY header.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary, with room for more than addresses.
    V2,
}

impl ProxyHeader {
    /// The header of a connection from `source` to `destination`, in the one family a header has.
    ///
    /// Shape: IPv4 when both ends are, in plain or in mapped form; else IPv6, an IPv4 end mapped
    /// (`::ffff:192.0.2.1`): it is the same address, where leaving it out would lose the client.
    /// Flow label and zone are dropped, no header carries them.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        let (from, to) = (canonical(source).ip(), canonical(destination).ip());
        let (from, to) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V6(_)) => (from.to_ipv6_mapped().into(), to),
            (IpAddr::V6(_), IpAddr::V4(to)) => (from, to.to_ipv6_mapped().into()),
            same => same,
        };
        Self {
            source: SocketAddr::new(from, source.port()),
            destination: SocketAddr::new(to, destination.port()),
        }
    }
}

/// Reads a PROXY header of either version from the start of a stream.
///
/// Shape: `None` is a header that says nothing we can use (UNKNOWN, LOCAL, not TCP over IP): the
/// addresses of the connection itself are the true ones. Looks at [`MAX_HEADER`] bytes at most and
/// keeps nothing between calls: call again with the same bytes and more.
/// Errors: [`Invalid`] on the first byte that no header has in its place; close the connection, or
/// take the bytes as payload where a header was optional.
pub fn decode(bytes: &[u8]) -> Result<Decoded<Option<ProxyHeader>>, Invalid> {
    match bytes.first() {
        None => Ok(Decoded::Partial),
        Some(b'P') => proxy_v1::decode(bytes),
        Some(b'\r') => proxy_v2::decode(bytes),
        Some(_) => Err(Invalid(HEADER)),
    }
}

/// Appends `header` to `out`. `tlvs` go where there is room for them: v1 has none.
pub fn encode(version: Version, header: &ProxyHeader, tlvs: &Tlvs<'_>, out: &mut BytesMut) {
    match version {
        Version::V1 => proxy_v1::encode(header, out),
        Version::V2 => proxy_v2::encode(header, tlvs, out),
    }
}

/// Appends the header of a connection of the proxy's own, such as a check, from `local` to `remote`.
///
/// Layout: v1 has the ends of the connection itself, as HAProxy sends for its checks: receivers such
/// as Postfix, Varnish and Apache refuse UNKNOWN, of which §2.1 warns. v2 is LOCAL, which every
/// receiver must accept.
pub fn encode_local(version: Version, local: SocketAddr, remote: SocketAddr, out: &mut BytesMut) {
    match version {
        Version::V1 => proxy_v1::encode(&ProxyHeader::new(local, remote), out),
        Version::V2 => proxy_v2::encode_local(out),
    }
}

/// Returns a whole header without the TLVs that assert identity, or `None` if it has no such TLV.
pub fn strip_identity(header: &[u8]) -> Option<BytesMut> {
    if is_v1(header) {
        return None;
    }
    proxy_v2::strip_identity(header)
}

/// Whether a header is v1, by its first byte.
pub fn is_v1(header: &[u8]) -> bool {
    header.first() == Some(&b'P')
}
