//! What is in the files: certificates, keys, and whether they can be used now.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

use super::algorithm::{OTHER_KEYS, OWN_KEYS, unsupported_other, unsupported_own};
use super::pem::{ders, private_key};
use super::provider;
use crate::conf::{CertSource, CertTexts};
use crate::diag::{Diagnostic, Severity, Source, printable};

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
    let unsupported = unsupported_own(&private);
    let signing = provider().key_provider.load_private_key(private);
    let signing = signing.map_err(|_| {
        let what = unsupported.unwrap_or_else(|| "a key that cannot be read".to_owned());
        found(key, format!("found {what}; expected {OWN_KEYS}"))
    })?;
    let public = signing.public_key();
    let public = public.as_ref().map(AsRef::as_ref);
    let chain = in_order(chain, public).ok_or_else(|| {
        let cert = printable(&cert.path.to_string_lossy()).into_owned();
        found(
            key,
            format!("the key does not fit the certificate in {cert}"),
        )
    })?;
    Ok(Some(CertifiedKey::new(chain, signing)))
}

/// The certificate of this public key, each one followed by that of its issuer, then the others as they were.
fn in_order(
    mut rest: Vec<CertificateDer<'static>>,
    public: Option<&[u8]>,
) -> Option<Vec<CertificateDer<'static>>> {
    let is_own = |it: &X509Certificate<'_>| public.is_none_or(|key| it.public_key().raw == key);
    let mut next = rest
        .iter()
        .position(|der| parsed(der).is_some_and(|it| is_own(&it)));
    next?;
    let mut chain = Vec::with_capacity(rest.len());
    while let Some(at) = next {
        let der = rest.remove(at);
        next = parsed(&der).and_then(|last| {
            let issuer = last.issuer().as_raw();
            let is_issuer = |it: X509Certificate<'_>| it.subject().as_raw() == issuer;
            rest.iter()
                .position(|der| parsed(der).is_some_and(is_issuer))
        });
        chain.push(der);
    }
    chain.append(&mut rest);
    Some(chain)
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    parse_x509_certificate(der).ok().map(|(_, it)| it)
}

/// The certificates of authorities, of which one is good now at least.
pub(super) fn authorities(
    texts: &CertTexts,
    now: SystemTime,
) -> Result<Vec<(CertificateDer<'static>, Certificate)>, Diagnostic> {
    let ca = texts.ca.as_ref().ok_or_else(|| missing(texts, "ca"))?;
    let is_system = matches!(texts.source, CertSource::System { .. });
    let mut all = Vec::new();
    for der in ders(ca)? {
        match look(ca, &der) {
            Ok(certificate) => all.push((der, certificate)),
            // The operator cannot mend the bundle of the system.
            Err(_) if is_system => {}
            Err(wrong) => return Err(wrong),
        }
    }
    let goods = all
        .iter()
        .map(|(der, it)| good_at(ca, it, now).and_then(|()| usable(ca, der, it)));
    // What is wrong with the last one is said where none is good.
    goods.reduce(Result::or).unwrap_or(Ok(()))?;
    Ok(all)
}

/// Errors: no signature is verified by the key of this CA.
fn usable(ca: &Source, der: &CertificateDer<'_>, it: &Certificate) -> Result<(), Diagnostic> {
    let unsupported = parsed(der).and_then(|it| unsupported_other(it.public_key().raw));
    let Some(what) = unsupported else {
        return Ok(());
    };
    let message = format!("the CA {} has {what}; expected {OTHER_KEYS}", it.subject);
    Err(found(ca, message))
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

fn look(source: &Source, der: &CertificateDer<'_>) -> Result<Certificate, Diagnostic> {
    let parsed =
        parsed(der).ok_or_else(|| found(source, "a certificate in it is not valid X.509"))?;
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
