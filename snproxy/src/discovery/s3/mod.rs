//! Objects of an S3 bucket, fetched where they changed.
//!
//! Credentials, region and endpoint come from the environment variables that all S3 clients know; without them from the
//! role of the instance or container. Whether a missing object matters is the caller's to say.

#[cfg(feature = "s3")]
mod http;
#[cfg(feature = "s3")]
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "s3")]
pub use store::fetch;

/// Largest object that is read.
pub const MAX_OBJECT: usize = 1024 * 1024;

/// Longest time that all objects together may take.
pub const FETCH_LIMIT: Duration = Duration::from_secs(20);

/// How objects stood when they were fetched, by name; `None`: it was not there, or its store gave it no etag.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Etags(BTreeMap<String, Option<String>>);

/// What a fetch found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fetched {
    /// All as known.
    NotModified,
    /// In the order of the names; `None` for an object that is not there.
    Changed {
        objects: Vec<Option<Vec<u8>>>,
        etags: Etags,
    },
}

/// Why objects could not be had.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error("this snproxy was built without S3 (cargo feature `s3`)")]
    NotBuilt,
    /// The address, or the environment, says something that does not do.
    #[error("s3://{bucket}: {reason}")]
    Setting { bucket: String, reason: String },
    #[error("AWS_CA_BUNDLE {}: {source}", path.display())]
    CaBundle { path: PathBuf, source: io::Error },
    #[error(
        "s3://{bucket}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with a role ({reason})"
    )]
    Credentials { bucket: String, reason: String },
    #[error("s3://{bucket}: no such bucket")]
    NoBucket { bucket: String },
    #[error("{object}: forbidden ({reason})")]
    Forbidden { object: String, reason: String },
    #[error("{object}: larger than {MAX_OBJECT} bytes")]
    TooLarge { object: String },
    #[error("s3://{bucket}/{prefix}: not fetched in {FETCH_LIMIT:?}")]
    Timeout { bucket: String, prefix: String },
    #[error("{object}: {reason}")]
    Store { object: String, reason: String },
}

/// Fetches the objects `names` under `prefix`, unless all of them are as `known` says.
///
/// Errors: what cannot be had, and why; what was known stays true as far as anybody knows.
#[cfg(not(feature = "s3"))]
#[expect(clippy::unused_async, reason = "the other build waits here")]
pub async fn fetch(
    _bucket: &str,
    _prefix: &str,
    _names: &[&str],
    _known: Option<&Etags>,
) -> Result<Fetched, S3Error> {
    Err(S3Error::NotBuilt)
}
