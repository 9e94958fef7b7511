//! Where certificates are: a folder, a bucket, files, or the system's CAs.

use std::fmt;
use std::path::{Path, PathBuf};

use super::super::port_value::expected;
use super::super::text::{Field, Findings, is_blank};
use super::super::value::NONE;
use crate::diag::{Source, printable};

/// Longest name of a bucket. Source: the bucket naming rules of S3.
const MAX_BUCKET: usize = 63;
/// Word for the CAs of the system.
const SYSTEM: &str = "system";

/// Where a set of certificates is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum CertSource {
    /// Holds `cert.pem` and `key.pem`, or `fullchain.pem` and `privkey.pem`, and may hold `ca.pem`.
    Folder(PathBuf),
    /// The same three below a prefix, which has no `/` at either end.
    S3 { bucket: Box<str>, prefix: Box<str> },
    /// What is not said is not there.
    Files {
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
    },
    /// CAs of the system, and a certificate of our own.
    System {
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
    },
}

impl CertSource {
    /// Paths that are not absolute are those of files beside proxy.conf.
    pub(in crate::conf) fn beside(&mut self, folder: &Path) {
        let paths: Vec<&mut PathBuf> = match self {
            Self::Folder(path) => vec![path],
            Self::S3 { .. } => Vec::new(),
            Self::Files { ca, cert, key } => [ca, cert, key].into_iter().flatten().collect(),
            Self::System { cert, key } => [cert, key].into_iter().flatten().collect(),
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
            Self::System { cert, key } => match name {
                "ca" => None,
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

impl CertTexts {
    /// Whether the set has a CA, or names the file of one.
    pub fn has_ca(&self) -> bool {
        self.ca.is_some() || matches!(self.source, CertSource::Files { ca: Some(_), .. })
    }
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
            Self::System { cert, key } => {
                f.write_str(SYSTEM)?;
                for (name, file) in [("cert", cert), ("key", key)] {
                    if let Some(file) = file {
                        write!(f, " {name}={}", path(file))?;
                    }
                }
                Ok(())
            }
        }
    }
}

pub(super) fn twice(option: &str, word: Field<'_>, findings: &mut Findings<'_>) {
    let message = format_args!("{option}= is already said: this one counts");
    findings.warning(word.place, message);
}

/// Certificates as said, and whether by their files.
pub(in crate::conf) struct Certs {
    pub(in crate::conf) source: CertSource,
}

impl Certs {
    pub(in crate::conf) fn are_said(&self) -> bool {
        let nothing = CertSource::Files {
            ca: None,
            cert: None,
            key: None,
        };
        self.source != nothing
    }

    /// Those that a role cannot do without; a certificate and its key go together. A folder is looked into later.
    pub(in crate::conf) fn need(
        &self,
        needed: &[&str],
        value: Field<'_>,
        findings: &mut Findings<'_>,
    ) -> Option<()> {
        let (files, goes_with) = match &self.source {
            CertSource::Folder(_) | CertSource::S3 { .. } => return Some(()),
            CertSource::System { .. } if needed.contains(&"cert") => {
                let message = format_args!(
                    "expected a folder, s3://bucket/prefix, or ca= cert= key=, found `{SYSTEM}`: \
                     the CAs of the system are for UPSTREAMTLS and ETCD; \
                     a folder of this name is ./{SYSTEM}"
                );
                findings.error(value.place, message);
                return None;
            }
            CertSource::System { cert, key } => (
                vec![("cert", cert), ("key", key)],
                cert.is_some() || key.is_some(),
            ),
            CertSource::Files { ca, cert, key } => (
                vec![("ca", ca), ("cert", cert), ("key", key)],
                cert.is_some() || key.is_some(),
            ),
        };
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
/// Shape: a folder, `file:///folder`, `s3://bucket/prefix`, `ca=FILE cert=FILE key=FILE`, or `system` with or
/// without `cert=FILE key=FILE`.
pub(in crate::conf) fn certs<'a>(
    value: Field<'a>,
    findings: &mut Findings<'_>,
) -> Option<(Certs, Vec<Field<'a>>)> {
    let mut place = None;
    let mut is_system = false;
    let (mut ca, mut cert, mut key) = (None, None, None);
    let mut others = Vec::new();
    for (at, word) in value.split(is_blank).enumerate() {
        let (name, path) = option(word);
        let file = match name {
            "ca" => &mut ca,
            "cert" => &mut cert,
            "key" => &mut key,
            "" if at == 0 && word.text.eq_ignore_ascii_case(SYSTEM) => {
                is_system = true;
                continue;
            }
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
    if is_system {
        if ca.is_some() {
            let message = format_args!("expected `{SYSTEM}` or ca=, found both");
            findings.error(value.place, message);
            return None;
        }
        let source = CertSource::System { cert, key };
        return Some((Certs { source }, others));
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
pub(super) fn option(word: Field<'_>) -> (&str, Field<'_>) {
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
