//! Standard output and standard error of the commands: a full disk is an error, not a panic.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

/// The first error of standard output; nothing is written after it.
static BROKEN: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes one line to standard output.
macro_rules! out {
    ($($words:tt)*) => { $crate::cli::output::line(format_args!($($words)*)) };
}

/// Writes one line to standard error.
macro_rules! err {
    ($($words:tt)*) => { $crate::cli::output::err_line(format_args!($($words)*)) };
}

pub(super) use {err, out};

pub(super) fn line(words: fmt::Arguments<'_>) {
    let mut broken = BROKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if broken.is_none() {
        *broken = writeln!(io::stdout().lock(), "{words}").err();
    }
}

/// Standard error has no other place to report its own errors.
pub(super) fn err_line(words: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{words}");
}

/// Flushes standard output.
///
/// # Errors
/// Returns the first error of any line.
pub(super) fn finish() -> io::Result<()> {
    let mut broken = BROKEN.lock().unwrap_or_else(PoisonError::into_inner);
    match broken.take() {
        Some(error) => Err(error),
        None => io::stdout().lock().flush(),
    }
}
