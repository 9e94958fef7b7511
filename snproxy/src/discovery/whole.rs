//! Reads a file as a whole: once its writer has closed it, or has been still for a second.
//!
//! A writer truncates, writes and closes; what a reader finds in between may parse, and unmap what
//! the rest of the file maps.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use super::watch::Writers;
use crate::sys::lease;

/// Time between two reads of a file that is being written.
const POLL: Duration = Duration::from_millis(10);
/// A writer that changed nothing for this long counts as done.
const STILL: Duration = Duration::from_secs(1);
/// Longest wait for a writer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time that an event of inotify takes at most on a machine that is not overloaded.
const EVENT_DELAY: Duration = Duration::from_millis(20);

/// Changes with every change to a file, whatever name led to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    id: (u64, u64),
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn at(path: &Path) -> Option<Self> {
        Some(Self::of(&fs::metadata(path).ok()?))
    }

    fn of(found: &Metadata) -> Self {
        Self {
            id: (found.dev(), found.ino()),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether the file was last changed at least this long ago.
    fn is_older(&self, than: Duration) -> bool {
        let changed = u64::try_from(self.changed.0).map(Duration::from_secs);
        let changed = changed.unwrap_or_default();
        let changed = SystemTime::UNIX_EPOCH.checked_add(changed);
        // In whole seconds; a clock that was set back says nothing.
        changed.is_some_and(|changed| {
            let age = SystemTime::now().duration_since(changed);
            age.is_ok_and(|age| age >= than + Duration::from_secs(1))
        })
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{call}: {error}")]
    Call {
        call: &'static str,
        error: io::Error,
    },
    #[error("a directory: expected a file")]
    Directory,
    #[error("not a regular file")]
    NotRegular,
    #[error("another program is writing this file: snproxy reads it when that program closes it")]
    BeingWritten,
}

/// One read.
struct Attempt {
    bytes: Vec<u8>,
    stamp: Stamp,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Whole,
    /// A writer has the file open.
    Open,
    /// The file was changed or replaced while it was read.
    Changing,
}

/// The first `most` bytes of a file; `None` for a file that does not exist. `writers` knows who
/// writes where the kernel does not tell. Blocks for up to two seconds where a program writes.
pub(super) fn read(
    path: &Path,
    most: u64,
    writers: Option<&Writers>,
) -> Result<Option<Vec<u8>>, ReadError> {
    let start = Instant::now();
    let mut seen: Option<(Stamp, Instant)> = None;
    loop {
        let Some(attempt) = attempt(path, most, writers)? else {
            return Ok(None);
        };
        let now = Instant::now();
        let since = match seen {
            Some((stamp, since)) if stamp == attempt.stamp => since,
            _ => now,
        };
        seen = Some((attempt.stamp, since));
        let is_still = now.duration_since(since) >= STILL || attempt.stamp.is_older(STILL);
        match attempt.state {
            State::Whole => return Ok(Some(attempt.bytes)),
            State::Open if is_still => return Ok(Some(attempt.bytes)),
            _ if now.duration_since(start) >= PATIENCE => return Err(ReadError::BeingWritten),
            _ => sleep(POLL),
        }
    }
}

fn attempt(
    path: &Path,
    most: u64,
    writers: Option<&Writers>,
) -> Result<Option<Attempt>, ReadError> {
    let failed = |call| move |error| ReadError::Call { call, error };
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open")(error)),
    };
    let before = file.metadata().map_err(failed("stat"))?;
    if before.is_dir() {
        return Err(ReadError::Directory);
    }
    if !before.is_file() {
        return Err(ReadError::NotRegular);
    }
    let had_writer = lease::has_writer(&file);
    let mut bytes = Vec::new();
    (&file)
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(failed("read"))?;
    let has_writer = lease::has_writer(&file);
    let stamp = Stamp::of(&file.metadata().map_err(failed("stat"))?);
    let is_open = match (had_writer, has_writer) {
        (Some(had), Some(has)) => had || has,
        _ if stamp.is_older(STILL) => false,
        // An empty file is what a truncation leaves.
        _ => bytes.is_empty() || writers.is_some_and(|writers| writers.has(path, EVENT_DELAY)),
    };
    let state = if stamp != Stamp::of(&before) || Stamp::at(path) != Some(stamp) {
        State::Changing
    } else if is_open {
        State::Open
    } else {
        State::Whole
    };
    Ok(Some(Attempt {
        bytes,
        stamp,
        state,
    }))
}

fn open(path: &Path) -> io::Result<File> {
    // A FIFO in the place of a file would hold a blocking open until a program writes to it.
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use super::*;

    const MOST: u64 = 1 << 20;

    fn text(path: &Path) -> Result<Option<String>, ReadError> {
        let bytes = read(path, MOST, None)?;
        Ok(bytes.map(|bytes| String::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn a_file_is_read_when_its_writer_has_closed_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let mut writer = File::create(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                for part in ["one\n", "two\n", "three\n"] {
                    sleep(Duration::from_millis(100));
                    writer.write_all(part.as_bytes()).unwrap();
                }
            });
            let text = text(&path).unwrap().unwrap();
            assert_eq!(text, "one\ntwo\nthree\n");
        });
    }

    #[test]
    fn a_still_writer_is_waited_for_one_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"whole").unwrap();
        let start = Instant::now();
        assert_eq!(text(&path).unwrap().unwrap(), "whole");
        let waited = start.elapsed();
        assert!(waited >= STILL && waited < PATIENCE, "{waited:?}");
    }

    #[test]
    fn a_writer_that_goes_on_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = File::create(&path).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| text(&path).unwrap_err().to_string());
            while !reader.is_finished() {
                writer.write_all(b"#").unwrap();
                sleep(Duration::from_millis(50));
            }
            let error = reader.join().unwrap();
            assert!(error.starts_with("another program is writing"), "{error}");
        });
    }

    #[test]
    fn a_closed_file_is_read_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert_eq!(text(&path).unwrap(), None);
        for now in ["", "one", "two"] {
            fs::write(&path, now).unwrap();
            let start = Instant::now();
            assert_eq!(text(&path).unwrap().unwrap(), now);
            assert!(start.elapsed() < STILL);
        }
    }
}
