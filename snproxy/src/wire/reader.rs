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
