//! TLS of a service, as whoever builds one says it.

use std::path::{Path, PathBuf};

/// Where certificates are. They are read again when they change.
#[derive(Clone, Debug)]
pub struct Certificates(Place);

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
    Files(Vec<(&'static str, PathBuf)>),
}

impl Certificates {
    /// A folder with `ca.pem`, `cert.pem` and `key.pem`.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Place::Folder(path.into()))
    }

    /// The same three below a prefix of an S3 bucket. Who asks, and where, is said by the usual variables of the environment.
    pub fn s3(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self(Place::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        })
    }

    /// Files of their own: of the authority that the other side's certificate is of, of our certificate, and of its key.
    pub fn files(ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Self {
        let ca = ca.map(|ca| ("ca", ca.to_owned()));
        let own = own.map(|(cert, key)| [("cert", cert.to_owned()), ("key", key.to_owned())]);
        Self(Place::Files(
            ca.into_iter().chain(own.into_iter().flatten()).collect(),
        ))
    }

    /// As the keys of proxy.conf take it; `None` where that cannot be.
    fn words(&self) -> Option<String> {
        let path = |path: &Path| {
            let path = std::path::absolute(path).ok()?;
            is_word(path.to_str()?).then(|| path.to_string_lossy().into_owned())
        };
        match &self.0 {
            Place::Folder(folder) => path(folder),
            Place::S3 { bucket, prefix } => {
                let place = format!("s3://{bucket}/{prefix}");
                is_word(&place).then_some(place)
            }
            Place::Files(files) => {
                let words = files
                    .iter()
                    .map(|(name, file)| Some(format!("{name}={}", path(file)?)));
                Some(words.collect::<Option<Vec<_>>>()?.join(" "))
            }
        }
    }
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verify {
    /// Of the authority.
    Require,
    /// Of the authority, or none.
    Optional,
    /// Nobody asks.
    None,
}

/// Clients speak TLS to a service.
#[derive(Clone, Debug)]
pub struct ClientTls {
    certificates: Certificates,
    verify: Verify,
    alpn: Vec<String>,
}

impl ClientTls {
    /// Each client has to show a certificate of the authority.
    pub fn new(certificates: Certificates) -> Self {
        Self {
            certificates,
            verify: Verify::Require,
            alpn: Vec::new(),
        }
    }

    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// Protocols that are agreed on, the preferred one first.
    #[must_use]
    pub fn alpn(mut self, protocols: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// The value of CLIENTTLS; `None` where a part cannot be said.
    pub(super) fn value(&self) -> Option<String> {
        let verify = match self.verify {
            Verify::Require => " verify=require",
            Verify::Optional => " verify=optional",
            Verify::None => " verify=none",
        };
        let words = self.certificates.words()?;
        Some(format!("{words}{verify}{}", alpn(&self.alpn)?))
    }
}

/// A service speaks TLS to its upstreams.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    certificates: Certificates,
    name: Option<String>,
    is_verified: bool,
    alpn: Vec<String>,
}

impl UpstreamTls {
    /// Each upstream has to show a certificate of the authority for its own name.
    pub fn new(certificates: Certificates) -> Self {
        Self {
            certificates,
            name: None,
            is_verified: true,
            alpn: Vec::new(),
        }
    }

    /// The name that is asked for, and that the certificate must have, in place of the upstream's own.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Believes whoever answers.
    #[must_use]
    pub fn unverified(mut self) -> Self {
        self.is_verified = false;
        self
    }

    /// Protocols that are offered.
    #[must_use]
    pub fn alpn(mut self, protocols: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// The value of UPSTREAMTLS; `None` where a part cannot be said.
    pub(super) fn value(&self) -> Option<String> {
        let name = match &self.name {
            Some(name) if !is_word(name) => return None,
            Some(name) => format!(" name={name}"),
            None => String::new(),
        };
        let verify = if self.is_verified { "" } else { " verify=none" };
        let words = self.certificates.words()?;
        Some(format!("{words}{name}{verify}{}", alpn(&self.alpn)?))
    }
}

fn alpn(protocols: &[String]) -> Option<String> {
    if protocols.is_empty() {
        return Some(String::new());
    }
    let is_good = protocols.iter().all(|protocol| is_word(protocol));
    is_good.then(|| format!(" alpn={}", protocols.join(",")))
}

/// Whether a text is one word in a line of proxy.conf.
pub(crate) fn is_word(text: &str) -> bool {
    let is_odd =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '#' | ',');
    !text.is_empty() && !text.contains(is_odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_becomes_words() {
        let certs = Certificates::folder("/etc/certs");
        let client = ClientTls::new(certs.clone()).verify(Verify::Optional);
        assert_eq!(
            client.alpn(["h2", "redis"]).value().unwrap(),
            "/etc/certs verify=optional alpn=h2,redis"
        );
        let upstream = UpstreamTls::new(certs).name("a.example").unverified();
        assert_eq!(
            upstream.value().unwrap(),
            "/etc/certs name=a.example verify=none"
        );
        let files = Certificates::files(
            Some(Path::new("/ca")),
            Some((Path::new("/cert"), Path::new("/key"))),
        );
        assert_eq!(
            ClientTls::new(files).value().unwrap(),
            "ca=/ca cert=/cert key=/key verify=require"
        );
        let s3 = Certificates::s3("bucket", "a/b");
        assert_eq!(UpstreamTls::new(s3).value().unwrap(), "s3://bucket/a/b");
        assert_eq!(ClientTls::new(Certificates::folder("/a b")).value(), None);
    }
}
