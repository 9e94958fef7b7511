//! Who is believed in a handshake: whoever shows a certificate of an authority that is valid at that time.
//!
//! A chain is verified up to an authority whose own dates are nobody's business to `rustls`. They are looked at here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use tracing::{error, warn};
use x509_parser::parse_x509_certificate;

use super::certificate::{Certificate, authorities};
use super::config::in_ca;
use super::provider;
use super::version1::{Version1, verify_dates};
use crate::conf::{CertSource, CertTexts};
use crate::diag::{Diagnostic, printable};

/// Those whose signature makes a certificate believed, each from its first day to its last.
#[derive(Debug)]
pub(super) struct Authorities {
    all: Vec<(TrustAnchor<'static>, Certificate)>,
    current: Mutex<Current>,
    /// Their certificates, which a server or client may show itself; empty for those of the system.
    own: Vec<CertificateDer<'static>>,
    is_system: bool,
}

/// Those of some time.
#[derive(Debug)]
struct Current {
    roots: Arc<RootCertStore>,
    from: SystemTime,
    until: Option<SystemTime>,
}

impl Authorities {
    /// Errors: none of them is good, in which file.
    pub(super) fn new(texts: &CertTexts, now: SystemTime) -> Result<Self, Diagnostic> {
        let mut store = RootCertStore::empty();
        let mut own = Vec::new();
        let mut shown = Vec::new();
        let is_system = matches!(texts.source, CertSource::System { .. });
        for (der, certificate) in authorities(texts, now)? {
            match store.add(der.clone()) {
                Ok(()) => {
                    shown.push(certificate);
                    if !is_system {
                        own.push(der);
                    }
                }
                // The operator cannot mend the bundle of the system.
                Err(_) if is_system => {}
                Err(error) => return Err(in_ca(texts, &error)),
            }
        }
        let all: Vec<_> = store.roots.into_iter().zip(shown).collect();
        let current = Mutex::new(Current::of(&all, now));
        Ok(Self {
            all,
            current,
            own,
            is_system,
        })
    }

    /// Those who are valid now, which may be none.
    pub(super) fn at(&self, now: UnixTime) -> Arc<RootCertStore> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now < current.from || current.until.is_some_and(|until| now >= until) {
            let before = current.from;
            *current = Current::of(&self.all, now);
            self.say_expired(before, now, current.roots.is_empty());
        }
        Arc::clone(&current.roots)
    }

    /// Verifies what no path leads to: a certificate that is itself in ca.pem, or one of version 1. `None`: it is
    /// another one.
    fn verify_directly(
        &self,
        shown: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Option<Result<(), Error>> {
        if self.own.iter().any(|own| own == shown) {
            let parsed = parse_x509_certificate(shown).ok();
            return parsed.map(|(_, parsed)| verify_dates(&parsed, now));
        }
        if self.is_system {
            return None;
        }
        let algorithms = &provider().signature_verification_algorithms;
        Version1::of(shown).map(|it| it.verify(&self.at(now), algorithms, now))
    }

    /// When one of them begins or ends next.
    pub(super) fn change(&self, now: SystemTime) -> Option<SystemTime> {
        change(&self.all, now)
    }

    fn say_expired(&self, before: SystemTime, now: SystemTime, is_none_left: bool) {
        let certificates = self.all.iter().map(|(_, certificate)| certificate);
        for certificate in certificates.filter(|it| it.is_valid(before) && it.not_after < now) {
            let Certificate { subject, file, .. } = certificate;
            let file = printable(&file.to_string_lossy()).into_owned();
            if is_none_left {
                error!(
                    file,
                    "the authority {subject} expired, and no other is left: whoever has to show a certificate is refused"
                );
            } else if !self.is_system {
                warn!(
                    file,
                    "the authority {subject} expired: its certificates are believed no more"
                );
            }
        }
    }
}

impl Current {
    fn of(all: &[(TrustAnchor<'static>, Certificate)], now: SystemTime) -> Self {
        let valid = all.iter().filter(|(_, it)| it.is_valid(now));
        let roots = valid.map(|(anchor, _)| anchor.clone()).collect();
        Self {
            roots: Arc::new(roots),
            from: now,
            until: change(all, now),
        }
    }
}

fn change(all: &[(TrustAnchor<'static>, Certificate)], now: SystemTime) -> Option<SystemTime> {
    // The last second of an authority is one of its own.
    let changes = all
        .iter()
        .flat_map(|(_, it)| [it.not_before, it.not_after + Duration::from_secs(1)]);
    changes.filter(|change| *change > now).min()
}

/// Those who are called: each holds the key of the certificate that it shows.
#[derive(Debug)]
pub(super) struct Called {
    /// One of these signed it; `None`: anybody may have.
    pub(super) authorities: Option<Arc<Authorities>>,
    /// It is for the name that was asked for. Proxies are known by their addresses, which change more often than
    /// certificates.
    pub(super) is_named: bool,
}

/// Those who call: they are known by a certificate, and may have none where that is said.
#[derive(Debug)]
pub(super) struct Callers {
    authorities: Arc<Authorities>,
    is_required: bool,
    hints: Vec<DistinguishedName>,
}

impl Callers {
    pub(super) fn new(authorities: Arc<Authorities>, is_required: bool) -> Self {
        let anchors = authorities.all.iter().map(|(anchor, _)| anchor);
        let hints = anchors.map(|anchor| DistinguishedName::in_sequence(&anchor.subject));
        Self {
            hints: hints.collect(),
            authorities,
            is_required,
        }
    }
}

/// Whoever shows a certificate holds its key.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &provider().signature_verification_algorithms;
            match Version1::of(cert) {
                Some(it) => it.verify_tls12(message, signed, algorithms),
                None => verify_tls12_signature(message, cert, signed, algorithms),
            }
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &provider().signature_verification_algorithms;
            match Version1::of(cert) {
                Some(it) => it.verify_tls13(message, signed, algorithms),
                None => verify_tls13_signature(message, cert, signed, algorithms),
            }
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            let algorithms = &provider().signature_verification_algorithms;
            algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Called {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        if let Some(verified) = authorities.verify_directly(shown, now) {
            verified?;
            match Version1::of(shown) {
                _ if !self.is_named => {}
                Some(it) => it.verify_name(name)?,
                None => verify_server_name(&ParsedCertificate::try_from(shown)?, name)?,
            }
        } else {
            let shown = ParsedCertificate::try_from(shown)?;
            let (roots, algorithms) = (
                authorities.at(now),
                provider().signature_verification_algorithms.all,
            );
            verify_server_cert_signed_by_trust_anchor(&shown, &roots, chain, now, algorithms)?;
            if self.is_named {
                verify_server_name(&shown, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Callers {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(verified) = self.authorities.verify_directly(shown, now) {
            return verified.map(|()| ClientCertVerified::assertion());
        }
        let roots = self.authorities.at(now);
        // It is none without an authority.
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider())).build();
        let verifier = verifier.map_err(|_| CertificateError::UnknownIssuer)?;
        verifier.verify_client_cert(shown, chain, now)
    }

    signatures!();
}
