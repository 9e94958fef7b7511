//! rustls configurations, of servers and of clients.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};

use super::certificate::{found, missing, own};
use super::provider;
use super::verifier::{Authorities, Called, Callers};
use crate::conf::{CertTexts, ClientVerify, UpstreamVerify};
use crate::diag::Diagnostic;

/// What terminates TLS with these certificates.
///
/// Errors: what is wrong, in which file.
pub fn server_config(
    texts: &CertTexts,
    verify: ClientVerify,
    alpn: &[Box<str>],
    now: SystemTime,
) -> Result<Arc<ServerConfig>, Diagnostic> {
    let own = own(texts, now)?.ok_or_else(|| missing(texts, "cert"))?;
    let verifier: Arc<dyn ClientCertVerifier> = match verify {
        ClientVerify::None => WebPkiClientVerifier::no_client_auth(),
        ClientVerify::Require | ClientVerify::Optional => {
            let authorities = Arc::new(Authorities::new(texts, now)?);
            let is_required = verify == ClientVerify::Require;
            Arc::new(Callers::new(authorities, is_required))
        }
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| in_ca(texts, &error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = protocols(alpn);
    Ok(Arc::new(config))
}

/// What speaks TLS to a server with these certificates; its own is shown if there is one.
///
/// Errors: what is wrong, in which file.
pub fn client_config(
    texts: &CertTexts,
    verify: UpstreamVerify,
    alpn: &[Box<str>],
    now: SystemTime,
) -> Result<Arc<ClientConfig>, Diagnostic> {
    let own = own(texts, now)?;
    let authorities = match verify {
        UpstreamVerify::None => None,
        UpstreamVerify::Ca => Some(Arc::new(Authorities::new(texts, now)?)),
    };
    let called = Called {
        authorities,
        is_named: true,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| in_ca(texts, &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(called));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(alpn);
    Ok(Arc::new(config))
}

pub(super) fn in_ca(texts: &CertTexts, error: &impl std::fmt::Display) -> Diagnostic {
    match &texts.ca {
        Some(ca) => found(
            ca,
            format!("a certificate in it cannot be an authority: {error}"),
        ),
        None => missing(texts, "ca"),
    }
}

fn protocols(alpn: &[Box<str>]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}
