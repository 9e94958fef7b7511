//! `snproxy [FILE]`: the proxy itself.

use std::path::PathBuf;

use tracing::warn;

use crate::daemon::{self, Names, Start};
use crate::sys::signal;

use super::{BAD_CONFIGURATION, DONE, log, show};

pub(super) fn run(path: PathBuf) -> anyhow::Result<u8> {
    signal::ignore_hangup();
    let names = Names::default();
    let good = match daemon::look(&path, &names) {
        Ok(good) => good,
        Err(diagnostics) => {
            show(&diagnostics);
            return Ok(BAD_CONFIGURATION);
        }
    };
    let set_log_level = log::init(&good.conf);
    for found in &good.diagnostics {
        warn!("{found}");
    }
    daemon::run(Start::new(path, good, names)?, set_log_level)?;
    Ok(DONE)
}
