//! Capabilities of the calling thread, which is the only one they are asked and dropped for: call
//! these before any other thread starts.

use std::io;

pub use caps::Capability;

/// Whether the calling thread may use `capability` now.
pub fn has(capability: Capability) -> bool {
    caps::has_cap(None, caps::CapSet::Effective, capability).unwrap_or(false)
}

/// Drops every capability of the calling thread and gives up gaining any by execve(2).
///
/// Kernels before 5.19 ask for `CAP_BPF` at every map write while
/// `kernel.unprivileged_bpf_disabled` is set: there it is kept, and `Kept` says so.
pub fn drop_all() -> io::Result<Kept> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What [`drop_all`] had to leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    Nothing,
    Bpf,
}
