//! Decoders by other hands against ours. Where one answers otherwise, it must be for a reason listed
//! here: [`known`] has one line for each, and `cases` a case for each.

use ppp::PartialResult;
use ppp::v2::{Command, Protocol};

use super::*;

/// What a decoder says, in a form they all have.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Answer {
    Partial,
    Invalid,
    /// Source and destination of TCP, and the length of the header.
    Done(Option<(SocketAddr, SocketAddr)>, usize),
}
use Answer::{Done, Partial};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Oracle {
    /// Crate `ppp`.
    Ppp,
    /// Crate `proxy-header`.
    Header,
    /// Crate `proxy-protocol-rs`.
    Protocol,
}
use Oracle::{Header, Ppp};

pub(super) const ORACLES: [Oracle; 3] = [Ppp, Header, Oracle::Protocol];

fn ours(bytes: &[u8]) -> Answer {
    match decode(bytes) {
        Ok(Decoded::Partial) => Partial,
        Ok(Decoded::Done { value, used }) => Done(value.map(|h| (h.source, h.destination)), used),
        Err(_) => Answer::Invalid,
    }
}

impl Oracle {
    /// Where an oracle gives the addresses of LOCAL or UDP, they are left out here: we do not use them.
    fn answer(self, bytes: &[u8]) -> Answer {
        match self {
            Ppp => ppp_answer(bytes),
            Header => {
                match proxy_header::ProxyHeader::parse(bytes, proxy_header::ParseConfig::default())
                {
                    Ok((header, used)) => {
                        let ends = header.proxied_address();
                        let tcp =
                            ends.filter(|ends| ends.protocol == proxy_header::Protocol::Stream);
                        Done(tcp.map(|ends| (ends.source, ends.destination)), used)
                    }
                    Err(proxy_header::Error::BufferTooShort) => Partial,
                    Err(_) => Answer::Invalid,
                }
            }
            Oracle::Protocol => match proxy_protocol_rs::parse(bytes) {
                Ok((info, used)) => {
                    let is_tcp = info.transport.is_some_and(|t| {
                        t.protocol == proxy_protocol_rs::TransportProtocol::Stream
                    });
                    let ends = info.source_inet().zip(info.destination_inet());
                    Done(ends.filter(|_| is_tcp), used)
                }
                Err(proxy_protocol_rs::ParseError::Incomplete) => Partial,
                Err(_) => Answer::Invalid,
            },
        }
    }
}

fn ppp_answer(bytes: &[u8]) -> Answer {
    let result = ppp::HeaderResult::parse(bytes);
    if result.is_incomplete() {
        return Partial;
    }
    match result {
        ppp::HeaderResult::V1(Ok(header)) => {
            let ends = match header.addresses {
                ppp::v1::Addresses::Unknown => None,
                ppp::v1::Addresses::Tcp4(ip) => Some((
                    SocketAddr::new(ip.source_address.into(), ip.source_port),
                    SocketAddr::new(ip.destination_address.into(), ip.destination_port),
                )),
                ppp::v1::Addresses::Tcp6(ip) => Some((
                    SocketAddr::new(ip.source_address.into(), ip.source_port),
                    SocketAddr::new(ip.destination_address.into(), ip.destination_port),
                )),
            };
            Done(ends, header.header.len())
        }
        ppp::HeaderResult::V2(Ok(header)) => {
            let ends = match header.addresses {
                ppp::v2::Addresses::IPv4(ip) => Some((
                    SocketAddr::new(ip.source_address.into(), ip.source_port),
                    SocketAddr::new(ip.destination_address.into(), ip.destination_port),
                )),
                ppp::v2::Addresses::IPv6(ip) => Some((
                    SocketAddr::new(ip.source_address.into(), ip.source_port),
                    SocketAddr::new(ip.destination_address.into(), ip.destination_port),
                )),
                _ => None,
            };
            let is_tcp = header.command == Command::Proxy && header.protocol == Protocol::Stream;
            Done(ends.filter(|_| is_tcp), header.len())
        }
        _ => Answer::Invalid,
    }
}

type Ours = Result<Decoded<Option<ProxyHeader>>, Invalid>;

/// Why `oracle` answers `theirs` where we answer otherwise; `None`: no reason known, one of us is wrong.
fn known(oracle: Oracle, bytes: &[u8], theirs: &Answer) -> Option<&'static str> {
    let ours = decode(bytes);
    if bytes.starts_with(b"\r") {
        known_v2(oracle, bytes, &ours, theirs)
    } else {
        known_v1(oracle, bytes, &ours, theirs)
    }
}

fn known_v1(oracle: Oracle, bytes: &[u8], ours: &Ours, theirs: &Answer) -> Option<&'static str> {
    use proxy_v1::{LINE_END, MAX_LINE, PORT, PROTOCOL};

    let end = bytes.windows(2).position(|pair| pair == b"\r\n");
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let ports = fields.get(4..).unwrap_or_default();
    let has_plus = ports.iter().any(|port| port.starts_with(b"+"));
    let has_zero = ports
        .iter()
        .any(|port| port.len() > 1 && port.starts_with(b"0"));
    let has_text = line.starts_with(b"PROXY UNKNOWN ");
    match (oracle, ours, theirs) {
        (_, Err(Invalid(PORT)), Done(Some(_), _)) if has_plus => Some(PLUS),
        (Header | Oracle::Protocol, Err(Invalid(PORT)), Done(Some(_), _)) if has_zero => Some(ZERO),
        (Header, Err(Invalid(HEADER)), Done(..)) if line.get(5) != Some(&b' ') => Some(AFTER_PROXY),
        (Header, Err(Invalid(PROTOCOL | LINE_END)), Done(None, _))
            if line.starts_with(b"PROXY UNKNOWN") && !has_text =>
        {
            Some(AFTER_UNKNOWN)
        }
        (Header, Err(Invalid(LINE_END)), Done(_, used)) if *used > MAX_LINE => Some(LONG_LINE),
        (Header, Ok(_), Answer::Invalid) if has_text && line.contains(&b'\r') => Some(BARE_CR),
        (Ppp, Ok(Decoded::Partial), Answer::Invalid)
            if fields.len() == 6 && fields[5].is_empty() =>
        {
            Some(BEFORE_LAST_PORT)
        }
        (Ppp, Ok(_), Partial | Answer::Invalid | Done(None, _)) if has_text => Some(INTO_TEXT),
        (Oracle::Protocol, Ok(Decoded::Done { .. }), Answer::Invalid)
            if has_text && str::from_utf8(line).is_err() =>
        {
            Some(NOT_UTF8)
        }
        (Ppp, Err(_), Partial) if bytes.contains(&b'\r') => Some(AFTER_CR),
        (Ppp, Err(Invalid(PORT)), Done(..)) if bytes.ends_with(b" \n") => Some(SPACE_LF),
        _ => None,
    }
}

fn known_v2(oracle: Oracle, bytes: &[u8], ours: &Ours, theirs: &Answer) -> Option<&'static str> {
    use proxy_v2::{CHECKSUM, FAMILY, LENGTH, MAX_BLOCK, TLV};

    let [command, family, high, low] = *bytes.get(12..)?.first_chunk()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let block = bytes.get(16..)?;
    let block = &block[..len.min(block.len())];
    let addresses = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => 216,
        _ => 0,
    };
    let is_local = command == 0x20;
    match (oracle, ours, theirs) {
        (_, Err(Invalid(LENGTH)), Done(..)) if len > MAX_BLOCK => Some(ANY_LENGTH),
        (Ppp | Header, Ok(_), Answer::Invalid) if is_local => Some(INTO_LOCAL),
        (Header, Ok(Decoded::Done { .. }), Partial) if is_local && len < addresses => {
            Some(INTO_LOCAL)
        }
        (Oracle::Protocol, Ok(Decoded::Done { .. }), Answer::Invalid)
            if is_local && block.contains(&3) =>
        {
            Some(LOCAL_CHECKSUM)
        }
        (Oracle::Protocol, Ok(_), Answer::Invalid) if !is_local && family == 0 => Some(UNSPECIFIED),
        (Ppp, Err(Invalid(FAMILY)), Done(None, _)) if family % 16 == 0 || family / 16 == 0 => {
            Some(HALF_FAMILY)
        }
        (Header, Err(Invalid(LENGTH)), Partial) if len < addresses => Some(BEYOND_BLOCK),
        (Ppp | Header, Err(Invalid(LENGTH)), Done(..)) if [1, 2].contains(&(len - addresses)) => {
            Some(TLVS)
        }
        (Ppp | Header, Err(Invalid(TLV | CHECKSUM)), Done(..)) => Some(TLVS),
        (Oracle::Protocol, Ok(_), Answer::Invalid) if block.get(addresses..)?.contains(&0x20) => {
            Some(INTO_TLS)
        }
        _ => None,
    }
}

// Of v1.
pub(super) const PLUS: &str = "takes +80 for a port";
pub(super) const ZERO: &str = "takes 080 for a port";
pub(super) const AFTER_PROXY: &str = "does not look at the byte after PROXY";
pub(super) const AFTER_UNKNOWN: &str = "does not look at the byte after UNKNOWN";
pub(super) const LONG_LINE: &str = "takes a line of any length that comes in one piece";
pub(super) const BARE_CR: &str = "lets UNKNOWN text end at a bare CR";
pub(super) const BEFORE_LAST_PORT: &str = "refuses a line cut before its last port";
pub(super) const AFTER_CR: &str = "waits for missing fields after the CR that ends them";
pub(super) const INTO_TEXT: &str = "looks into UNKNOWN text: fields, CR, UTF-8";
pub(super) const NOT_UTF8: &str = "wants UNKNOWN text to be UTF-8";
pub(super) const SPACE_LF: &str = "takes space LF for a line end where no byte follows";
// Of v2.
pub(super) const ANY_LENGTH: &str = "takes any length";
pub(super) const INTO_LOCAL: &str = "looks at the family and addresses of LOCAL";
pub(super) const LOCAL_CHECKSUM: &str = "verifies a checksum in the block of LOCAL";
pub(super) const UNSPECIFIED: &str = "refuses an unspecified family, as it may";
pub(super) const HALF_FAMILY: &str =
    "takes a family without protocol, or a protocol without family";
pub(super) const BEYOND_BLOCK: &str = "waits for addresses beyond the block";
pub(super) const TLVS: &str = "does not look at TLVs: sizes, checksum";
pub(super) const INTO_TLS: &str = "looks into the TLV of TLS";
// Of both.
pub(super) const LATER: &str = "judges whole lines and blocks: the same answer, later";

pub(super) const REASONS: [&str; 20] = [
    PLUS,
    ZERO,
    AFTER_PROXY,
    AFTER_UNKNOWN,
    LONG_LINE,
    BARE_CR,
    BEFORE_LAST_PORT,
    AFTER_CR,
    INTO_TEXT,
    NOT_UTF8,
    SPACE_LF,
    ANY_LENGTH,
    INTO_LOCAL,
    LOCAL_CHECKSUM,
    UNSPECIFIED,
    HALF_FAMILY,
    BEYOND_BLOCK,
    TLVS,
    INTO_TLS,
    LATER,
];

/// `bytes`, where we refuse them already, continued so that a decoder that judges whole headers judges.
fn continued(bytes: &[u8]) -> Vec<u8> {
    if !bytes.starts_with(b"\r") {
        return [bytes, b"\r\n", &[b'x'; proxy_v1::MAX_LINE]].concat();
    }
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(16), 0);
    let len = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    bytes.resize(bytes.len().max(len), 0);
    bytes
}

/// Why `oracle` and we answer differently; `None` where we do not.
#[track_caller]
pub(super) fn difference(oracle: Oracle, bytes: &[u8]) -> Option<&'static str> {
    let (ours, mut theirs) = (ours(bytes), oracle.answer(bytes));
    let mut bytes = bytes.to_vec();
    if ours == Answer::Invalid && theirs == Partial {
        bytes = continued(&bytes);
        theirs = oracle.answer(&bytes);
        if theirs == Answer::Invalid {
            return Some(LATER);
        }
    }
    (ours != theirs).then(|| {
        known(oracle, &bytes, &theirs).unwrap_or_else(|| {
            let text = bytes.escape_ascii();
            panic!("{oracle:?} says {theirs:?}, we say {ours:?}: {text}")
        })
    })
}

#[test]
fn all_agree_on_what_we_encode() {
    let mut seeded = Seeded::new(8);
    for _ in 0..20_000 {
        let (version, ends, id) = (seeded.version(), seeded.ends(), seeded.unique_id());
        let header = ProxyHeader::new(ends.0, ends.1);
        let tlvs = seeded.tlvs(&id);
        let mut out = BytesMut::new();
        encode(version, &header, &tlvs, &mut out);
        let used = out.len();
        out.extend_from_slice(b"payload");
        let expected = Done(Some((header.source, header.destination)), used);
        for oracle in ORACLES {
            let text = out.escape_ascii();
            assert_eq!(oracle.answer(&out), expected, "{oracle:?}: {text}");
        }
        if version == Version::V2 {
            // This one verified the checksum as well.
            let (info, _) = proxy_protocol_rs::parse(&out).unwrap();
            let raw = |kind| {
                let mut all = info.tlvs.raw.iter();
                all.find(|(this, _)| *this == kind)
                    .map(|(_, value)| &value[..])
            };
            let port = tlvs.cluster_port.map(|port| port.get().to_be_bytes());
            assert_eq!(raw(0xE5), port.as_ref().map(|port| &port[..]));
            assert_eq!(raw(0x05), tlvs.unique_id.map(|_| &id[..]));
            assert!(info.tlvs.crc32c.is_some());
        }
    }
}

#[test]
fn all_agree_on_headers_without_a_client() {
    let ends = ["192.0.2.1:1", "192.0.2.2:2"].map(|end| end.parse().unwrap());
    for version in [Version::V1, Version::V2] {
        let mut out = BytesMut::new();
        encode_local(version, ends[0], ends[1], &mut out);
        let value = (version == Version::V1).then_some((ends[0], ends[1]));
        for oracle in ORACLES {
            assert_eq!(oracle.answer(&out), Done(value, out.len()), "{oracle:?}");
        }
    }
}

#[test]
fn we_read_what_they_write() {
    let mut seeded = Seeded::new(9);
    for _ in 0..5_000 {
        let (source, destination) = seeded.ends();
        let ProxyHeader {
            source,
            destination,
        } = ProxyHeader::new(source, destination);
        let ends = proxy_header::ProxiedAddress::stream(source, destination);
        let header = proxy_header::ProxyHeader::with_address(ends);
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        header.encode_v1(&mut v1).unwrap();
        header.encode_v2(&mut v2).unwrap();
        let ppp_v1 = ppp::v1::Addresses::from((source, destination)).to_string();
        let ppp_v2 = ppp::v2::Builder::with_addresses(
            ppp::v2::Version::Two | Command::Proxy,
            Protocol::Stream,
            (source, destination),
        )
        .write_tlv(ppp::v2::Type::NoOp, b"x")
        .and_then(ppp::v2::Builder::build)
        .unwrap();
        for bytes in [v1, v2, ppp_v1.into_bytes(), ppp_v2] {
            let text = bytes.escape_ascii();
            assert_eq!(
                ours(&bytes),
                Done(Some((source, destination)), bytes.len()),
                "{text}"
            );
        }
    }
}

#[test]
fn they_differ_from_us_on_damaged_headers_for_known_reasons_only() {
    let mut seeded = Seeded::new(10);
    let mut agreed = 0;
    for _ in 0..2_000 {
        let good = seeded.header();
        for _ in 0..50 {
            let mut bytes = good.clone();
            seeded.damage(&mut bytes);
            let cut = seeded.below(bytes.len() + 1);
            for oracle in ORACLES {
                for bytes in [&bytes[..], &bytes[..cut]] {
                    agreed += u32::from(difference(oracle, bytes).is_none());
                }
            }
        }
    }
    // Of 600,000: were it few, the reasons would excuse too much.
    assert!(agreed > 450_000, "{agreed}");
}
