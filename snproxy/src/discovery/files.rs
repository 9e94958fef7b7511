//! Reads a set of files.

use std::path::{Path, PathBuf};

use crate::conf::Sources;
use crate::diag::{Diagnostic, Severity};

/// Reads proxy.conf and the files it names. Blocks on the file system.
///
/// Errors: one finding per file that exists and cannot be read, and for a missing proxy.conf.
pub fn read(conf_path: &Path) -> Result<Sources, Vec<Diagnostic>> {
    Err(vec![Diagnostic::of_file(
        conf_path,
        Severity::Error,
        "read",
    )])
}

/// All files of a set, existing or not: what to watch.
pub fn paths(sources: &Sources) -> Vec<PathBuf> {
    let files = crate::conf::files(&sources.proxy);
    vec![files.proxy, files.mappings, files.hosts]
}
