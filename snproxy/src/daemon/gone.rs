//! The connections of pods that are gone: what ONREMOVE and ONDOWN say becomes theirs.

use std::time::Instant;

use tracing::info;

use crate::route::Table;
use crate::route::sentence::{Sentenced, pass_on_down, pass_on_removed};

use super::Daemon;

impl Daemon {
    /// Of pods that `old` has, and the table in force has not.
    pub(super) fn part_with_removed(&self, old: &Table, table: &Table) {
        let sentenced = pass_on_removed(old, table, Instant::now());
        self.call(sentenced, "removed");
    }

    /// Of pods that are down.
    pub(super) fn part_with_down(&self, table: &Table) {
        let sentenced = pass_on_down(table, Instant::now());
        self.call(sentenced, "down");
    }

    fn call(&self, Sentenced { pods, connections }: Sentenced, cause: &str) {
        if connections > 0 {
            info!(
                pods,
                connections, "connections of pods that are {cause} are to end"
            );
            self.shared.live.call();
        }
    }
}
