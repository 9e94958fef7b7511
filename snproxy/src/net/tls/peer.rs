//! TLS between proxies: both ends show a certificate of the same authority.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::verify_tls13_signature;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::{missing, own};
use super::config::{in_ca, roots};
use super::provider;
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
    let roots = Arc::new(roots(texts, now)?);
    let callers =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider().clone())
            .build()
            .map_err(|error| in_ca(texts, &error))?;
    let called: Arc<dyn ServerCertVerifier> = if verify_host {
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider()))
            .build()
            .map_err(|error| in_ca(texts, &error))?
    } else {
        Arc::new(OneOfUs { roots })
    };
    let server = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| in_ca(texts, &error))?
        .with_client_cert_verifier(callers)
        .with_cert_resolver(Arc::clone(&own) as _);
    let client = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| in_ca(texts, &error))?
        .dangerous()
        .with_custom_certificate_verifier(called)
        .with_client_cert_resolver(own);
    Ok(Arc::new(PeerConfigs {
        server: Arc::new(server),
        client: Arc::new(client),
    }))
}

/// Believes whoever shows a certificate of the authority, for whichever name: hosts are known by their addresses, which
/// change more often than certificates.
#[derive(Debug)]
struct OneOfUs {
    roots: Arc<RootCertStore>,
}

impl ServerCertVerifier for OneOfUs {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = ParsedCertificate::try_from(shown)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&shown, &self.roots, chain, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
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
