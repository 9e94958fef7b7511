//! Bytes whose place in a stream can be told.

/// Bytes until the pattern repeats: a prime, so that no buffer of a proxy is a multiple of it, and what is lost, sent
/// twice or swapped by whole buffers is noticed.
const PERIOD: usize = 32_749;

/// The most that [`Pattern::at`] gives in one piece.
pub(super) const PIECE: usize = 128 << 10;

/// An endless stream of bytes, the same in every process.
pub(super) struct Pattern(Box<[u8]>);

impl Pattern {
    pub(super) fn new() -> Self {
        // xorshift64: evenly spread bytes are all that is asked of it.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        let period: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
        Self(
            period
                .iter()
                .copied()
                .cycle()
                .take(PERIOD + PIECE)
                .collect(),
        )
    }

    /// The bytes from a position on; at most [`PIECE`].
    pub(super) fn at(&self, position: usize, length: usize) -> &[u8] {
        let phase = position % PERIOD;
        &self.0[phase..phase + length]
    }

    /// Where bytes received at a position first differ from what stands there.
    pub(super) fn first_difference(&self, position: usize, received: &[u8]) -> Option<usize> {
        let mut done = 0;
        // By the period: so the expected bytes stay in the first levels of cache.
        for piece in received.chunks(PERIOD) {
            let expected = self.at(position + done, piece.len());
            if piece != expected {
                let same = piece.iter().zip(expected).take_while(|(a, b)| a == b);
                return Some(done + same.count());
            }
            done += piece.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_lost_twice_or_changed_is_noticed_where_it_is() {
        let pattern = Pattern::new();
        let sent: Vec<u8> = (0..3)
            .flat_map(|piece| pattern.at(piece * PIECE, PIECE).to_vec())
            .collect();
        assert_eq!(pattern.first_difference(0, &sent), None);
        assert_eq!(pattern.first_difference(70_000, &sent[70_000..]), None);
        let mut changed = sent.clone();
        changed[100_000] ^= 1;
        assert_eq!(pattern.first_difference(0, &changed), Some(100_000));
        for size in [1, 512, 4096, 16 << 10, 64 << 10] {
            let lost = pattern.first_difference(0, &[&sent[..9], &sent[9 + size..]].concat());
            let twice = pattern.first_difference(0, &[&sent[..9 + size], &sent[9..]].concat());
            // A byte in 256 is the same by chance.
            assert!(lost.is_some_and(|at| (9..40).contains(&at)), "{lost:?}");
            let end = 9 + size;
            assert!(
                twice.is_some_and(|at| (end..end + 40).contains(&at)),
                "{twice:?}"
            );
        }
    }
}
