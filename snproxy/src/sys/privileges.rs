//! Capabilities, which belong to threads: these ask and change the calling one. Call them before
//! any other thread starts, so that all threads are born with what is left.

use std::io;

use caps::{CapSet, CapsHashSet};

pub use caps::Capability;

use super::kernel;

/// What [`drop_all`] had to leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    Nothing,
    /// Kernels before 5.19 ask for it at every map write while `kernel.unprivileged_bpf_disabled`
    /// is set.
    Bpf,
}

/// Whether the calling thread may use `capability` now.
pub fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Drops every capability of the calling thread but those in `keep`, and the ways to gain one by execve(2).
///
/// Descriptors stay what they are: listener, maps and link work on.
pub fn drop_all(keep: &[Capability]) -> io::Result<Kept> {
    let kept = if !kernel::at_least(5, 19) && has(Capability::CAP_BPF) {
        Kept::Bpf
    } else {
        Kept::Nothing
    };
    let mut left: CapsHashSet = keep.iter().copied().filter(|keep| has(*keep)).collect();
    if kept == Kept::Bpf {
        left.insert(Capability::CAP_BPF);
    }
    rustix::thread::set_no_new_privs(true)?;
    // Permitted comes last: the others are bounded by it.
    caps::clear(None, CapSet::Ambient)
        .and_then(|()| caps::clear(None, CapSet::Inheritable))
        .and_then(|()| caps::set(None, CapSet::Effective, &left))
        .and_then(|()| caps::set(None, CapSet::Permitted, &left))
        .map_err(io::Error::other)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_after_a_drop_and_other_threads_keep_theirs() {
        let before = caps::read(None, CapSet::Permitted).unwrap();
        // A thread of its own, since there is no way back.
        std::thread::spawn(|| {
            let kept = drop_all(&[]).unwrap();
            for set in [CapSet::Ambient, CapSet::Inheritable] {
                assert!(caps::read(None, set).unwrap().is_empty());
            }
            for set in [CapSet::Effective, CapSet::Permitted] {
                let left = caps::read(None, set).unwrap();
                assert_eq!(left.is_empty(), kept == Kept::Nothing, "{set:?}: {left:?}");
            }
            assert!(!has(Capability::CAP_NET_ADMIN));
            assert!(rustix::thread::no_new_privs().unwrap());
        })
        .join()
        .unwrap();
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), before);
    }
}
