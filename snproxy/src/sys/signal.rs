//! What signals do before the runtime looks after them, and in commands that have none.

#![expect(unsafe_code, reason = "signal(2) has no safe wrapper")]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Whether TERM and INT end the process at once.
static STARTS: AtomicBool = AtomicBool::new(false);

/// Lets TERM and INT end the process with exit code 0 until [`start_is_over`].
///
/// The kernel keeps from process 1 of a PID namespace every signal without a handler: a start that waits for a name
/// server could not be stopped. Source: `pid_namespaces(7)`.
pub fn end_at_once() {
    extern "C" fn end(_: libc::c_int) {
        if STARTS.load(SeqCst) {
            // SAFETY: _exit(2) is async-signal-safe and ends all threads. Nothing is served yet.
            unsafe { libc::_exit(0) };
        }
    }
    STARTS.store(true, SeqCst);
    let end = end as extern "C" fn(libc::c_int);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler reads an atomic and calls _exit(2), which signal-safety(7) allows.
        unsafe { libc::signal(signal, end as libc::sighandler_t) };
    }
}

/// From here on these signals are the runtime's, which calls the handlers that it found as well.
pub fn start_is_over() {
    STARTS.store(false, SeqCst);
}

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
