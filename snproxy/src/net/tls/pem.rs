//! PEM files: sections of certificates and keys, and what is in a file instead.

use std::borrow::Cow;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::found;
use crate::diag::{Diagnostic, Source, printable};

/// Most certificates of one file: those of a system are some hundreds.
const MAX_CERTIFICATES: usize = 1024;
/// How OpenSSL marks a key that it encrypted itself. Source: RFC 1421 section 4.6.1.1.
const PROC_TYPE: &str = "Proc-Type: 4,ENCRYPTED";

/// All certificates of a file, at least one.
pub(super) fn ders(source: &Source) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let text = text(source)?;
    let all = CertificateDer::pem_slice_iter(text.as_bytes());
    let ders: Result<Vec<_>, _> = all.take(MAX_CERTIFICATES + 1).collect();
    let ders = ders.map_err(|error| bad_pem(source, &error))?;
    match ders.len() {
        0 => Err(no_certificate(source)),
        1..=MAX_CERTIFICATES => Ok(ders),
        _ => Err(found(
            source,
            format!("more than {MAX_CERTIFICATES} certificates"),
        )),
    }
}

fn no_certificate(source: &Source) -> Diagnostic {
    let file = printable(&source.path.to_string_lossy()).into_owned();
    let instead = [
        (
            "BEGIN TRUSTED CERTIFICATE",
            format!(
                ": a TRUSTED CERTIFICATE is OpenSSL's own form; convert it with `openssl x509 -in {file} -out FILE`"
            ),
        ),
        (
            "BEGIN PKCS7",
            format!(": PKCS#7; convert it with `openssl pkcs7 -print_certs -in {file} -out FILE`"),
        ),
        ("PRIVATE KEY", ": it has a private key".to_owned()),
        (
            "BEGIN CERTIFICATE REQUEST",
            ": a request is not a certificate yet".to_owned(),
        ),
    ];
    let instead = instead
        .into_iter()
        .find(|(mark, _)| source.text.contains(mark));
    let instead = instead.map_or_else(String::new, |(_, message)| message);
    found(source, format!("no certificate in it{instead}"))
}

/// The first private key of a file; parameters ahead of it are passed over.
pub(super) fn private_key(source: &Source) -> Result<PrivateKeyDer<'static>, Diagnostic> {
    let text = text(source)?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        let file = printable(&source.path.to_string_lossy()).into_owned();
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains(PROC_TYPE) {
            let message = format!(
                "the private key is encrypted, and snproxy has no passphrase; \
                 decrypt it with `openssl pkey -in {file} -out FILE`"
            );
            return found(source, message);
        }
        if text.contains("BEGIN DSA PRIVATE KEY") {
            let message = format!("found a DSA key; expected {}", super::algorithm::OWN_KEYS);
            return found(source, message);
        }
        match error {
            pem::Error::NoItemsFound => found(source, "no private key in it"),
            error => bad_pem(source, &error),
        }
    })
}

/// A text in which all sections have the names of RFC 7468. Windows writes a mark of its byte order ahead of it.
fn text(source: &Source) -> Result<Cow<'_, str>, Diagnostic> {
    let text = source.text.as_str();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains('\0') && !text.contains("-----BEGIN") && text.contains('-') && !is_der(text) {
        return Err(found(
            source,
            "found UTF-16; save the file as ASCII or UTF-8",
        ));
    }
    if is_der(text) {
        let file = printable(&source.path.to_string_lossy()).into_owned();
        let message = format!(
            "expected PEM, found DER or PKCS#12; convert it with `openssl x509 -inform der -in {file} -out FILE`, \
             a key with `openssl pkey -inform der`, PKCS#12 with `openssl pkcs12`"
        );
        return Err(found(source, message));
    }
    Ok(if text.contains(" X509 CERTIFICATE-----") {
        Cow::Owned(text.replace(" X509 CERTIFICATE-----", " CERTIFICATE-----"))
    } else {
        Cow::Borrowed(text)
    })
}

/// Whether a file begins with a SEQUENCE, whose tag is the digit 0, and has no section.
fn is_der(text: &str) -> bool {
    text.starts_with('0') && !text.contains("-----BEGIN")
}

fn bad_pem(source: &Source, error: &pem::Error) -> Diagnostic {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no END line".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is broken".to_owned(),
        pem::Error::Base64Decode(_) => "a section is no base64".to_owned(),
        error => format!("{error:?}"),
    };
    found(source, format!("bad PEM: {why}"))
}
