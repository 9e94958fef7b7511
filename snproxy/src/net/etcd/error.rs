//! Why etcd gave no answer, or not the one that was asked for.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a call of etcd failed.
///
/// Of several members that failed it is the error of the last one.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error("{member}")]
    Unreachable { member: String, source: io::Error },
    #[error("{member}: no answer within {limit:?}")]
    Silent { member: String, limit: Duration },
    /// Whoever answers there is no etcd, or not one that we know.
    #[error("{member}: {what}")]
    Malformed { member: String, what: String },
    #[error("{member}: an answer of more than {limit} bytes")]
    TooLong { member: String, limit: usize },
    #[error("more than {limit} keys under {prefix}")]
    TooMany { prefix: String, limit: usize },
    #[error("more than {limit} bytes of keys and values under {prefix}")]
    TooMuch { prefix: String, limit: usize },
    /// etcd said no.
    #[error("{member}: {message}")]
    Refused {
        member: String,
        code: Code,
        message: String,
    },
    /// What is asked for was there and is gone: to be read anew.
    #[error("{member}: revisions before {revision} are compacted")]
    Compacted { member: String, revision: i64 },
    /// The watch is over; what is under way goes on.
    #[error("{member}: the watch ended: {why}")]
    Ended { member: String, why: String },
    #[error("lease {id:x} is gone")]
    NoLease { id: i64 },
    #[error("read {path}")]
    Password { path: PathBuf, source: io::Error },
}

/// Why etcd said no, where it makes a difference. Source: gRPC, `google.rpc.Code`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// Of what was asked for nothing is there.
    NotFound,
    /// The user may not.
    PermissionDenied,
    /// Who is asking, once more?
    Unauthenticated,
    /// This member cannot tell: no leader, no quorum, too much to do.
    Unavailable,
    Other(u32),
}

impl From<u32> for Code {
    fn from(code: u32) -> Self {
        match code {
            5 => Self::NotFound,
            7 => Self::PermissionDenied,
            16 => Self::Unauthenticated,
            // Cancelled, deadline exceeded, resource exhausted, aborted, unavailable: of this member, at this time.
            1 | 4 | 8 | 10 | 14 => Self::Unavailable,
            other => Self::Other(other),
        }
    }
}

impl EtcdError {
    /// With its causes, as one line.
    pub fn why(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.extend([": ", &error.to_string()]);
            cause = error.source();
        }
        text
    }

    /// Whether what a member says cannot be taken in.
    pub(super) fn is_of_answer(&self) -> bool {
        matches!(self, Self::Malformed { .. } | Self::TooLong { .. })
    }

    /// Whether another member may do better.
    pub(super) fn is_of_member(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Malformed { .. }
            | Self::Ended { .. } => true,
            Self::Refused { code, .. } => *code == Code::Unavailable,
            _ => false,
        }
    }
}
