//! Whether a file is open for writing, as the kernel knows it: a read lease is granted only where no
//! writer has the file open.

#![expect(unsafe_code, reason = "fcntl(F_SETLEASE) has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Of `fcntl.h`: which signal says that a lease must end.
const F_SETSIG: libc::c_int = 10;

/// Whether another descriptor is open for writing; `None` where the kernel does not tell: the file
/// belongs to another user, or its file system has no leases.
///
/// The file must be open for reading only. A writer that opens the file in the middle of the call
/// waits for its end.
pub fn has_writer(file: &File) -> Option<bool> {
    let set = |command, value: libc::c_int| {
        // SAFETY: these commands take a number, and touch no memory of this process.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
        if done < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    // The signal of a lease that must end: the default, SIGIO, would end the process.
    set(F_SETSIG, libc::SIGURG).ok()?;
    match set(libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            // The lease ends with the descriptor at the latest.
            let _ = set(libc::F_SETLEASE, libc::F_UNLCK);
            Some(false)
        }
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Some(true),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_writer_is_seen_until_it_closes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "a").unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(has_writer(&reader), Some(false));
        let other_reader = File::open(&path).unwrap();
        assert_eq!(has_writer(&reader), Some(false));
        let writer = File::options().append(true).open(&path).unwrap();
        assert_eq!(has_writer(&reader), Some(true));
        drop(writer);
        assert_eq!(has_writer(&reader), Some(false));
        drop(other_reader);
        // No lease is left behind: this open would wait for 45 s.
        fs::write(&path, "b").unwrap();
    }
}
