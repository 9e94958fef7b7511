//! Random bytes that both ends of a connection know, so that each one that arrives is compared with the one that was sent.

use crate::Ended;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

const BLOCK: usize = 64 << 10;

/// Endless random bytes of a seed: no stretch repeats, so none can be lost, doubled or moved unseen.
pub struct Noise {
    random: fastrand::Rng,
    block: Vec<u8>,
    at: usize,
}

/// What came of the noise that was expected.
#[derive(Debug, Eq, PartialEq)]
pub struct Heard {
    pub bytes: u64,
    /// Where the first byte was another one than expected.
    pub wrong_at: Option<u64>,
    /// `Open` also where enough had come.
    pub ended: Ended,
}

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            block: vec![0; BLOCK],
            at: BLOCK,
        }
    }

    /// The first bytes of a seed.
    pub fn bytes(seed: u64, count: usize) -> Vec<u8> {
        let mut noise = Self::new(seed);
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let most = count - bytes.len();
            bytes.extend_from_slice(noise.next(most));
        }
        bytes
    }

    /// The next bytes: at least one, at most `most`.
    pub fn next(&mut self, most: usize) -> &[u8] {
        if self.at == BLOCK {
            self.random.fill(&mut self.block);
            self.at = 0;
        }
        let start = self.at;
        self.at = BLOCK.min(start + most);
        &self.block[start..self.at]
    }

    /// Where `got` differs from the next bytes.
    pub fn differs(&mut self, got: &[u8]) -> Option<usize> {
        let mut seen = 0;
        while seen < got.len() {
            let expected = self.next(got.len() - seen);
            let part = &got[seen..seen + expected.len()];
            if part != expected {
                let differs = part.iter().zip(expected).position(|(got, due)| got != due);
                return differs.map(|at| seen + at);
            }
            seen += part.len();
        }
        None
    }

    /// Sends `count` bytes; `sent` grows by what was taken.
    ///
    /// Errors: the other side ended, or takes nothing.
    pub fn pour(&mut self, to: &TcpStream, count: u64, sent: &AtomicU64) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let mut part = self.next(most);
            while !part.is_empty() {
                let taken = match (&mut &*to).write(part) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    taken => taken?,
                };
                part = &part[taken..];
                left -= taken as u64;
                sent.fetch_add(taken as u64, Relaxed);
            }
        }
        Ok(())
    }

    /// Reads to the end, or until `most` bytes have come; `heard` grows by what came.
    pub fn hear(&mut self, from: &TcpStream, most: u64, heard: &AtomicU64) -> Heard {
        let mut chunk = vec![0; 4 * BLOCK];
        let mut result = Heard {
            bytes: 0,
            wrong_at: None,
            ended: Ended::Open,
        };
        while result.bytes < most {
            let left = usize::try_from(most - result.bytes).unwrap_or(usize::MAX);
            let room = left.min(chunk.len());
            let got = match (&mut &*from).read(&mut chunk[..room]) {
                Ok(0) => {
                    result.ended = Ended::Eof;
                    break;
                }
                Ok(count) => &chunk[..count],
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => break,
                    _ => {
                        result.ended = Ended::Reset;
                        break;
                    }
                },
            };
            if result.wrong_at.is_none() {
                let differs = self.differs(got);
                result.wrong_at = differs.map(|at| result.bytes + at as u64);
            }
            result.bytes += got.len() as u64;
            heard.fetch_add(got.len() as u64, Relaxed);
        }
        result
    }
}

impl Heard {
    /// All of it, in order, and then FIN.
    #[track_caller]
    pub fn is_whole(&self, bytes: u64) {
        let whole = Self {
            bytes,
            wrong_at: None,
            ended: Ended::Eof,
        };
        assert_eq!(*self, whole);
    }

    /// The first bytes of it, in order, and then RST; gives how many.
    #[track_caller]
    pub fn is_cut(&self) -> u64 {
        assert_eq!(
            (self.wrong_at, self.ended),
            (None, Ended::Reset),
            "{self:?}"
        );
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_however_it_is_cut() {
        let whole = Noise::bytes(7, 300_000);
        assert_ne!(whole[..BLOCK], whole[BLOCK..2 * BLOCK]);
        assert_ne!(whole, Noise::bytes(8, 300_000));
        for step in [1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 300_000] {
            let mut noise = Noise::new(7);
            assert!(whole.chunks(step).all(|part| noise.differs(part).is_none()));
        }
    }

    #[test]
    fn a_byte_that_is_missing_or_changed_is_found_where_it_is() {
        let whole = Noise::bytes(7, 200_000);
        for at in [0, 1, BLOCK - 1, BLOCK, 199_999] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(Noise::new(7).differs(&changed), Some(at));
        }
        // Its neighbour may happen to be the same.
        let mut missing = whole.clone();
        missing.remove(BLOCK);
        let found = Noise::new(7).differs(&missing).expect("found");
        assert!((BLOCK..BLOCK + 8).contains(&found), "{found}");
    }
}
