//! PROXY protocol v2, binary.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use bytes::{BufMut, BytesMut};

use super::proxy::{HEADER, ProxyHeader};
use super::reader::{self, Reader, Stop};
use super::{Decoded, Invalid};
use crate::addr::ClusterPort;

mod identity;
#[cfg(test)]
mod tests;

pub use identity::strip_identity;

/// Signature, version and command, family, length.
pub const FIXED: usize = 16;

/// Most bytes after the [`FIXED`] part that we take.
///
/// The length field could announce 65,535, for any stranger to make us hold. §2.2 has the whole
/// "always smaller than an MSS"; this leaves room for more TLVs than that.
pub const MAX_BLOCK: usize = 2048;

/// Longest header.
pub const MAX_HEADER: usize = FIXED + MAX_BLOCK;

/// TLV: CRC-32C of the header. Source: §2.2.3.
pub const TYPE_CRC32C: u8 = 0x03;

/// TLV: opaque id of the connection, up to [`MAX_UNIQUE_ID`] bytes. Source: §2.2.5.
pub const TYPE_UNIQUE_ID: u8 = 0x05;

/// TLV of snproxy: the cluster port the client opened.
///
/// Shape: `u16`, big endian. From the range for applications (§2.2.8, 0xE0 to 0xEF); the known
/// users of that range are 0xE0 (Google), 0xEA (Amazon) and 0xEE (Azure).
pub const TYPE_CLUSTER_PORT: u8 = 0xE5;

/// Longest unique id. Source: §2.2.5.
pub const MAX_UNIQUE_ID: usize = 128;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
const TCP6: u8 = 0x21;
const UDP6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;

/// Bytes of the two addresses, ports included.
const IPV4_ENDS: u16 = 12;
const IPV6_ENDS: u16 = 36;
const UNIX_ENDS: u16 = 216;

/// Type and length of a TLV.
const TLV_HEAD: usize = 3;

pub(super) const COMMAND: &str = "PROXY v2 version and command";
pub(super) const FAMILY: &str = "PROXY v2 address family";
pub(super) const LENGTH: &str = "PROXY v2 length";
pub(super) const TLV: &str = "PROXY v2 TLV";
pub(super) const CHECKSUM: &str = "PROXY v2 checksum";

/// What a header of ours says besides addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tlvs<'a> {
    pub cluster_port: Option<ClusterPort>,
    pub unique_id: Option<UniqueId<'a>>,
}

/// Identifies a connection across proxies and logs.
///
/// Shape: up to [`MAX_UNIQUE_ID`] bytes of any kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UniqueId<'a> {
    bytes: &'a [u8],
    len: u8,
}

impl<'a> UniqueId<'a> {
    /// `None` for more than [`MAX_UNIQUE_ID`] bytes.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let len = u8::try_from(bytes.len()).ok()?;
        (bytes.len() <= MAX_UNIQUE_ID).then_some(Self { bytes, len })
    }
}

/// Reads a PROXY protocol v2 header from the start of a stream.
///
/// Shape: the 12-byte signature, version 2 and command, family, big-endian length, then a block of that
/// length: addresses, then TLVs that fill it exactly. At most [`MAX_HEADER`] bytes. `None`:
/// - LOCAL, whose block is skipped unread, its family included, as §2.2 asks;
/// - PROXY of an unspecified family (0x00). §2.2 leaves accept or reject to the receiver; accepting is
///   what v1 does with UNKNOWN. Its block has no known layout and is skipped unread as well;
/// - PROXY of UDP or unix sockets, which §2.2 wants treated as unspecified where not supported:
///   a datagram's addresses are not the ends of this stream. Their blocks are still checked.
///
/// Other family bytes are refused, `0x10` and the like included: not among §2.2's "valid combinations".
/// A CRC-32C is verified where there is one, more than one is refused; a unique id has at most
/// [`MAX_UNIQUE_ID`] bytes; other TLVs are skipped unread.
/// Errors: [`Invalid`] names the first part that breaks the shape, without waiting for the block's end;
/// the checksum needs all of it.
/// Source: PROXY protocol (2020/03/05) §2.2.
pub fn decode(bytes: &[u8]) -> Result<Decoded<Option<ProxyHeader>>, Invalid> {
    reader::decode(bytes, |reader| read_header(bytes, reader))
}

/// Appends `header` to `out`: PROXY, TCP, families as [`ProxyHeader::new`], `tlvs`, a CRC-32C.
pub fn encode(header: &ProxyHeader, tlvs: &Tlvs<'_>, out: &mut BytesMut) {
    const HEAD: u16 = 3;
    const PORT: u16 = 2;
    const CRC: u16 = 4;

    let ProxyHeader {
        source,
        destination,
    } = ProxyHeader::new(header.source, header.destination);
    let (family, ends) = match source {
        SocketAddr::V4(_) => (TCP4, IPV4_ENDS),
        SocketAddr::V6(_) => (TCP6, IPV6_ENDS),
    };
    let cluster_port = tlvs.cluster_port.map_or(0, |_| HEAD + PORT);
    let unique_id = tlvs.unique_id.map_or(0, |id| HEAD + u16::from(id.len));

    let start = out.len();
    put_fixed(
        out,
        PROXY,
        family,
        ends + cluster_port + unique_id + HEAD + CRC,
    );
    put_ip(out, source.ip());
    put_ip(out, destination.ip());
    out.put_u16(source.port());
    out.put_u16(destination.port());
    if let Some(port) = tlvs.cluster_port {
        put_tlv_head(out, TYPE_CLUSTER_PORT, PORT);
        out.put_u16(port.get());
    }
    if let Some(id) = tlvs.unique_id {
        put_tlv_head(out, TYPE_UNIQUE_ID, u16::from(id.len));
        out.put_slice(id.bytes);
    }
    // The checksum is the last field, so that all it covers is written: itself, as zeroes, included.
    put_tlv_head(out, TYPE_CRC32C, CRC);
    let covered = out.get(start..).unwrap_or_default();
    let crc = Crc32c::new().add(covered).add(&[0; 4]).end();
    out.put_u32(crc);
}

/// Appends the header of a connection of our own to `out`.
///
/// Shape: LOCAL, unspecified family, no block: §2.2 wants none.
pub fn encode_local(out: &mut BytesMut) {
    put_fixed(out, LOCAL, UNSPEC, 0);
}

fn read_header(bytes: &[u8], reader: &mut Reader<'_>) -> Result<Option<ProxyHeader>, Stop> {
    reader.literal(SIGNATURE, HEADER)?;
    let command = reader.byte()?;
    if command != LOCAL && command != PROXY {
        return Err(Invalid(COMMAND).into());
    }
    let family = reader.byte()?;
    let ends = match family {
        _ if command == LOCAL => return skip_block(reader),
        UNSPEC => return skip_block(reader),
        TCP4 | UDP4 => IPV4_ENDS,
        TCP6 | UDP6 => IPV6_ENDS,
        UNIX_STREAM | UNIX_DATAGRAM => UNIX_ENDS,
        _ => return Err(Invalid(FAMILY).into()),
    };
    let ends = usize::from(ends);
    let len = read_length(reader, ends..=MAX_BLOCK, LENGTH, |len| {
        may_be_tlvs(len - ends)
    })?;
    let header = match family {
        TCP4 => Some(read_ends::<4>(reader)?),
        TCP6 => Some(read_ends::<16>(reader)?),
        _ => {
            reader.slice(ends)?;
            None
        }
    };
    read_tlvs(bytes, reader, FIXED + len)?;
    Ok(header)
}

/// A block whose layout we do not know or may not look at.
fn skip_block(reader: &mut Reader<'_>) -> Result<Option<ProxyHeader>, Stop> {
    let len = read_length(reader, 0..=MAX_BLOCK, LENGTH, |_| true)?;
    reader.slice(len)?;
    Ok(None)
}

fn read_ends<const N: usize>(reader: &mut Reader<'_>) -> Result<ProxyHeader, Stop>
where
    IpAddr: From<[u8; N]>,
{
    let source: [u8; N] = reader.array()?;
    let destination: [u8; N] = reader.array()?;
    let source_port = u16::from_be_bytes(reader.array()?);
    let destination_port = u16::from_be_bytes(reader.array()?);
    Ok(ProxyHeader {
        source: SocketAddr::new(source.into(), source_port),
        destination: SocketAddr::new(destination.into(), destination_port),
    })
}

/// Walks the TLVs up to `end`, where the last one must end too.
fn read_tlvs(bytes: &[u8], reader: &mut Reader<'_>, end: usize) -> Result<(), Stop> {
    let mut checksum = None;
    while reader.at() < end {
        let kind = reader.byte()?;
        let sizes = match kind {
            TYPE_CRC32C if checksum.is_some() => return Err(Invalid(CHECKSUM).into()),
            TYPE_CRC32C => 4..=4,
            TYPE_UNIQUE_ID => 0..=MAX_UNIQUE_ID,
            _ => 0..=MAX_BLOCK,
        };
        // Not below zero: `may_be_tlvs` left room for the head.
        let room = (end + 1).saturating_sub(reader.at() + TLV_HEAD);
        let fits = |size| size <= room && may_be_tlvs(room - size);
        let size = read_length(reader, sizes, TLV, fits)?;
        if kind == TYPE_CRC32C {
            checksum = Some((reader.at(), u32::from_be_bytes(reader.array()?)));
        } else {
            reader.slice(size)?;
        }
    }
    match checksum {
        Some((at, sent)) if checksum_of(bytes, at, end) != sent => Err(Invalid(CHECKSUM).into()),
        _ => Ok(()),
    }
}

/// Whether `len` bytes can be a row of TLVs.
fn may_be_tlvs(len: usize) -> bool {
    len == 0 || len >= TLV_HEAD
}

/// Reads a big-endian length; refuses as soon as none of `range` that `fits` can come of it.
fn read_length(
    reader: &mut Reader<'_>,
    range: RangeInclusive<usize>,
    what: &'static str,
    fits: impl Fn(usize) -> bool,
) -> Result<usize, Stop> {
    let among = |first: usize, last: usize| {
        let possible = first.max(*range.start())..=last.min(*range.end());
        possible.into_iter().any(&fits)
    };
    if !among(0, MAX_BLOCK) {
        return Err(Invalid(what).into());
    }
    let high = reader.byte()?;
    let first = usize::from(u16::from_be_bytes([high, 0]));
    if !among(first, first + 0xFF) {
        return Err(Invalid(what).into());
    }
    let len = first + usize::from(reader.byte()?);
    if !among(len, len) {
        return Err(Invalid(what).into());
    }
    Ok(len)
}

/// CRC-32C of the first `end` bytes, the four at `at` taken as zeroes. Source: §2.2.3.
fn checksum_of(bytes: &[u8], at: usize, end: usize) -> u32 {
    let before = bytes.get(..at).unwrap_or_default();
    let after = bytes.get(at + 4..end).unwrap_or_default();
    Crc32c::new().add(before).add(&[0; 4]).add(after).end()
}

fn put_fixed(out: &mut BytesMut, command: u8, family: u8, len: u16) {
    out.reserve(FIXED + usize::from(len));
    out.put_slice(SIGNATURE);
    out.put_u8(command);
    out.put_u8(family);
    out.put_u16(len);
}

fn put_ip(out: &mut BytesMut, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
}

fn put_tlv_head(out: &mut BytesMut, kind: u8, len: u16) {
    out.put_u8(kind);
    out.put_u16(len);
}

/// CRC with the Castagnoli polynomial. Source: RFC 4960, appendix B.
struct Crc32c(u32);

impl Crc32c {
    /// What one byte does to the sum, for each byte.
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index: u8 = 0;
        loop {
            let mut sum = index as u32;
            let mut bit = 0;
            while bit < 8 {
                // 0x1EDC6F41 with its bits in reverse: the lowest bit is the first on the wire.
                sum = if sum & 1 == 1 {
                    sum >> 1 ^ 0x82F6_3B78
                } else {
                    sum >> 1
                };
                bit += 1;
            }
            table[index as usize] = sum;
            if index == u8::MAX {
                break table;
            }
            index += 1;
        }
    };

    fn new() -> Self {
        Self(u32::MAX)
    }

    fn add(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |sum, byte| {
            let [low, ..] = sum.to_le_bytes();
            sum >> 8 ^ Self::TABLE[usize::from(low ^ byte)]
        }))
    }

    fn end(self) -> u32 {
        !self.0
    }
}
