//! Connections alive now: counted for status, waited for and cut by drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Shared;

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
pub struct Alive(Arc<Shared>);

impl Alive {
    pub fn enter(shared: Arc<Shared>) -> Self {
        shared.live.now.fetch_add(1, Relaxed);
        shared.live.total.fetch_add(1, Relaxed);
        Self(shared)
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let live = &self.0.live;
        if live.now.fetch_sub(1, Relaxed) == 1 {
            live.left.notify_waiters();
        }
    }
}

impl Live {
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
        // A child of its own: the parent's lock would be taken by every connection at each of its wake-ups.
        self.cut.child_token().cancelled_owned().await;
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
