//! What is in the files: certificates, keys, and whether they can be used now.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls::Error;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::time::ASN1Time;

use super::provider;
use crate::conf::CertTexts;
use crate::diag::{Diagnostic, Severity, Source, printable};

/// Most certificates of one file: those of a system are some hundreds.
const MAX_CERTIFICATES: usize = 1024;
/// Longest name of whom a certificate is for, as shown, in characters.
const MAX_SUBJECT: usize = 200;

/// A certificate, as it is shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    pub file: PathBuf,
    pub subject: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// All of a set that can be read.
pub fn certificates(texts: &CertTexts) -> Vec<Certificate> {
    let files = [&texts.ca, &texts.cert].into_iter().flatten();
    let read = files.filter_map(|source| Some((source, ders(source).ok()?)));
    read.flat_map(|(source, ders)| {
        let looked = move |der: CertificateDer<'static>| look(source, &der).ok();
        ders.into_iter().filter_map(looked)
    })
    .collect()
}

/// The chain and key by which this end proves who it is; `None` where neither is there.
pub(super) fn own(texts: &CertTexts, now: SystemTime) -> Result<Option<CertifiedKey>, Diagnostic> {
    let (cert, key) = match (&texts.cert, &texts.key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (None, Some(_)) => return Err(missing(texts, "cert")),
        (Some(_), None) => return Err(missing(texts, "key")),
    };
    let chain = ders(cert)?;
    for der in &chain {
        good_at(cert, &look(cert, der)?, now)?;
    }
    let private = private_key(key)?;
    CertifiedKey::from_der(chain, private, provider())
        .map(Some)
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let cert = printable(&cert.path.to_string_lossy()).into_owned();
                let message = format!("the key does not fit the certificate in {cert}");
                found(key, message)
            }
            error => found(key, format!("the private key cannot be used: {error}")),
        })
}

/// The certificates of authorities, of which one is good now at least.
pub(super) fn authorities(
    texts: &CertTexts,
    now: SystemTime,
) -> Result<Vec<(CertificateDer<'static>, Certificate)>, Diagnostic> {
    let ca = texts.ca.as_ref().ok_or_else(|| missing(texts, "ca"))?;
    let mut all = Vec::new();
    for der in ders(ca)? {
        let certificate = look(ca, &der)?;
        all.push((der, certificate));
    }
    let goods = all.iter().map(|(_, it)| good_at(ca, it, now));
    // What is wrong with the last one is said where none is good.
    goods.reduce(Result::or).unwrap_or(Ok(()))?;
    Ok(all)
}

pub(super) fn missing(texts: &CertTexts, name: &str) -> Diagnostic {
    let place = texts.source.place_of(name);
    let message = if place.is_some() {
        "no such file".to_owned()
    } else {
        format!("{name}= is missing: which file has it?")
    };
    let place = place.unwrap_or_else(|| texts.source.to_string().into());
    Diagnostic::of_file(place, Severity::Error, message)
}

pub(super) fn found(source: &Source, message: impl Into<String>) -> Diagnostic {
    Diagnostic::of_file(&source.path, Severity::Error, message)
}

/// All certificates of a file, at least one.
fn ders(source: &Source) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let all = CertificateDer::pem_slice_iter(source.text.as_bytes());
    let ders: Result<Vec<_>, _> = all.take(MAX_CERTIFICATES + 1).collect();
    let ders = ders.map_err(|error| bad_pem(source, &error))?;
    match ders.len() {
        0 => Err(found(source, "no certificate in it")),
        1..=MAX_CERTIFICATES => Ok(ders),
        _ => Err(found(
            source,
            format!("more than {MAX_CERTIFICATES} certificates"),
        )),
    }
}

fn private_key(source: &Source) -> Result<PrivateKeyDer<'static>, Diagnostic> {
    PrivateKeyDer::from_pem_slice(source.text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound if source.text.contains("ENCRYPTED PRIVATE KEY") => found(
            source,
            "the private key is encrypted: nobody is there to be asked for its passphrase",
        ),
        pem::Error::NoItemsFound => found(source, "no private key in it"),
        error => bad_pem(source, &error),
    })
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

fn look(source: &Source, der: &CertificateDer<'_>) -> Result<Certificate, Diagnostic> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der)
        .map_err(|_| found(source, "a certificate in it is none: no X.509"))?;
    let subject: String = parsed.subject().to_string();
    let subject: String = printable(&subject).chars().take(MAX_SUBJECT).collect();
    let validity = parsed.validity();
    Ok(Certificate {
        file: source.path.clone(),
        subject,
        not_before: time(validity.not_before),
        not_after: time(validity.not_after),
    })
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let away = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(away)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(away)
    };
    shifted.unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Certificate {
    /// The day on which it ends: `2026-11-21`.
    pub fn last_day(&self) -> String {
        day(self.not_after)
    }

    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// In UTC.
fn day(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    let time = ASN1Time::from_timestamp(seconds);
    time.map_or_else(
        |_| "?".to_owned(),
        |time| time.to_datetime().date().to_string(),
    )
}

fn good_at(source: &Source, certificate: &Certificate, now: SystemTime) -> Result<(), Diagnostic> {
    let Certificate {
        subject,
        not_before,
        not_after,
        ..
    } = certificate;
    if now > *not_after {
        let message = format!(
            "the certificate of {subject} expired on {}",
            day(*not_after)
        );
        return Err(found(source, message));
    }
    if now < *not_before {
        let message = format!(
            "the certificate of {subject} is not valid before {}",
            day(*not_before)
        );
        return Err(found(source, message));
    }
    Ok(())
}
