//! CLIENTTLS and UPSTREAMTLS: where certificates are, and who has to show one.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::port_value::{expected, unknown_option};
use super::text::{Field, Findings, is_blank};
use super::value::{NONE, Named, choice, host_name};
use crate::diag::{Source, printable};

/// Most protocols that ALPN offers or takes.
const MAX_ALPN: usize = 16;
/// Longest name of one. Source: RFC 7301 section 3.1.
const MAX_PROTOCOL: usize = 255;
/// Longest name of a bucket. Source: the bucket naming rules of S3.
const MAX_BUCKET: usize = 63;

/// Where a set of certificates is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum CertSource {
    /// Holds `ca.pem`, `cert.pem` and `key.pem`.
    Folder(PathBuf),
    /// The same three below a prefix, which has no `/` at either end.
    S3 { bucket: Box<str>, prefix: Box<str> },
    /// What is not said is not there.
    Files {
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
    },
}

impl CertSource {
    /// Paths that are not absolute are those of files beside proxy.conf.
    pub(super) fn beside(&mut self, folder: &Path) {
        let paths: Vec<&mut PathBuf> = match self {
            Self::Folder(path) => vec![path],
            Self::S3 { .. } => Vec::new(),
            Self::Files { ca, cert, key } => [ca, cert, key].into_iter().flatten().collect(),
        };
        for path in paths {
            *path = folder.join(&*path);
        }
    }
}

impl CertSource {
    /// The place of one of the three, by the name `ca`, `cert` or `key`; `None`: it is not said.
    pub fn place_of(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder.join(name).with_extension("pem")),
            Self::S3 { .. } => Some(format!("{self}/{name}.pem").into()),
            Self::Files { ca, cert, key } => match name {
                "ca" => ca.clone(),
                "cert" => cert.clone(),
                _ => key.clone(),
            },
        }
    }
}

/// The texts of a set of certificates, each with the place it came from; what is not there is `None`.
#[derive(Clone, Eq, PartialEq)]
pub struct CertTexts {
    pub source: CertSource,
    pub ca: Option<Source>,
    pub cert: Option<Source>,
    pub key: Option<Source>,
}

/// Without the texts: one of them is a secret.
impl fmt::Debug for CertTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CertTexts").field(&self.source).finish()
    }
}

/// In the form of proxy.conf.
impl fmt::Display for CertSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &Path| printable(&path.to_string_lossy()).into_owned();
        match self {
            Self::Folder(folder) => f.write_str(&path(folder)),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Files { ca, cert, key } => {
                let mut gap = "";
                for (name, file) in [("ca", ca), ("cert", cert), ("key", key)] {
                    if let Some(file) = file {
                        write!(f, "{gap}{name}={}", path(file))?;
                        gap = " ";
                    }
                }
                Ok(())
            }
        }
    }
}

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
        None => ClientVerify::Require,
    };
    let needed = match verify {
        ClientVerify::None => &["cert", "key"][..],
        _ => &["ca", "cert", "key"],
    };
    said.certs.need(needed, value, findings)?;
    let danger = match verify {
        ClientVerify::Require => None,
        ClientVerify::Optional => Some("clients without a certificate are served too"),
        ClientVerify::None => Some("no client has to show a certificate"),
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
    if tls.verify != ClientVerify::Require {
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

fn twice(option: &str, word: Field<'_>, findings: &mut Findings<'_>) {
    let message = format_args!("{option}= is already said: this one counts");
    findings.warning(word.place, message);
}

/// Certificates as said, and whether by their files.
pub(super) struct Certs {
    pub(super) source: CertSource,
}

impl Certs {
    pub(super) fn are_said(&self) -> bool {
        let nothing = CertSource::Files {
            ca: None,
            cert: None,
            key: None,
        };
        self.source != nothing
    }

    /// Those that a role cannot do without; a certificate and its key go together. A folder is looked into later.
    pub(super) fn need(
        &self,
        needed: &[&str],
        value: Field<'_>,
        findings: &mut Findings<'_>,
    ) -> Option<()> {
        let CertSource::Files { ca, cert, key } = &self.source else {
            return Some(());
        };
        let files = [("ca", ca), ("cert", cert), ("key", key)];
        let goes_with = cert.is_some() || key.is_some();
        let missing = files.iter().find(|(name, file)| {
            file.is_none() && (needed.contains(name) || goes_with && *name != "ca")
        });
        let Some((name, _)) = missing else {
            return Some(());
        };
        let message = format_args!("{name}= is missing: which file has it?");
        findings.error(value.place, message);
        None
    }
}

/// The words of a value that say where certificates are, and the other ones.
///
/// Shape: a folder, `file:///folder`, `s3://bucket/prefix`, or `ca=FILE cert=FILE key=FILE`.
pub(super) fn certs<'a>(
    value: Field<'a>,
    findings: &mut Findings<'_>,
) -> Option<(Certs, Vec<Field<'a>>)> {
    let mut place = None;
    let (mut ca, mut cert, mut key) = (None, None, None);
    let mut others = Vec::new();
    for (at, word) in value.split(is_blank).enumerate() {
        let (name, path) = option(word);
        let file = match name {
            "ca" => &mut ca,
            "cert" => &mut cert,
            "key" => &mut key,
            "" if at == 0 => {
                place = Some((word, cert_source(word, findings)?));
                continue;
            }
            _ => {
                others.push(word);
                continue;
            }
        };
        if path.text.is_empty() {
            expected("a file", word, findings);
            return None;
        }
        if file.replace(PathBuf::from(path.text)).is_some() {
            twice(name, word, findings);
        }
    }
    let files = CertSource::Files { ca, cert, key };
    let are_said = !matches!(
        files,
        CertSource::Files {
            ca: None,
            cert: None,
            key: None
        }
    );
    let source = match place {
        None => files,
        Some((_, source)) if !are_said => source,
        Some((word, _)) => {
            let message = "a place of all three, or the three files: not both";
            findings.error(word.place, message);
            return None;
        }
    };
    Some((Certs { source }, others))
}

fn cert_source(word: Field<'_>, findings: &mut Findings<'_>) -> Option<CertSource> {
    let text = word.text;
    if text.eq_ignore_ascii_case(NONE) {
        let message = "`none` stands alone: a folder of this name is ./none";
        findings.error(word.place, message);
        return None;
    }
    if text
        .chars()
        .all(|c| c.is_ascii_digit() || c == ',' || c == '-')
    {
        let message = format_args!(
            "expected where certificates are, found ports or {word}: a folder of this name is ./{text}"
        );
        findings.error(word.place, message);
        return None;
    }
    let is_address = ["s3:", "file:", "http:", "https:"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    if !is_address && !text.contains("://") {
        return Some(CertSource::Folder(PathBuf::from(text)));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let source = match scheme {
        "file" if rest.starts_with('/') => Some(CertSource::Folder(PathBuf::from(rest))),
        "s3" => {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            let is_bucket = (1..=MAX_BUCKET).contains(&bucket.len()) && bucket.bytes().all(in_name);
            is_bucket.then(|| CertSource::S3 {
                bucket: bucket.into(),
                prefix: prefix.trim_matches('/').into(),
            })
        }
        _ => None,
    };
    if source.is_none() {
        let message = "a folder, file:///folder, s3://bucket/prefix, or ca= cert= key=";
        expected(message, word, findings);
    }
    source
}

/// `name=value`; the name is empty where there is none.
fn option(word: Field<'_>) -> (&str, Field<'_>) {
    match word.text.split_once('=') {
        Some((name, _))
            if !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-') =>
        {
            (name, word.tail(name.len() + 1))
        }
        _ => ("", word),
    }
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
