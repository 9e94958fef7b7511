//! Why the kernel side could not be set up or changed.

use std::error::Error;
use std::fmt;
use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;

use crate::sys::kernel;
use crate::sys::privileges::{self, Capability};

/// An operation on the kernel side that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The host does not give something that steering needs: [`missing`](SteeringError::missing).
    #[error("{operation} {object}: {cause}; {missing}")]
    Missing {
        operation: &'static str,
        object: String,
        cause: io::Error,
        missing: Missing,
    },
    /// Another refusal by the kernel: worth a retry where it is a write.
    #[error("{operation} {object}")]
    Sys {
        operation: &'static str,
        object: String,
        source: io::Error,
    },
    /// This kernel does not take the program, or it is not the one that this code was written for.
    #[error("bpf object: {0}")]
    Object(String),
}

/// What steering needs and the host does not give. Displays as one clause.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Missing {
    /// The running kernel's release: too old, or built without bpf(2).
    Kernel { release: String },
    /// Capabilities that the calling thread lacks.
    Capabilities(Vec<Capability>),
    /// Locked memory: kernels before 5.11 count maps against `RLIMIT_MEMLOCK`.
    Memlock,
    /// A permission, though the capabilities are there.
    Permission,
}

impl SteeringError {
    /// What the host lacks, if that is why it failed.
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Missing { missing, .. } => Some(missing),
            Self::Sys { .. } | Self::Object(_) => None,
        }
    }

    /// The error of a call that needs `capabilities`; none: one that needs only its descriptor.
    pub(super) fn sys(
        operation: &'static str,
        object: impl Into<String>,
        cause: io::Error,
        capabilities: &[Capability],
    ) -> Self {
        let object = object.into();
        let host = (!capabilities.is_empty()).then(|| Host::look(capabilities));
        match host.and_then(|host| host.lacks(&cause)) {
            Some(missing) => Self::Missing {
                operation,
                object,
                cause,
                missing,
            },
            None => Self::Sys {
                operation,
                object,
                source: cause,
            },
        }
    }

    /// aya's errors, which hide the system call's some levels down.
    pub(super) fn of_aya(
        operation: &'static str,
        object: &str,
        error: &(dyn Error + 'static),
        capabilities: &[Capability],
    ) -> Self {
        let Some(errno) = causes(error)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .find_map(io::Error::raw_os_error)
        else {
            return Self::Object(whole(error));
        };
        let cause = io::Error::from_raw_os_error(errno);
        let (operation, object) = causes(error)
            .find_map(|cause| match cause.downcast_ref() {
                Some(MapError::CreateError { name, .. }) => Some(("create bpf map", name.clone())),
                _ => None,
            })
            .unwrap_or_else(|| (operation, object.to_owned()));
        match Self::sys(operation, object, cause, capabilities) {
            // The kernel could, and is allowed to: then it is the program that it refuses.
            Self::Sys { .. } if is_verifier(error) => Self::Object(whole(error)),
            error => error,
        }
    }
}

fn is_verifier(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| matches!(cause.downcast_ref(), Some(ProgramError::LoadError { .. })))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The text of an error with those of its causes, each once.
fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let clause = cause.to_string();
        if text.contains(&clause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&clause);
    }
    text.trim_end().to_owned()
}

/// What decides how a refusal is to be read.
struct Host {
    lacking: Vec<Capability>,
    /// Older than 5.9.
    too_old: bool,
    /// Older than 5.11.
    counts_memlock: bool,
}

impl Host {
    fn look(capabilities: &[Capability]) -> Self {
        // It holds what `CAP_BPF` and `CAP_PERFMON` were split off from, and bpf(2) still takes it.
        let is_admin = privileges::has(Capability::CAP_SYS_ADMIN);
        Self {
            lacking: capabilities
                .iter()
                .copied()
                .filter(|capability| !is_admin && !privileges::has(*capability))
                .collect(),
            too_old: !kernel::at_least(5, 9),
            counts_memlock: !kernel::at_least(5, 11),
        }
    }

    /// `None`: nothing that this host could be given.
    fn lacks(&self, cause: &io::Error) -> Option<Missing> {
        match cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) if !self.lacking.is_empty() => {
                Some(Missing::Capabilities(self.lacking.clone()))
            }
            Some(libc::ENOSYS) => Some(Missing::kernel()),
            _ if self.too_old => Some(Missing::kernel()),
            // Not EACCES: with all capabilities that is the verifier's.
            Some(libc::EPERM) if self.counts_memlock => Some(Missing::Memlock),
            Some(libc::EPERM) => Some(Missing::Permission),
            _ => None,
        }
    }
}

impl Missing {
    fn kernel() -> Self {
        Self::Kernel {
            release: kernel::release(),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel { release } => write!(
                f,
                "steering needs Linux 5.9 with CONFIG_BPF_SYSCALL, this is {release}"
            ),
            Self::Capabilities(lacking) => {
                f.write_str("missing")?;
                for (at, capability) in lacking.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma} {capability}")?;
                }
                Ok(())
            }
            Self::Memlock => f.write_str(
                "kernels before 5.11 count maps as locked memory: raise it (ulimit -l unlimited)",
            ),
            Self::Permission => f.write_str(
                "the capabilities are there: seccomp, a security module or a user namespace forbids it",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::EbpfError;

    const CAPABLE: Host = Host {
        lacking: Vec::new(),
        too_old: false,
        counts_memlock: false,
    };

    #[track_caller]
    fn check(host: &Host, errno: i32, wanted: Option<&str>) {
        let missing = host.lacks(&io::Error::from_raw_os_error(errno));
        let said = missing.map(|missing| missing.to_string());
        match wanted {
            Some(wanted) => assert!(
                said.as_ref().is_some_and(|said| said.contains(wanted)),
                "{said:?}"
            ),
            None => assert_eq!(said, None),
        }
    }

    #[test]
    fn a_refusal_names_what_the_host_lacks() {
        let incapable = Host {
            lacking: vec![Capability::CAP_BPF, Capability::CAP_PERFMON],
            ..CAPABLE
        };
        check(
            &incapable,
            libc::EPERM,
            Some("missing CAP_BPF, CAP_PERFMON"),
        );
        check(&incapable, libc::EACCES, Some("missing CAP_BPF"));
        check(&incapable, libc::ENOMEM, None);

        let old = Host {
            too_old: true,
            counts_memlock: true,
            ..CAPABLE
        };
        check(&old, libc::EINVAL, Some("needs Linux 5.9"));
        let before_memcg = Host {
            counts_memlock: true,
            ..CAPABLE
        };
        check(&before_memcg, libc::EPERM, Some("ulimit -l"));

        check(&CAPABLE, libc::EPERM, Some("security module"));
        check(&CAPABLE, libc::ENOSYS, Some("CONFIG_BPF_SYSCALL"));
        check(&CAPABLE, libc::EINVAL, None);
        check(&CAPABLE, libc::EACCES, None);
    }

    #[test]
    fn the_errno_of_a_library_error_is_found_below_it() {
        let error = EbpfError::MapError(MapError::CreateError {
            name: "ACTIONS".into(),
            io_error: io::Error::from_raw_os_error(libc::ENOMEM),
        });
        let error = SteeringError::of_aya("load bpf object", "steering", &error, &[]);
        assert_eq!(error.to_string(), "create bpf map ACTIONS");
        let source = error.source().unwrap().downcast_ref::<io::Error>();
        assert_eq!(source.unwrap().raw_os_error(), Some(libc::ENOMEM));
    }
}
