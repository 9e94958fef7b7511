//! TLS: configurations out of certificates, and handshakes.
//!
//! What is wrong with a certificate is said of the file that it is in. One provider of cryptography serves all of it.

mod algorithm;
mod certificate;
mod config;
mod der;
mod peer;
mod pem;
mod sessions;
mod verifier;
mod version1;
mod words;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;
use tokio::time::timeout;

use crate::conf::{ClientTls, PeerTls, UpstreamTls};
use crate::sys::stream::Stream;

pub use certificate::{Certificate, certificates};
pub use config::{client_config, server_config};
pub use peer::{PeerConfigs, peer_configs};
pub use sessions::{ClientConfig, ServerConfig, Sessions};
pub use words::message;

/// The one provider of cryptography.
fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    &PROVIDER
}

/// What the ports of a table need for TLS, ready to be used.
#[derive(Debug, Default)]
pub struct Configs {
    pub clients: HashMap<Arc<ClientTls>, Arc<ServerConfig>>,
    pub upstreams: HashMap<Arc<UpstreamTls>, Arc<ClientConfig>>,
    pub peers: HashMap<Arc<PeerTls>, Arc<PeerConfigs>>,
}

/// Why a handshake gave no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("TLS handshake: not done in {limit:?}")]
    Timeout { limit: Duration },
    /// The other end left, or either one refused.
    #[error("TLS handshake: {}", words::message(.0))]
    Refused(io::Error),
    #[error("TLS: no certificates for this port")]
    Unconfigured,
}

/// Terminates TLS of whoever connected; `records` were read already.
///
/// Errors: of `Refused` the other end was told.
/// Cancel safety: dropping it leaves a connection that is good for nothing.
pub async fn accept(
    stream: &mut Stream,
    config: &ServerConfig,
    records: &[u8],
    limit: Duration,
) -> Result<(), HandshakeError> {
    let connection =
        ServerConnection::new(config.config()).map_err(|error| refused(io::Error::other(error)))?;
    stream.start_tls(connection.into(), records);
    shake_hands(stream, limit).await
}

/// Speaks TLS to whoever was dialled, who has to be `name`.
///
/// Errors and cancel safety: as of [`accept`].
pub async fn connect(
    stream: &mut Stream,
    config: &ClientConfig,
    name: ServerName<'static>,
    limit: Duration,
) -> Result<(), HandshakeError> {
    let connection = ClientConnection::new(config.config(), name)
        .map_err(|error| refused(io::Error::other(error)))?;
    stream.start_tls(connection.into(), &[]);
    shake_hands(stream, limit).await
}

async fn shake_hands(stream: &Stream, limit: Duration) -> Result<(), HandshakeError> {
    match timeout(limit, stream.shake_hands()).await {
        Ok(shaken) => shaken.map_err(refused),
        Err(_) => Err(HandshakeError::Timeout { limit }),
    }
}

fn refused(error: io::Error) -> HandshakeError {
    HandshakeError::Refused(error)
}

#[cfg(test)]
mod tests;
