//! What a client asks of the pod: the first bytes of each connection.

/// Its length. Part of the first request where there are requests.
pub(super) const HELLO: usize = 8;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hello {
    /// Every so many bytes, hello included, are a request, and come back as its answer.
    Echo(u32),
    /// The client sends a stream, and is told its length.
    Up,
    /// The client gets a stream until it sends a byte.
    Down,
}

impl Hello {
    /// Shape: kind, size; two u32, little-endian.
    pub(super) fn encode(self) -> [u8; HELLO] {
        let (kind, size) = match self {
            Self::Echo(size) => (1, size),
            Self::Up => (2, 0),
            Self::Down => (3, 0),
        };
        let mut bytes = [0; HELLO];
        bytes[..4].copy_from_slice(&u32::to_le_bytes(kind));
        bytes[4..].copy_from_slice(&size.to_le_bytes());
        bytes
    }

    pub(super) fn decode([a, b, c, d, size @ ..]: [u8; HELLO]) -> Option<Self> {
        match (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(size)) {
            (1, size) if size as usize >= HELLO => Some(Self::Echo(size)),
            (2, 0) => Some(Self::Up),
            (3, 0) => Some(Self::Down),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for hello in [Hello::Echo(64), Hello::Up, Hello::Down] {
            assert_eq!(Hello::decode(hello.encode()), Some(hello));
        }
        assert_eq!(Hello::decode(Hello::Echo(7).encode()), None);
        assert_eq!(Hello::decode([0; HELLO]), None);
    }
}
