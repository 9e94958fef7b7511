//! `snproxy [FILE]`: the proxy itself.

use std::path::PathBuf;

use tracing::warn;

use crate::daemon::{self, Read, Start};
use crate::{diag, discovery};

use super::{BAD_CONFIGURATION, DONE, log, show};

pub(super) fn run(path: PathBuf) -> anyhow::Result<u8> {
    let sources = match discovery::read(&path) {
        Ok(sources) => sources,
        Err(diagnostics) => {
            show(&diagnostics);
            return Ok(BAD_CONFIGURATION);
        }
    };
    let parsed = daemon::parse(&sources);
    let Some(conf) = parsed
        .value
        .filter(|_| !diag::has_errors(&parsed.diagnostics))
    else {
        show(&parsed.diagnostics);
        return Ok(BAD_CONFIGURATION);
    };
    let set_log_level = log::init(&conf);
    for found in &parsed.diagnostics {
        warn!("{found}");
    }
    let start = Start::new(
        path,
        conf,
        Read {
            sources,
            diagnostics: parsed.diagnostics,
        },
    )?;
    daemon::run(start, set_log_level)?;
    Ok(DONE)
}
