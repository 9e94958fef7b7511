//! The two ends of a stream: as much of the pattern as goes through, then a trailer that tells how much it was.

use super::{
    end::End,
    pattern::{PIECE, Pattern},
};
use anyhow::{Context, ensure};

/// A byte that cannot stand there, and the number of bytes before it.
const TRAILER: usize = 9;

#[derive(Default)]
pub(super) struct Sender {
    sent: usize,
    /// The trailer, once it was decided that the stream ends, and how much of it has been sent.
    trailer: Option<([u8; TRAILER], usize)>,
}

impl Sender {
    /// Sends one piece, if there is room for it.
    pub(super) fn send(&mut self, socket: &End, pattern: &Pattern) -> anyhow::Result<()> {
        debug_assert!(self.trailer.is_none(), "nothing comes behind the trailer");
        let piece = pattern.at(self.sent, PIECE);
        self.sent += socket.try_send(piece)?.unwrap_or_default();
        Ok(())
    }

    /// Ends the stream here; gives true when all of it has been sent, the trailer too.
    pub(super) fn end(&mut self, socket: &End, pattern: &Pattern) -> anyhow::Result<bool> {
        let sent = self.sent;
        let (trailer, done) = self.trailer.get_or_insert_with(|| {
            let mut trailer = [!pattern.at(sent, 1)[0]; TRAILER];
            trailer[1..].copy_from_slice(&(sent as u64).to_le_bytes());
            (trailer, 0)
        });
        *done += socket.try_send(&trailer[*done..])?.unwrap_or_default();
        Ok(*done == TRAILER)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.sent as u64
    }
}

#[derive(Default)]
pub(super) struct Receiver {
    received: usize,
    trailer: [u8; TRAILER],
    of_trailer: usize,
}

impl Receiver {
    /// Takes what came; gives true once the trailer is there.
    ///
    /// Errors: a byte that is neither of the pattern nor of its trailer, a wrong length, an early end.
    pub(super) fn receive(
        &mut self,
        socket: &End,
        pattern: &Pattern,
        scratch: &mut [u8],
    ) -> anyhow::Result<bool> {
        let Some(count) = socket.try_recv(scratch)? else {
            return Ok(false);
        };
        ensure!(count > 0, "the stream ends after {} bytes", self.received);
        self.take(&scratch[..count], pattern)
    }

    /// The same with bytes that were received together with others.
    pub(super) fn take(&mut self, mut bytes: &[u8], pattern: &Pattern) -> anyhow::Result<bool> {
        if self.of_trailer == 0 {
            let same = pattern.first_difference(self.received, bytes);
            let same = same.unwrap_or(bytes.len());
            self.received += same;
            bytes = &bytes[same..];
            if bytes.is_empty() {
                return Ok(false);
            }
        }
        let received = self.received;
        let room = &mut self.trailer[self.of_trailer..];
        room.get_mut(..bytes.len())
            .with_context(|| format!("wrong bytes after {received}"))?
            .copy_from_slice(bytes);
        self.of_trailer += bytes.len();
        if self.of_trailer < TRAILER {
            return Ok(false);
        }
        let [first, length @ ..] = self.trailer;
        ensure!(
            first == !pattern.at(received, 1)[0] && length == (received as u64).to_le_bytes(),
            "after {received} bytes comes neither the next one nor a trailer that tells of so many"
        );
        Ok(true)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.received as u64
    }
}
