//! Headers and damage to them, the same in every run.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::proxy_v2::UniqueId;
use super::super::*;
use crate::addr::ClusterPort;

/// xorshift64*: G. Marsaglia, "Xorshift RNGs"; S. Vigna's multiplier.
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Less than `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.bits() >> 32).unwrap() % limit
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.bits().to_be_bytes()[0]
    }

    pub(super) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    pub(super) fn version(&mut self) -> Version {
        self.pick(&[Version::V1, Version::V2])
    }

    /// Groups of zeroes are as frequent as the others: `::` depends on them.
    pub(super) fn ipv6(&mut self) -> Ipv6Addr {
        let mut groups = [0; 8];
        for group in &mut groups {
            let [high, low] = [self.byte(), self.byte()];
            *group = self.pick(&[0, 0, u16::from(low), u16::from_be_bytes([high, low])]);
        }
        if self.below(8) == 0 {
            groups[..6].copy_from_slice(&[0, 0, 0, 0, 0, 0xFFFF]);
        }
        groups.into()
    }

    fn end(&mut self, is_ipv4: bool) -> SocketAddr {
        let ip = if is_ipv4 {
            Ipv4Addr::from([(); 4].map(|()| self.byte())).into()
        } else {
            self.ipv6().into()
        };
        let port = u16::from_be_bytes([self.byte(), self.byte()]);
        SocketAddr::new(ip, self.pick(&[0, 80, 65535, port]))
    }

    /// Of one family or of two.
    pub(super) fn ends(&mut self) -> (SocketAddr, SocketAddr) {
        let (source, destination) =
            self.pick(&[(true, true), (false, false), (true, false), (false, true)]);
        (self.end(source), self.end(destination))
    }

    pub(super) fn unique_id(&mut self) -> Vec<u8> {
        let len = self.pick(&[0, 1, 16, 128]);
        self.bytes(len)
    }

    pub(super) fn tlvs<'a>(&mut self, id: &'a [u8]) -> Tlvs<'a> {
        let port = u16::from_be_bytes([self.byte(), self.byte()]);
        let (has_port, has_id) =
            self.pick(&[(true, true), (true, false), (false, true), (false, false)]);
        Tlvs {
            cluster_port: ClusterPort::new(port).filter(|_| has_port),
            unique_id: UniqueId::new(id).filter(|_| has_id),
        }
    }

    /// A good header, of any kind we take.
    pub(super) fn header(&mut self) -> Vec<u8> {
        const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
        let mut out = BytesMut::new();
        let version = self.version();
        match self.below(12) {
            0 if version == Version::V1 => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
            0 => proxy_v2::encode_local(&mut out),
            1 => {
                let len = self.below(30);
                let text = self.bytes(len).escape_ascii().to_string();
                let text = text.get(..80).unwrap_or(&text);
                out.extend_from_slice(format!("PROXY UNKNOWN {text}\r\n").as_bytes());
            }
            kind @ 2..=4 => {
                // LOCAL with a block; UDP; unix. A NOOP behind the latter two.
                let (head, len) =
                    [(b"\x20\x11", 9), (b"\x21\x12", 12), (b"\x21\x31", 216)][kind - 2];
                let block = self.bytes(len);
                let noop = &b"\x04\0\0"[..if kind == 2 { 0 } else { 3 }];
                let len = u16::try_from(block.len() + noop.len()).unwrap();
                for part in [V2, head, &len.to_be_bytes(), &block, noop] {
                    out.extend_from_slice(part);
                }
            }
            _ => {
                let (ends, id) = (self.ends(), self.unique_id());
                let tlvs = self.tlvs(&id);
                encode(version, &ProxyHeader::new(ends.0, ends.1), &tlvs, &mut out);
            }
        }
        out.to_vec()
    }

    /// One to four bytes changed, put in, taken out or repeated: some at random, some that matter.
    pub(super) fn damage(&mut self, bytes: &mut Vec<u8>) {
        const MATTER: &[u8] = b" \r\n\t.:+-0123456789abfxPU\0\x01\x02\x03\x04\x05\x20\x21\x11\xFF";
        for _ in 0..=self.below(4) {
            // v2 is decided by its first 40 bytes, however long its block is.
            let at = match self.below(2) {
                0 => self.below(bytes.len() + 1),
                _ => self.below(bytes.len().min(40) + 1),
            };
            let byte = match self.below(4) {
                0 => self.byte(),
                _ => self.pick(MATTER),
            };
            match (self.below(6), bytes.get_mut(at)) {
                (0, _) => bytes.insert(at, byte),
                (1, Some(_)) => drop(bytes.remove(at)),
                (2, Some(old)) => *old ^= 1 << (byte & 7),
                (3, _) => {
                    let from = self.below(at + 1);
                    let repeated = bytes[from..at].iter().copied().take(12).collect::<Vec<_>>();
                    bytes.splice(at..at, repeated);
                }
                (_, Some(old)) => *old = byte,
                (_, None) => bytes.push(byte),
            }
        }
    }
}
