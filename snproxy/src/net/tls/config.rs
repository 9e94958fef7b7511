//! rustls configurations, of servers and of clients.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::{authorities, found, missing, own};
use super::provider;
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
            let roots = Arc::new(roots(texts, now)?);
            let mut builder =
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider()));
            if verify == ClientVerify::Optional {
                builder = builder.allow_unauthenticated();
            }
            builder.build().map_err(|error| in_ca(texts, &error))?
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
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        UpstreamVerify::None => Arc::new(Anybody),
        UpstreamVerify::Ca => {
            let roots = Arc::new(roots(texts, now)?);
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider()))
                .build()
                .map_err(|error| in_ca(texts, &error))?
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| in_ca(texts, &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(alpn);
    Ok(Arc::new(config))
}

pub(super) fn roots(texts: &CertTexts, now: SystemTime) -> Result<RootCertStore, Diagnostic> {
    let mut roots = RootCertStore::empty();
    for authority in authorities(texts, now)? {
        roots.add(authority).map_err(|error| in_ca(texts, &error))?;
    }
    Ok(roots)
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

/// Believes whoever holds the key of the certificate that he shows: `verify=none`.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
