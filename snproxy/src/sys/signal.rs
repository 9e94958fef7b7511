//! What signals do before the runtime looks after them, and in commands that have none.

#![expect(unsafe_code, reason = "signal(2) has no safe wrapper")]

/// Lets HUP pass by: it means "read the files again", and a start is about to read them anyway.
pub fn ignore_hangup() {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

/// Lets a reader that goes away (`snproxy ports | head`) end the command, as it ends any other.
///
/// Not for the proxy itself: a client that goes away is an error of one write to it.
pub fn die_of_broken_pipes() {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
