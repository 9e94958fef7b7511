//! The few steps through DER that no library makes for us.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// Most bytes of a length: 16 MiB is more than any file that is read.
const MAX_LENGTH_BYTES: usize = 3;

/// Bytes of DER, read from the front.
#[derive(Clone, Copy, Debug)]
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next value: its tag, its contents, and all of it.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let all = self.0;
        let (&tag, rest) = all.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match usize::from(first) {
            len @ 0..0x80 => (len, rest),
            0x80 => return None,
            long => {
                let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
                if bytes.len() > MAX_LENGTH_BYTES {
                    return None;
                }
                let shift = |len: usize, byte: &u8| len << 8 | usize::from(*byte);
                (bytes.iter().fold(0, shift), rest)
            }
        };
        let (contents, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, contents, &all[..all.len() - rest.len()]))
    }

    /// Takes the next value, whose contents are returned if it has this tag.
    pub(super) fn take(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (tag, contents, _) = self.next()?;
        (tag == expected).then_some(contents)
    }
}

/// Bytes of a BIT STRING that ends at a byte.
pub(super) fn bits(contents: &[u8]) -> Option<&[u8]> {
    contents
        .split_first()
        .filter(|(unused, _)| **unused == 0)
        .map(|(_, bytes)| bytes)
}
