//! Removal of TLVs that assert identity: only a sender that is listed may assert it.

use bytes::{BufMut, BytesMut};

use super::{
    FIXED, IPV4_ENDS, IPV6_ENDS, LOCAL, SIGNATURE, TCP4, TCP6, TLV_HEAD, TYPE_CRC32C,
    TYPE_UNIQUE_ID, UDP4, UDP6, UNIX_DATAGRAM, UNIX_ENDS, UNIX_STREAM, checksum_of,
};

/// TLV: padding. Source: §2.2.4.
const TYPE_NOOP: u8 = 0x04;

/// Types that assert nothing about the client. All others do, or may: the outcome of a TLS
/// handshake (ALPN, AUTHORITY, SSL), a network namespace, the endpoint ids of cloud providers.
const HARMLESS: [u8; 3] = [TYPE_CRC32C, TYPE_NOOP, TYPE_UNIQUE_ID];

/// Returns `header` without the TLVs that assert identity, or `None` if it has no such TLV.
///
/// Layout: `header` is one whole header that [`decode`](super::decode) took. Addresses and harmless
/// TLVs stay in their order; a CRC-32C is computed again. LOCAL and unspecified families lose their
/// whole block, whose layout is not known.
pub fn strip_identity(header: &[u8]) -> Option<BytesMut> {
    let command = *header.get(SIGNATURE.len())?;
    let family = *header.get(SIGNATURE.len() + 1)?;
    let block = header.get(FIXED..)?;
    let ends = match family {
        _ if command == LOCAL => 0,
        TCP4 | UDP4 => IPV4_ENDS,
        TCP6 | UDP6 => IPV6_ENDS,
        UNIX_STREAM | UNIX_DATAGRAM => UNIX_ENDS,
        _ => 0,
    };
    let (addresses, tlvs) = block.split_at_checked(usize::from(ends))?;
    if tlvs.is_empty() {
        return None;
    }
    let mut kept = BytesMut::with_capacity(header.len());
    kept.put_slice(header.get(..FIXED)?);
    kept.put_slice(addresses);
    let mut checksum = None;
    let mut rest = if ends == 0 { &[][..] } else { tlvs };
    while let [kind, high, low, ..] = rest {
        let len = TLV_HEAD + usize::from(u16::from_be_bytes([*high, *low]));
        let (tlv, after) = rest.split_at_checked(len)?;
        if HARMLESS.contains(kind) {
            if *kind == TYPE_CRC32C {
                checksum = Some(kept.len() + TLV_HEAD);
            }
            kept.put_slice(tlv);
        }
        rest = after;
    }
    if kept.len() == header.len() {
        return None;
    }
    let len = u16::try_from(kept.len() - FIXED).ok()?;
    kept.get_mut(FIXED - 2..FIXED)?
        .copy_from_slice(&len.to_be_bytes());
    if let Some(at) = checksum {
        let crc = checksum_of(&kept, at, kept.len());
        kept.get_mut(at..at + 4)?
            .copy_from_slice(&crc.to_be_bytes());
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::super::{PROXY, UNSPEC, decode};
    use super::*;
    use crate::wire::Decoded;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(value.len()).unwrap();
        [&[kind][..], &len.to_be_bytes(), value].concat()
    }

    /// A header, with the checksum filled in where there is one.
    fn header(command: u8, family: u8, ends: usize, tlvs: &[Vec<u8>]) -> Vec<u8> {
        let block = [&vec![7; ends][..], &tlvs.concat()].concat();
        let len = u16::try_from(block.len()).unwrap();
        let fixed = [SIGNATURE, &[command, family][..], &len.to_be_bytes()].concat();
        let mut header = [fixed, block].concat();
        let mut at = FIXED + ends;
        for tlv in tlvs {
            if tlv[0] == TYPE_CRC32C {
                let crc = checksum_of(&header, at + TLV_HEAD, header.len());
                header[at + TLV_HEAD..][..4].copy_from_slice(&crc.to_be_bytes());
            }
            at += tlv.len();
        }
        header
    }

    #[track_caller]
    fn check(command: u8, family: u8, ends: usize, tlvs: &[Vec<u8>], kept: Option<&[usize]>) {
        let whole = header(command, family, ends, tlvs);
        let stripped = strip_identity(&whole);
        let expected = kept.map(|kept| {
            let tlvs: Vec<_> = kept.iter().map(|at| tlvs[*at].clone()).collect();
            header(command, family, if ends == 0 { 0 } else { ends }, &tlvs)
        });
        assert_eq!(stripped.as_deref(), expected.as_deref());
        if let Some(stripped) = stripped {
            let (before, after) = (decode(&whole), decode(&stripped));
            let value = |decoded| match decoded {
                Ok(Decoded::Done { value, .. }) => value,
                other => panic!("{other:?}"),
            };
            assert_eq!(value(before), value(after), "the addresses stay");
        }
    }

    #[test]
    fn identity_tlvs_are_removed_and_others_stay() {
        let crc = || tlv(TYPE_CRC32C, &[0; 4]);
        let id = || tlv(TYPE_UNIQUE_ID, b"abc");
        let ssl = tlv(0x20, &[&[1, 0, 0, 0, 0][..], &tlv(0x22, b"admin")].concat());
        for (family, ends) in [(TCP4, 12), (TCP6, 36), (UDP4, 12), (UDP6, 36), (0x31, 216)] {
            check(PROXY, family, ends, &[], None);
            check(
                PROXY,
                family,
                ends,
                &[crc(), tlv(TYPE_NOOP, b"xx"), id()],
                None,
            );
            check(
                PROXY,
                family,
                ends,
                &[id(), ssl.clone(), crc()],
                Some(&[0, 2]),
            );
            for kind in [0x01, 0x02, 0x20, 0x22, 0x30, 0xE0, 0xE5, 0xEA, 0xEE, 0xFF] {
                check(PROXY, family, ends, &[tlv(kind, b"x")], Some(&[]));
                check(
                    PROXY,
                    family,
                    ends,
                    &[crc(), tlv(kind, b""), id()],
                    Some(&[0, 2]),
                );
            }
        }
    }

    #[test]
    fn blocks_of_unknown_layout_are_removed() {
        for (command, family) in [(LOCAL, UNSPEC), (LOCAL, TCP4), (PROXY, UNSPEC)] {
            check(command, family, 0, &[], None);
            check(command, family, 0, &[tlv(0x20, b"admin")], Some(&[]));
        }
    }

    #[test]
    fn any_bytes_are_taken() {
        let whole = header(PROXY, TCP4, 12, &[tlv(0x20, b"admin"), tlv(TYPE_NOOP, b"")]);
        for end in 0..whole.len() {
            let _ = strip_identity(&whole[..end]);
        }
        for len in 0..300 {
            let _ = strip_identity(&vec![0xFF; len]);
            let _ = strip_identity(&vec![0; len]);
        }
    }
}
