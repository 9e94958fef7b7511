//! X.509 version 1 certificates of servers and clients, as `openssl x509 -req` without `-extfile` makes them.
//!
//! They have no extensions: neither names nor purposes nor a mark that tells a CA from a server. One is therefore
//! accepted only where a CA of ca.pem signed it directly, and it never signs another one. Its name is its CN.

use std::net::IpAddr;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore};
use rustls_pki_types::{
    ServerName, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;

use super::der::{BIT_STRING, Der, INTEGER, SEQUENCE, bits};

/// A certificate of version 1.
pub(super) struct Version1<'a> {
    /// What is signed, with its header.
    signed: &'a [u8],
    /// Contents of the `AlgorithmIdentifier` of the signature.
    algorithm: &'a [u8],
    signature: &'a [u8],
    /// Contents of the name.
    issuer: &'a [u8],
    spki: &'a [u8],
    parsed: X509Certificate<'a>,
}

impl<'a> Version1<'a> {
    /// `None`: the certificate has another version, or is broken.
    pub(super) fn of(der: &'a [u8]) -> Option<Self> {
        let mut outer = Der(Der(der).take(SEQUENCE)?);
        let (tag, contents, signed) = outer.next()?;
        let mut inner = Der(contents);
        // Other versions begin with their number, `[0]`.
        inner.take(INTEGER).filter(|_| tag == SEQUENCE)?;
        let algorithm = inner.take(SEQUENCE)?;
        let issuer = inner.take(SEQUENCE)?;
        let (_validity, _subject) = (inner.take(SEQUENCE)?, inner.take(SEQUENCE)?);
        let (tag, _, spki) = inner.next()?;
        let signed_with = outer.take(SEQUENCE)?;
        let signature = bits(outer.take(BIT_STRING)?)?;
        let is_whole = tag == SEQUENCE && inner.0.is_empty() && outer.0.is_empty();
        if !is_whole || signed_with != algorithm {
            return None;
        }
        let (rest, parsed) = parse_x509_certificate(der).ok()?;
        rest.is_empty().then_some(Self {
            signed,
            algorithm,
            signature,
            issuer,
            spki,
            parsed,
        })
    }

    /// Verifies that a CA of `roots` signed it, and that it is valid now.
    pub(super) fn verify(
        &self,
        roots: &RootCertStore,
        algorithms: &WebPkiSupportedAlgorithms,
        now: UnixTime,
    ) -> Result<(), Error> {
        verify_dates(&self.parsed, now)?;
        // What a CA is limited to cannot be verified without extensions.
        let issuers = roots.roots.iter().filter(|anchor| {
            anchor.subject.as_ref() == self.issuer && anchor.name_constraints.is_none()
        });
        let mut wrong = CertificateError::UnknownIssuer;
        for issuer in issuers {
            if verify(
                algorithms.all.iter().filter(|it| {
                    let id: &[u8] = &it.signature_alg_id();
                    id == self.algorithm
                }),
                &issuer.subject_public_key_info,
                self.signed,
                self.signature,
            ) {
                return Ok(());
            }
            wrong = CertificateError::BadSignature;
        }
        Err(wrong.into())
    }

    /// Verifies that it is for this name. It has no `subjectAltName`, so that its one CN counts, without wildcards.
    pub(super) fn verify_name(&self, name: &ServerName<'_>) -> Result<(), Error> {
        let mut names = self.parsed.subject().iter_common_name();
        let (first, second) = (names.next(), names.next());
        let own = first.filter(|_| second.is_none());
        let own = own.and_then(|own| own.as_str().ok()).unwrap_or_default();
        let is_it = match name {
            ServerName::DnsName(name) => own.eq_ignore_ascii_case(name.as_ref()),
            ServerName::IpAddress(ip) => own.parse() == Ok(IpAddr::from(*ip)),
            _ => false,
        };
        if is_it {
            Ok(())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    /// Verifies a signature of a handshake in TLS 1.2.
    pub(super) fn verify_tls12(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, Error> {
        let of_scheme = algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme);
        let spki = Der(self.spki).take(SEQUENCE).unwrap_or_default();
        let all = of_scheme.map_or(&[][..], |(_, all)| all);
        if verify(all.iter(), spki, message, signed.signature()) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    /// The same in TLS 1.3.
    pub(super) fn verify_tls13(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(self.spki);
        verify_tls13_signature_with_raw_key(message, &spki, signed, algorithms)
    }
}

/// Verifies that a certificate is valid now.
pub(super) fn verify_dates(parsed: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now > validity.not_after.timestamp() {
        Err(CertificateError::Expired.into())
    } else if now < validity.not_before.timestamp() {
        Err(CertificateError::NotValidYet.into())
    } else {
        Ok(())
    }
}

/// Whether one of the algorithms, with the key of `spki`, made this signature; `spki` has no header of its own.
fn verify<'a>(
    mut algorithms: impl Iterator<Item = &'a &'static dyn SignatureVerificationAlgorithm>,
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let mut spki = Der(spki);
    let (Some(id), Some(key)) = (spki.take(SEQUENCE), spki.take(BIT_STRING).and_then(bits)) else {
        return false;
    };
    algorithms.any(|algorithm| {
        let expected: &[u8] = &algorithm.public_key_alg_id();
        expected == id && algorithm.verify_signature(key, message, signature).is_ok()
    })
}
