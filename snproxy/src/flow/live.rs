//! Connections alive now: counted for status, waited for and cut by drain.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The connections that are being served.
#[derive(Debug, Default)]
pub struct Live {
    now: AtomicU64,
    total: AtomicU64,
    left: Notify,
    cut: CancellationToken,
    cut_spread_ms: AtomicU64,
    /// Without waiting for the turn.
    cut_now: CancellationToken,
}

/// One live connection; dropping it takes it off the books.
#[derive(Debug)]
pub struct Alive<'a>(&'a Live);

impl Live {
    pub fn enter(&self) -> Alive<'_> {
        self.now.fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
        Alive(self)
    }

    pub fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    /// Since the start.
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Ends every connection, spread evenly over `spread`.
    pub fn cut(&self, spread: Duration) {
        let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        self.cut_spread_ms.store(millis, Relaxed);
        self.cut.cancel();
    }

    /// Ends every connection at once, also those that wait for their turn.
    pub fn cut_now(&self) {
        self.cut_now.cancel();
        self.cut.cancel();
    }

    /// Resolves when it is time for one connection to end; `random` bits choose its turn.
    ///
    /// Cancel safety: yes.
    pub async fn cut_turn(&self, random: u64) {
        self.cut.cancelled().await;
        let spread = self.cut_spread_ms.load(Relaxed);
        let turn = (u128::from(random) * u128::from(spread)) >> 64;
        let turn = Duration::from_millis(u64::try_from(turn).unwrap_or(spread));
        tokio::select! {
            () = tokio::time::sleep(turn) => {}
            () = self.cut_now.cancelled() => {}
        }
    }

    /// Resolves when no connection is alive.
    ///
    /// Cancel safety: yes.
    pub async fn none_left(&self) {
        loop {
            // Registered before the look, so that the last one to leave is not missed.
            let left = self.left.notified();
            if self.now() == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if self.0.now.fetch_sub(1, Relaxed) == 1 {
            self.0.left.notify_waiters();
        }
    }
}
