//! Connections alive now: counted for status, waited for and cut by drain.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The connections that are being served.
#[derive(Debug, Default)]
pub struct Live {
    now: AtomicU64,
    total: AtomicU64,
    left: Notify,
    /// Cancelled when drain has waited long enough.
    pub cut: CancellationToken,
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
