//! ETCD: where etcd is asked, and as whom.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::keys::beside;
use super::suggest::hint;
use super::text::{Field, Findings, Lines, MAX_LINE, is_blank};
use super::tls::{CertSource, certs};
use super::value::{NONE, duration, host_name, number};
use crate::diag::{Diagnostic, Severity, Source, printable, shown_of};

/// Most members of one etcd that are asked.
pub const MAX_ENDPOINTS: usize = 16;

/// Port on which etcd serves clients. Source: IANA, `etcd-client`.
const CLIENT_PORT: u16 = 2379;

/// An etcd and who asks it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Etcd {
    /// At least one; any of them will do.
    pub endpoints: Box<[Endpoint]>,
    /// `None`: nobody in particular.
    pub user: Option<Box<str>>,
    /// Its first line is the password.
    pub password_file: Option<PathBuf>,
    /// For members that are `https`: who they are to be, and who asks.
    pub certs: Option<CertSource>,
}

/// One member of etcd: `http://host:port`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Endpoint {
    pub is_https: bool,
    /// A name or an address, without brackets.
    pub host: Box<str>,
    pub port: u16,
}

impl Endpoint {
    /// `host:port`.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// What an endpoint is not.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected {0}")]
pub struct NoEndpoint(&'static str);

impl FromStr for Endpoint {
    type Err = NoEndpoint;

    /// Without a scheme it is `http`, without a port 2379.
    fn from_str(text: &str) -> Result<Self, NoEndpoint> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let is_https = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ => return Err(NoEndpoint("http:// or https://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let colon = rest.rfind(':').filter(|colon| {
            // The last colon of an address in brackets is before a port only behind them.
            rest.rfind(']').is_none_or(|bracket| bracket < *colon)
        });
        let (host, port) = match colon {
            Some(at) => {
                let port = number(&rest[at + 1..]).filter(|port: &u16| *port > 0);
                let port = port.ok_or(NoEndpoint("a port (1-65535) after the host"))?;
                (&rest[..at], port)
            }
            None => (rest, CLIENT_PORT),
        };
        let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
        let host = host_name(host)
            .ok()
            .filter(|_| !is_bare_ipv6)
            .ok_or(NoEndpoint(
                "http://host:port, the host a name or an address (IPv6 in brackets)",
            ))?;
        Ok(Self {
            is_https,
            host: host.into(),
            port,
        })
    }
}

impl Etcd {
    /// From the value of ETCD, with what is to be said of it; paths that are not absolute are of the working folder.
    ///
    /// Errors: what is wrong with it, as one line each.
    pub fn parse(text: &str) -> Result<(Arc<Self>, Vec<String>), String> {
        parsed(text, |value, findings| {
            let mut etcd = None;
            read(value, Path::new(""), &mut etcd, findings);
            etcd
        })
    }
}

/// A duration in the form of proxy.conf.
///
/// Errors: what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parsed(text, duration).map(|(duration, _)| duration)
}

fn parsed<T>(
    text: &str,
    read: impl FnOnce(Field<'_>, &mut Findings<'_>) -> Option<T>,
) -> Result<(T, Vec<String>), String> {
    let source = Source {
        path: PathBuf::new(),
        text: text.to_owned(),
    };
    let mut findings = Findings::new(&source);
    let value = Lines::new(&source, MAX_LINE)
        .next(&mut findings)
        .and_then(|value| read(value, &mut findings));
    let found = findings.finish().into_iter();
    let (errors, warnings): (Vec<_>, Vec<_>) =
        found.partition(|found| found.severity == Severity::Error);
    let messages = |found: Vec<Diagnostic>| -> Vec<String> {
        found.into_iter().map(|found| found.message).collect()
    };
    let errors = messages(errors);
    match value {
        Some(value) if errors.is_empty() => Ok((value, messages(warnings))),
        _ if errors.is_empty() => Err("there is nothing".to_owned()),
        _ => Err(errors.join("; ")),
    }
}

/// ETCD as it is said, into `etcd`; a path is relative to the folder of proxy.conf.
pub(super) fn read(
    value: Field<'_>,
    proxy: &Path,
    etcd: &mut Option<Arc<Etcd>>,
    findings: &mut Findings<'_>,
) {
    if value.text.eq_ignore_ascii_case(NONE) {
        *etcd = None;
        return;
    }
    let Some(list) = value.split(is_blank).next() else {
        return;
    };
    if let Some(word) = value.split(is_blank).find(|word| has_user(*word, list)) {
        findings.hide(value.place.line);
        let message = "no user in the address: user=NAME password-file=PATH behind the members";
        findings.error(word.place, message);
        return;
    }
    let mut members = endpoints(list, findings);
    let Some((certs, words)) = certs(value.tail(list.text.len()), findings) else {
        return;
    };
    let is_https = |endpoint: &Endpoint| endpoint.is_https;
    let some_https = members.iter().flatten().any(is_https);
    let some_http = members.iter().flatten().any(|member| !member.is_https);
    if some_https && certs.need(&["ca"], value, findings).is_none() {
        return;
    }
    if certs.are_said() && !some_https && members.is_some() {
        let message = "certificates, and no member that is https:// to use them with";
        findings.error(value.place, message);
        members = None;
    }
    let certs = some_https.then(|| {
        let mut certs = certs.source;
        certs.beside(proxy.parent().unwrap_or(Path::new("")));
        certs
    });
    let mut user = None;
    let mut password_file = None;
    for word in words {
        match word.text.split_once('=') {
            Some(("user", name)) if !name.is_empty() && user.is_none() => user = Some(name.into()),
            Some(("password-file", path)) if !path.is_empty() && password_file.is_none() => {
                password_file = Some(beside(proxy, path));
            }
            _ => {
                let expected =
                    "expected certificates (first), user=NAME or password-file=PATH, each once";
                let name = word.text.split_inclusive('=').next().unwrap_or("");
                let options = ["user=", "password-file=", "ca=", "cert=", "key="];
                let hint = hint(options.into_iter().filter(|option| *option != name), name);
                findings.error(word.place, format_args!("{expected}, found {word}{hint}"));
                members = None;
            }
        }
    }
    if password_file.is_some() && user.is_none() {
        findings.error(value.place, "a password without user=NAME");
        members = None;
    }
    if user.is_some() && password_file.is_none() && members.is_some() {
        let message = "user=NAME without password-file=PATH: the password is empty";
        findings.warning(value.place, message);
    }
    if user.is_some() && some_https && some_http {
        let message = "members that are http:// are told the password in clear";
        findings.warning(list.place, message);
    }
    if let Some(endpoints) = members {
        *etcd = Some(Arc::new(Etcd {
            endpoints,
            user,
            password_file,
            certs,
        }));
    }
}

/// Whether somebody is named where members are: `http://root:secret@host`, with a password that is not to be shown.
fn has_user(word: Field<'_>, list: Field<'_>) -> bool {
    let is_of_list = word.place.start == list.place.start;
    shown_of(word.text) < word.text.len() || is_of_list && word.text.contains('@')
}

/// `None`: something is wrong with them.
fn endpoints(list: Field<'_>, findings: &mut Findings<'_>) -> Option<Box<[Endpoint]>> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut good = true;
    for part in list.split(|c| c == ',') {
        match part.text.parse() {
            Ok(endpoint) if endpoints.contains(&endpoint) => {
                let message = format_args!("{part} is already in the list");
                findings.warning(part.place, message);
            }
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => {
                findings.error(part.place, format_args!("{error}, found {part}"));
                good = false;
            }
        }
    }
    if endpoints.len() > MAX_ENDPOINTS {
        let message = format_args!("more than {MAX_ENDPOINTS} members");
        findings.error(list.place, message);
        return None;
    }
    if good && endpoints.is_empty() {
        findings.error(list.place, "no member of etcd to ask");
        return None;
    }
    good.then(|| endpoints.into())
}

/// In the form that [`read`] takes.
pub(super) fn show(etcd: Option<&Etcd>) -> String {
    let Some(etcd) = etcd else {
        return NONE.to_owned();
    };
    let endpoints: Vec<String> = etcd.endpoints.iter().map(Endpoint::to_string).collect();
    let mut shown = endpoints.join(",");
    if let Some(certs) = &etcd.certs {
        shown.extend([" ", &certs.to_string()]);
    }
    if let Some(user) = &etcd.user {
        shown.extend([" user=", &printable(user)]);
    }
    if let Some(path) = &etcd.password_file {
        shown.extend([" password-file=", &printable(&path.to_string_lossy())]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::proxy;

    /// ETCD of a proxy.conf, and what was found wrong with it.
    fn said(value: &str) -> (String, Vec<String>) {
        let source = Source {
            path: "/etc/snproxy/proxy.conf".into(),
            text: format!("ETCD {value}\n"),
        };
        let mut findings = Findings::new(&source);
        let draft = proxy::read(&source, &mut findings);
        let findings = findings.finish();
        let messages = findings.iter().map(|found| found.message.clone());
        (show(draft.conf.etcd.as_deref()), messages.collect())
    }

    #[test]
    fn the_key_names_members_user_and_password() {
        for (value, shown) in [
            ("none", "none"),
            ("http://a:1,b", "http://a:1,http://b:2379"),
            (
                "http://[::1]:2 user=root password-file=secret",
                "http://[::1]:2 user=root password-file=/etc/snproxy/secret",
            ),
            (
                "https://a,https://b certs user=x password-file=/p",
                "https://a:2379,https://b:2379 /etc/snproxy/certs user=x password-file=/p",
            ),
            (
                "https://b ca=/a.pem cert=b.pem key=c.pem",
                "https://b:2379 ca=/a.pem cert=/etc/snproxy/b.pem key=/etc/snproxy/c.pem",
            ),
            ("https://b s3://x/y", "https://b:2379 s3://x/y"),
        ] {
            assert_eq!(said(value), (shown.to_owned(), Vec::new()), "{value}");
        }
        for (value, expected) in [
            ("ftp://a", "expected http:// or https://, found `ftp://a`"),
            (", user=x", "no member of etcd to ask"),
            ("a password-file=x", "a password without user=NAME"),
            (
                "a /certs",
                "certificates, and no member that is https:// to use them with",
            ),
            (
                "http://a ca=/x user=y",
                "certificates, and no member that is https:// to use them with",
            ),
            (
                "a token=x",
                "expected certificates (first), user=NAME or password-file=PATH, each once, found `token=x`",
            ),
            (
                "a user=x user=y",
                "expected certificates (first), user=NAME or password-file=PATH, each once, found `user=y`",
            ),
            ("https://a", "ca= is missing: which file has it?"),
            (
                "https://a ca=x cert=y",
                "key= is missing: which file has it?",
            ),
        ] {
            let expected = vec![expected.to_owned()];
            assert_eq!(said(value), ("none".to_owned(), expected), "{value}");
        }
        let (shown, found) = said("http://a,https://b certs user=x");
        let expected = "http://a:2379,https://b:2379 /etc/snproxy/certs user=x";
        assert_eq!(shown, expected);
        let empty = "user=NAME without password-file=PATH: the password is empty";
        let clear = "members that are http:// are told the password in clear";
        assert_eq!(found, [empty, clear]);
        let many: Vec<String> = (0..=MAX_ENDPOINTS).map(|n| format!("h{n}")).collect();
        assert_eq!(said(&many.join(",")).1, ["more than 16 members"]);
    }

    #[test]
    fn no_finding_shows_a_password() {
        for line in [
            "ETCD http://root:secret@a:2379",
            "ETCD \"http://root:secret@a:2379\" more",
            "ETCD http://a:1,http://root:secret@b:2379 token=x",
            "ETCD http://a:1, http://root:secret@b:2379",
            "ETCD http://root:secr,et@b:2379",
            "ETCD root:secret@a:2379",
            "ETCD http://root:secret@a:2379,",
            "ETCD=http://root:secret@a:2379",
            "ETC http://root:secret@a:2379",
        ] {
            let source = Source::decode("proxy.conf", line.into());
            let mut findings = Findings::new(&source);
            proxy::read(&source, &mut findings);
            let found = findings.finish();
            assert!(!found.is_empty(), "{line}");
            for found in &found {
                let block = found.block();
                assert!(!block.contains("secr"), "{line}: {block}");
                assert!(block.contains("proxy.conf:1:"), "{line}: {block}");
            }
        }
        let no_user = "no user in the address: user=NAME password-file=PATH behind the members";
        assert_eq!(Etcd::parse("http://x:secret@a").unwrap_err(), no_user);
    }

    #[test]
    fn endpoints_are_urls_without_a_path() {
        for (text, shown) in [
            ("http://a.example:2379", "http://a.example:2379"),
            ("HTTPS://10.0.0.1:1/", "https://10.0.0.1:1"),
            ("http://[::1]:2379", "http://[::1]:2379"),
            ("https://[fd00::1]", "https://[fd00::1]:2379"),
            ("a", "http://a:2379"),
            ("a:1", "http://a:1"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown, "{text}");
        }
        for text in [
            "",
            "ftp://a:1",
            "http://",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a/v3",
            "http://user:secret@a:1",
            "http://::1:2379",
            "http://[::1",
        ] {
            let endpoint = text.parse::<Endpoint>();
            assert!(endpoint.is_err(), "{text}: {endpoint:?}");
        }
    }
}
