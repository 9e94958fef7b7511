//! One check of an upstream: does it take a connection, and does it answer as expected?

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls_pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use crate::addr::canonical;
use crate::sys::stream::Stream;
use crate::wire::proxy::{self, Version};

use super::dial::{DialError, Options, dial};
use super::tls::{self, ClientConfig, HandshakeError};

/// Most bytes of an answer that a check reads, whatever it expects.
pub const MAX_ANSWER: usize = 1024;

/// Bytes of an answer that an error shows.
const SHOWN: usize = 48;

/// What a check says, and how the answer must begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'q> {
    /// The PROXY header that comes first, ahead of a TLS handshake too: for the check's connection.
    pub header: Option<Version>,
    pub send: &'q [u8],
    /// Empty: none is waited for.
    pub expect: &'q [u8],
}

/// Why a check did not pass.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It took the connection, and not what was sent or no time to answer it.
    #[error("check {addr}: no answer in {limit:?}{}", Got(got))]
    Timeout {
        addr: SocketAddr,
        limit: Duration,
        got: Box<[u8]>,
    },
    #[error("check {addr}: closed before it answered{}", Got(got))]
    Closed { addr: SocketAddr, got: Box<[u8]> },
    /// Its answer is another one.
    #[error("check {addr}: another answer than expected{}", Got(got))]
    Other { addr: SocketAddr, got: Box<[u8]> },
    #[error("check {addr}: {source}")]
    Tls {
        addr: SocketAddr,
        source: HandshakeError,
    },
    #[error("check {addr}: {source}")]
    Lost { addr: SocketAddr, source: io::Error },
}

impl CheckError {
    /// What this says of the upstream: that it lives, that it does not, or nothing.
    pub fn upstream_lives(&self, question: Question<'_>) -> Option<bool> {
        match self {
            // It took the connection, and that was all that it was asked for.
            Self::Dial(error) if question.expect.is_empty() => error.upstream_lives(),
            Self::Dial(error) => error.upstream_lives().map(|_| false),
            Self::Tls {
                source: HandshakeError::Unconfigured,
                ..
            } => None,
            _ => Some(false),
        }
    }
}

/// Who an upstream has to prove to be, and how it is spoken to.
pub type Secure = (Arc<ClientConfig>, ServerName<'static>);

/// Connects, sends, and reads until the answer has begun as expected or cannot any more; all within `limit`.
///
/// Cancel safety: dropping it closes the connection.
pub async fn check(
    addr: SocketAddr,
    options: Options,
    secure: Option<Secure>,
    question: Question<'_>,
    limit: Duration,
) -> Result<(), CheckError> {
    let until = Instant::now() + limit;
    let mut stream = dial(addr, options, limit).await?;
    let mut first = BytesMut::new();
    if let Some(version) = question.header {
        let lost = |source| CheckError::Lost { addr, source };
        let local = canonical(stream.local_addr().map_err(lost)?);
        proxy::encode_local(version, local, addr, &mut first);
    }
    if let Some((config, name)) = secure {
        let left = until.saturating_duration_since(Instant::now());
        let shaken = async {
            // What is not sent now is missed by the handshake.
            let _ = timeout_at(until, send(&stream, &first)).await;
            first.clear();
            tls::connect(&mut stream, &config, name, left).await
        };
        // Boxed: most upstreams are plain.
        let shaken = Box::pin(shaken).await;
        shaken.map_err(|source| CheckError::Tls { addr, source })?;
    }
    first.extend_from_slice(question.send);
    if question.expect.is_empty() {
        // The connection was the answer: one that cuts short what it is told is up all the same.
        let _ = timeout_at(until, send(&stream, &first)).await;
        return Ok(());
    }
    let mut got = Vec::new();
    let talk = async {
        send(&stream, &first).await?;
        answer(&stream, question.expect, &mut got).await
    };
    let talked = timeout_at(until, talk).await;
    let got = got.into_boxed_slice();
    match talked {
        Ok(Ok(Answer::Expected)) => Ok(()),
        Ok(Ok(Answer::Other)) => Err(CheckError::Other { addr, got }),
        Ok(Ok(Answer::Closed)) => Err(CheckError::Closed { addr, got }),
        Ok(Err(source)) => Err(CheckError::Lost { addr, source }),
        Err(_) => Err(CheckError::Timeout { addr, limit, got }),
    }
}

async fn send(stream: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

enum Answer {
    Expected,
    Other,
    Closed,
}

async fn answer(stream: &Stream, expect: &[u8], got: &mut Vec<u8>) -> io::Result<Answer> {
    let mut chunk = [0; MAX_ANSWER];
    loop {
        let compared = got.len().min(expect.len());
        if got[..compared] != expect[..compared] || expect.len() > MAX_ANSWER {
            return Ok(Answer::Other);
        }
        if compared == expect.len() {
            return Ok(Answer::Expected);
        }
        match stream.try_read(&mut chunk[got.len()..]) {
            Ok(0) => return Ok(Answer::Closed),
            Ok(read) => {
                let read = got.len()..got.len() + read;
                got.extend_from_slice(&chunk[read]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error),
        }
    }
}

/// What came, in an error.
struct Got<'g>(&'g [u8]);

impl fmt::Display for Got<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let shown = &self.0[..self.0.len().min(SHOWN)];
        write!(f, ", but `{}`", shown.escape_ascii())
    }
}

#[cfg(test)]
mod tests;
