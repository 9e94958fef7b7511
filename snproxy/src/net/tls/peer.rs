//! TLS between proxies: both ends show a certificate of the same authority.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;

use super::certificate::{missing, own};
use super::config::in_ca;
use super::provider;
use super::sessions::{ClientConfig, ServerConfig};
use super::verifier::{Authorities, Called, Callers};
use crate::conf::CertTexts;
use crate::diag::Diagnostic;

/// Both roles of a proxy.
#[derive(Debug)]
pub struct PeerConfigs {
    /// It is called.
    pub server: Arc<ServerConfig>,
    /// It calls.
    pub client: Arc<ClientConfig>,
}

/// What a proxy calls others with, and answers them. Both are of today: TLS 1.3 only.
///
/// Errors: what is wrong, in which file.
pub fn peer_configs(
    texts: &CertTexts,
    verify_host: bool,
    now: SystemTime,
) -> Result<Arc<PeerConfigs>, Diagnostic> {
    let own = own(texts, now)?.ok_or_else(|| missing(texts, "cert"))?;
    let own = Arc::new(SingleCertAndKey::from(own));
    let authorities = Arc::new(Authorities::new(texts, now)?);
    let callers = Callers::new(Arc::clone(&authorities), true);
    let called = Called {
        authorities: Some(Arc::clone(&authorities)),
        is_named: verify_host,
    };
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| in_ca(texts, &error))?
        .with_client_cert_verifier(Arc::new(callers))
        .with_cert_resolver(Arc::clone(&own) as _);
    let client = rustls::ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| in_ca(texts, &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(called))
        .with_client_cert_resolver(own);
    Ok(Arc::new(PeerConfigs {
        server: ServerConfig::of_server(server, Some(Arc::clone(&authorities))),
        client: ClientConfig::of_client(client, Some(authorities)),
    }))
}
