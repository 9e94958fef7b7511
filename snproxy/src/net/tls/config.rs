//! rustls configurations, of servers and of clients.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::SingleCertAndKey;

use super::certificate::{found, missing, own};
use super::provider;
use super::sessions::{ClientConfig, ServerConfig};
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
    let is_verified = match verify {
        ClientVerify::None => false,
        ClientVerify::Require | ClientVerify::Optional => true,
        ClientVerify::ByCa => texts.has_ca(),
    };
    let authorities = if is_verified {
        Some(Arc::new(Authorities::new(texts, now)?))
    } else {
        None
    };
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| in_ca(texts, &error))?;
    let builder = match &authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let is_required = verify != ClientVerify::Optional;
            let callers = Callers::new(Arc::clone(authorities), is_required);
            builder.with_client_cert_verifier(Arc::new(callers))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = protocols(alpn);
    Ok(ServerConfig::of_server(config, authorities))
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
        authorities: authorities.clone(),
        is_named: true,
    };
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| in_ca(texts, &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(called));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(alpn);
    Ok(ClientConfig::of_client(config, authorities))
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
