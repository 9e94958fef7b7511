//! Why a handshake failed, in the words of X.509.

use std::io;

use rustls::{CertificateError, Error};

use super::algorithm::OTHER_KEYS;

/// The message of an error of a handshake.
pub fn message(error: &io::Error) -> String {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(error)) => certificate(error),
        Some(Error::NoCertificatesPresented) => "the other side sent no certificate".to_owned(),
        _ => error.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the certificate of the other side is not signed by a trusted CA (ca.pem)".to_owned()
        }
        CertificateError::BadEncoding => {
            "the certificate of the other side is not valid X.509".to_owned()
        }
        CertificateError::BadSignature => {
            "a signature does not match the certificate of the other side, or that of its CA"
                .to_owned()
        }
        CertificateError::Expired => "the certificate of the other side expired".to_owned(),
        CertificateError::NotValidYet => {
            "the certificate of the other side is not valid yet".to_owned()
        }
        CertificateError::NotValidForName => {
            "the certificate of the other side is for another name".to_owned()
        }
        CertificateError::InvalidPurpose => {
            "the extendedKeyUsage of the certificate does not allow its use here".to_owned()
        }
        other => {
            let name = format!("{other:?}");
            if name.contains("UnsupportedCertVersion") {
                return "the certificate of the other side has X.509 version 1, which counts only \
                        where a CA of ca.pem signed it directly; reissue it with version 3 (-extfile)"
                    .to_owned();
            }
            if name.contains("CaUsedAsEndEntity") {
                return "the other side shows a CA certificate (basicConstraints CA:TRUE); reissue \
                        it with CA:FALSE, or put this certificate itself into ca.pem"
                    .to_owned();
            }
            if name.contains("UnsupportedSignatureAlgorithm") {
                return format!(
                    "the key or the signature of the certificate of the other side is not \
                     supported; expected {OTHER_KEYS}, signed with SHA-256 or better"
                );
            }
            format!("the certificate of the other side: {other}")
        }
    }
}
