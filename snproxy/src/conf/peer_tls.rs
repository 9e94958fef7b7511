//! PEERTLS: how the proxies of the cluster speak to each other.

use std::path::Path;
use std::sync::Arc;

use super::port_value::unknown_option;
use super::text::{Field, Findings};
use super::tls::{CertSource, certs};
use super::value::NONE;

/// TLS between proxies: each shows a certificate of the same CA.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct PeerTls {
    pub certs: CertSource,
    /// Proxies that do not speak TLS are served and called all the same.
    pub optional: bool,
    /// The proxy that is called shows a certificate for its line of hosts.conf; else any of the CA does.
    pub verify_host: bool,
}

/// `none`, or where the certificates are, then `optional` and `verify=host`. Paths are those of files beside `proxy`.
pub(super) fn read(
    value: Field<'_>,
    proxy: &Path,
    tls: &mut Option<Arc<PeerTls>>,
    findings: &mut Findings<'_>,
) {
    if value.text.eq_ignore_ascii_case(NONE) {
        *tls = None;
        return;
    }
    let Some((certs, words)) = certs(value, findings) else {
        return;
    };
    let (mut optional, mut verify_host) = (false, false);
    for word in words {
        match word.text {
            "optional" => {
                let message =
                    "optional: proxies that do not speak TLS are served, and called, in plain";
                findings.warning(word.place, message);
                optional = true;
            }
            "verify=host" => verify_host = true,
            "verify=ca" => verify_host = false,
            _ => {
                let options = ["optional", "verify=host", "verify=ca"];
                return unknown_option(&options, word, findings);
            }
        }
    }
    // Each proxy calls and is called.
    if certs
        .need(&["ca", "cert", "key"], value, findings)
        .is_none()
    {
        return;
    }
    let mut source = certs.source;
    source.beside(proxy.parent().unwrap_or(Path::new("")));
    *tls = Some(Arc::new(PeerTls {
        certs: source,
        optional,
        verify_host,
    }));
}

pub(super) fn show(tls: Option<&PeerTls>) -> String {
    let Some(tls) = tls else {
        return NONE.to_owned();
    };
    let mut shown = tls.certs.to_string();
    for (is_said, word) in [
        (tls.optional, " optional"),
        (tls.verify_host, " verify=host"),
    ] {
        if is_said {
            shown.push_str(word);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::fixture;

    fn read_text(text: &str) -> (Option<Arc<PeerTls>>, Vec<String>) {
        fixture::read(text, |value, findings| {
            let mut tls = None;
            read(value, Path::new("/etc/snproxy.conf"), &mut tls, findings);
            tls
        })
    }

    #[test]
    fn what_is_shown_is_what_is_taken() {
        for (text, shown) in [
            ("none", "none"),
            ("/tls", "/tls"),
            ("tls", "/etc/tls"),
            ("tls verify=host optional", "/etc/tls optional verify=host"),
            ("s3://bucket/tls verify=ca", "s3://bucket/tls"),
            ("ca=a cert=b key=c", "ca=/etc/a cert=/etc/b key=/etc/c"),
        ] {
            let (tls, _) = read_text(text);
            assert_eq!(show(tls.as_deref()), shown);
            assert_eq!(read_text(shown).0, tls, "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("tls optional", "optional: proxies that do not speak TLS"),
            (
                "tls required",
                "expected optional, verify=host or verify=ca",
            ),
            ("ca=a", "cert= is missing"),
            ("cert=b key=c", "ca= is missing"),
        ] {
            let (_, found) = read_text(text);
            assert!(
                found.iter().any(|found| found.contains(expected)),
                "{text}: {found:?}"
            );
        }
    }
}
