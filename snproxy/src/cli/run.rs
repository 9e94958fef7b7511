//! `snproxy [FILE]`: the proxy itself.

use tracing::warn;

use crate::daemon::{self, Names, Start};
use crate::discovery::Root;
use crate::sys::{memory, signal};

use super::{BAD_CONFIGURATION, DONE, log, show};

pub(super) fn run(root: Root) -> anyhow::Result<u8> {
    signal::ignore_hangup();
    memory::keep_large_blocks_apart();
    let names = Names::default();
    let good = match daemon::look(&root, &names) {
        Ok(good) => good,
        Err(diagnostics) => {
            show(&diagnostics);
            return Ok(BAD_CONFIGURATION);
        }
    };
    let log = log::init(&good.conf);
    for found in &good.diagnostics {
        warn!("{found}");
    }
    let start = Start::new(root, good, names)?;
    let _written = log.go_on_in_background();
    daemon::run(start, log.set_level)?;
    Ok(DONE)
}
