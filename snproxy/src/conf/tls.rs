//! CLIENTTLS and UPSTREAMTLS: where certificates are, and who has to show one.

mod source;

use std::fmt::Write as _;
use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::port_value::{expected, unknown_option};
use super::text::{Field, Findings};
use super::value::{NONE, Named, choice, host_name};

pub use source::{CertSource, CertTexts};
pub(super) use source::{Certs, certs};
use source::{option, twice};

/// Most protocols that ALPN offers or takes.
const MAX_ALPN: usize = 16;
/// Longest name of one. Source: RFC 7301 section 3.1.
const MAX_PROTOCOL: usize = 255;

/// How TLS of clients is terminated.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ClientTls {
    pub certs: CertSource,
    pub verify: ClientVerify,
    /// Protocols that are taken, the preferred one first; empty: none is negotiated.
    pub alpn: Box<[Box<str>]>,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ClientVerify {
    /// Of the CA, if the set has one; otherwise the proxy does not request certificates.
    ByCa,
    /// Of the CA.
    Require,
    /// Of the CA, or none.
    Optional,
    /// Nobody asks.
    None,
}

/// How an upstream is spoken to in TLS.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct UpstreamTls {
    pub certs: CertSource,
    /// What it is asked for, and has to prove to be; `None`: the name or address by which it is known.
    pub name: Option<Box<str>>,
    /// Protocols that are offered; empty: none.
    pub alpn: Box<[Box<str>]>,
    pub verify: UpstreamVerify,
}

/// Whether an upstream has to prove who it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum UpstreamVerify {
    /// By a certificate of the CA, with its name.
    Ca,
    None,
}

impl Named for ClientVerify {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("require", Self::Require),
        ("optional", Self::Optional),
        ("none", Self::None),
    ];
}

impl Named for UpstreamVerify {
    const NAMES: &'static [(&'static str, Self)] = &[("ca", Self::Ca), ("none", Self::None)];
}

fn name_of<T: Named>(value: T) -> &'static str {
    let found = T::NAMES.iter().find(|(_, known)| *known == value);
    found.map_or("", |(name, _)| name)
}

#[expect(
    clippy::option_option,
    reason = "the outer `None` is a finding, the inner one is `none`: plain"
)]
pub(super) fn client_tls(
    value: Field<'_>,
    findings: &mut Findings<'_>,
) -> Option<Option<Arc<ClientTls>>> {
    if is_none(value) {
        return Some(None);
    }
    let said = said(value, &["verify=", "alpn="], findings)?;
    let verify = match said.verify {
        Some(word) => choice(word, findings)?,
        None => ClientVerify::ByCa,
    };
    let needed = match verify {
        ClientVerify::ByCa | ClientVerify::None => &["cert", "key"][..],
        ClientVerify::Require | ClientVerify::Optional => &["ca", "cert", "key"],
    };
    said.certs.need(needed, value, findings)?;
    let names_ca = matches!(said.certs.source, CertSource::Files { ca: Some(_), .. });
    let danger = match verify {
        ClientVerify::Optional => Some("clients without a certificate are served too"),
        ClientVerify::None if names_ca => Some("the file of ca= has no effect"),
        ClientVerify::ByCa | ClientVerify::Require | ClientVerify::None => None,
    };
    if let (Some(danger), Some(word)) = (danger, said.verify) {
        let name = name_of(verify);
        findings.warning(word.place, format_args!("verify={name}: {danger}"));
    }
    Some(Some(Arc::new(ClientTls {
        certs: said.certs.source,
        verify,
        alpn: said.alpn,
    })))
}

#[expect(
    clippy::option_option,
    reason = "the outer `None` is a finding, the inner one is `none`: plain"
)]
pub(super) fn upstream_tls(
    value: Field<'_>,
    findings: &mut Findings<'_>,
) -> Option<Option<Arc<UpstreamTls>>> {
    if is_none(value) {
        return Some(None);
    }
    let said = said(value, &["verify=", "name=", "alpn="], findings)?;
    let verify = match said.verify {
        Some(word) => choice(word, findings)?,
        None => UpstreamVerify::Ca,
    };
    let needed = match verify {
        UpstreamVerify::Ca => &["ca"][..],
        UpstreamVerify::None => &[],
    };
    said.certs.need(needed, value, findings)?;
    if let (UpstreamVerify::None, Some(word)) = (verify, said.verify) {
        let message = "verify=none: whoever answers is believed to be the upstream";
        findings.warning(word.place, message);
    }
    let name = match said.name {
        Some(name) => Some(server_name(name, findings)?),
        None => None,
    };
    Some(Some(Arc::new(UpstreamTls {
        certs: said.certs.source,
        name,
        alpn: said.alpn,
        verify,
    })))
}

pub(super) fn show_client_tls(tls: Option<&ClientTls>) -> String {
    let Some(tls) = tls else {
        return NONE.to_owned();
    };
    let mut shown = tls.certs.to_string();
    if tls.verify != ClientVerify::ByCa {
        shown.extend([" verify=", name_of(tls.verify)]);
    }
    show_alpn(&tls.alpn, &mut shown);
    shown
}

pub(super) fn show_upstream_tls(tls: Option<&UpstreamTls>) -> String {
    let Some(tls) = tls else {
        return NONE.to_owned();
    };
    let mut shown = tls.certs.to_string();
    if let Some(name) = &tls.name {
        let _ = write!(shown, " name={name}");
    }
    if tls.verify != UpstreamVerify::Ca {
        shown.extend([" verify=", name_of(tls.verify)]);
    }
    show_alpn(&tls.alpn, &mut shown);
    shown.trim_start().to_owned()
}

fn show_alpn(alpn: &[Box<str>], shown: &mut String) {
    if !alpn.is_empty() {
        shown.push_str(" alpn=");
        shown.push_str(&alpn.join(","));
    }
}

fn is_none(value: Field<'_>) -> bool {
    value.text.eq_ignore_ascii_case(NONE)
}

/// What the words of a value say.
struct Said<'a> {
    certs: Certs,
    verify: Option<Field<'a>>,
    name: Option<Field<'a>>,
    alpn: Box<[Box<str>]>,
}

/// `known` are the options that there are.
fn said<'a>(
    value: Field<'a>,
    known: &[&'static str],
    findings: &mut Findings<'_>,
) -> Option<Said<'a>> {
    let (certs, others) = certs(value, findings)?;
    let mut said = Said {
        certs,
        verify: None,
        name: None,
        alpn: Box::default(),
    };
    for word in others {
        let (option, text) = option(word);
        let is_said = match option {
            "verify" => said.verify.replace(text).is_some(),
            "name" if known.contains(&"name=") => said.name.replace(text).is_some(),
            "alpn" => {
                let before = std::mem::replace(&mut said.alpn, alpn(text, findings)?);
                !before.is_empty()
            }
            _ => {
                unknown_option(known, word, findings);
                return None;
            }
        };
        if is_said {
            twice(option, word, findings);
        }
    }
    Some(said)
}

fn alpn(list: Field<'_>, findings: &mut Findings<'_>) -> Option<Box<[Box<str>]>> {
    let protocols: Vec<Field<'_>> = list.split(|c| c == ',').collect();
    let is_name = |name: &Field<'_>| name.text.len() <= MAX_PROTOCOL;
    if protocols.is_empty() || protocols.len() > MAX_ALPN || !protocols.iter().all(is_name) {
        let what = format_args!("1 to {MAX_ALPN} protocols such as h2,http/1.1");
        expected(what, list, findings);
        return None;
    }
    Some(protocols.iter().map(|name| name.text.into()).collect())
}

fn server_name(word: Field<'_>, findings: &mut Findings<'_>) -> Option<Box<str>> {
    let name = host_name(word.text).ok();
    let name = name.filter(|name| ServerName::try_from(*name).is_ok());
    if name.is_none() {
        expected("a name or an address", word, findings);
    }
    name.map(Into::into)
}

#[cfg(test)]
mod tests;
