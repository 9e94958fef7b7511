//! The congestion controls that namespaces may choose.

use crate::load::CONGESTION_CONTROL;
use anyhow::Context;
use std::{fs, path::PathBuf};

/// Machine-wide. Namespaces are refused (EPERM) what is neither in it nor was the machine's default.
const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// Ours is allowed while this is held; dropped, the list is as it was.
pub(crate) struct Allowed {
    path: PathBuf,
    /// `None` where nothing had to be changed.
    before: Option<String>,
}

impl Allowed {
    /// Errors: a kernel without it (a module that is not loaded, say).
    pub(crate) fn new() -> anyhow::Result<Self> {
        Self::in_list(ALLOWED.into())
    }

    fn in_list(path: PathBuf) -> anyhow::Result<Self> {
        let what = || format!("allow {CONGESTION_CONTROL} in {}", path.display());
        let list = fs::read_to_string(&path).with_context(what)?;
        let before = if list.split_whitespace().any(|one| one == CONGESTION_CONTROL) {
            None
        } else {
            let longer = format!("{} {CONGESTION_CONTROL}", list.trim());
            fs::write(&path, longer).with_context(what)?;
            Some(list)
        };
        Ok(Self { path, before })
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = fs::write(&self.path, before)
        {
            eprintln!("{}: not set back: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, while_held: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        fs::write(&path, before).unwrap();
        let allowed = Allowed::in_list(path.clone()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), while_held);
        drop(allowed);
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }

    #[test]
    fn the_list_is_longer_only_while_held() {
        check("reno bbr\n", "reno bbr cubic");
        check("reno cubic bbr\n", "reno cubic bbr\n");
    }
}
