//! Why the kernel side could not be set up or changed.

use std::fmt;
use std::io;

/// An operation on the kernel side that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The host does not offer something that steering needs: [`missing`](SteeringError::missing).
    #[error("{operation} {object}: {cause}; {missing}")]
    Missing {
        operation: &'static str,
        object: String,
        cause: io::Error,
        missing: Missing,
    },
    /// Another refusal of the kernel: worth a retry where it is a map write.
    #[error("{operation} {object}")]
    Sys {
        operation: &'static str,
        object: String,
        source: io::Error,
    },
    /// The object in this binary is not what this code was written for.
    #[error("load bpf object: {0}")]
    Object(String),
}

impl SteeringError {
    /// What the host lacks, if that is why it failed.
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Missing { missing, .. } => Some(missing),
            Self::Sys { .. } | Self::Object(_) => None,
        }
    }
}

/// What steering needs and the host does not give. Displays as one clause.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Missing {
    /// The running kernel's release, older than the floor or built without bpf(2).
    Kernel { release: String },
    /// Capabilities that the calling thread lacks, by name.
    Capabilities(Vec<&'static str>),
    /// Locked memory: kernels before 5.11 count maps against `RLIMIT_MEMLOCK`.
    Memlock,
    /// Nothing that we could see: seccomp, a security module or a user namespace.
    Permission,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("missing")
    }
}
