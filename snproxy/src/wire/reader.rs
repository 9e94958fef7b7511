use super::{Decoded, Invalid};

/// Why a decoder has no value.
pub(super) enum Stop {
    /// The bytes end inside the value.
    Partial,
    Invalid(Invalid),
}

impl From<Invalid> for Stop {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// A place in the bytes; every read says [`Stop::Partial`] where they end.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Runs `read` from the start of `bytes`.
pub(super) fn decode<'a, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Stop>,
) -> Result<Decoded<T>, Invalid> {
    let mut reader = Reader { bytes, at: 0 };
    match read(&mut reader) {
        Ok(value) => Ok(Decoded::Done {
            value,
            used: reader.at,
        }),
        Err(Stop::Partial) => Ok(Decoded::Partial),
        Err(Stop::Invalid(invalid)) => Err(invalid),
    }
}

impl<'a> Reader<'a> {
    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// All that is not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let array = *self.rest().first_chunk().ok_or(Stop::Partial)?;
        self.at += N;
        Ok(array)
    }

    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let slice = self.rest().get(..len).ok_or(Stop::Partial)?;
        self.at += len;
        Ok(slice)
    }

    /// Reads a port or count and the byte `end` after it: no sign, no leading zero, at most 65,535.
    pub(super) fn decimal(&mut self, end: u8, what: &'static str) -> Result<u16, Stop> {
        let mut number: Option<u16> = None;
        loop {
            let byte = self.byte()?;
            number = match (byte, number) {
                (byte, Some(number)) if byte == end => return Ok(number),
                // A leading zero could be taken for octal by another reader.
                (b'0'..=b'9', Some(0)) => None,
                (b'0'..=b'9', before) => before
                    .unwrap_or(0)
                    .checked_mul(10)
                    .and_then(|tens| tens.checked_add(u16::from(byte - b'0'))),
                _ => None,
            };
            if number.is_none() {
                return Err(Invalid(what).into());
            }
        }
    }

    /// Reads exactly `expected`; a byte that differs is an invalid `what` even where the rest is missing.
    pub(super) fn literal(&mut self, expected: &[u8], what: &'static str) -> Result<(), Stop> {
        for byte in expected {
            if self.byte()? != *byte {
                return Err(Invalid(what).into());
            }
        }
        Ok(())
    }
}
