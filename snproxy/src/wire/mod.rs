//! Bytes to values and back. No I/O here.
//!
//! Every decoder reads from the start of a stream, never past its slice, never panics, and says
//! [`Invalid`] on the first byte that cannot belong to what it decodes.

pub mod directory;
pub mod peer;
pub mod proxy;
pub mod proxy_v1;
pub mod proxy_v2;
mod reader;

/// What the first bytes of a stream turned out to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decoded<T> {
    /// `value` took the first `used` bytes; the rest is payload.
    Done { value: T, used: usize },
    /// A valid beginning; call again with more bytes.
    Partial,
}

/// Bytes that are not what the decoder reads; names the first part that breaks the shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct Invalid(pub &'static str);
