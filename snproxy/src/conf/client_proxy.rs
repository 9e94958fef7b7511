//! CLIENTPROXY: from which clients a PROXY header is read, and how much of it is passed on.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::text::{Field, Findings, is_blank};
use super::value::{choice, networks};
use super::{PortConf, ProxyMode};
use crate::addr::is_private;

/// The word for private sources in the list of CLIENTPROXY.
const PRIVATE: &str = "private";

/// Value of CLIENTPROXY.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientProxy {
    pub mode: ProxyMode,
    /// The mode applies to private sources and to the addresses of this host.
    pub private: bool,
    /// The mode applies to these networks. If the list is empty and `private` is not set, the mode
    /// applies to all clients.
    pub networks: Vec<IpNet>,
}

/// What holds for the PROXY header of one client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeaderRule {
    pub mode: ProxyMode,
    /// A network of CLIENTPROXY contains the client, so that TLVs on identity are passed on.
    pub is_listed: bool,
}

impl ClientProxy {
    /// Returns the rule for one client. `is_own` returns whether an address is one of this host.
    pub fn rule(&self, client: IpAddr, is_own: impl FnOnce(IpAddr) -> bool) -> HeaderRule {
        let is_listed = self.networks.iter().any(|net| net.contains(&client));
        let applies = is_listed
            || (self.private && (is_private(client) || is_own(client)))
            || self.is_for_all();
        HeaderRule {
            mode: if applies { self.mode } else { ProxyMode::Never },
            is_listed,
        }
    }

    /// Whether the mode applies to all clients.
    pub fn is_for_all(&self) -> bool {
        !self.private && self.networks.is_empty()
    }
}

impl PortConf {
    /// Returns the rule for one client of the port.
    ///
    /// A header ahead of TLS is outside of what TLS protects: it is read from listed networks only.
    pub fn header_rule(&self, client: IpAddr, is_own: impl FnOnce(IpAddr) -> bool) -> HeaderRule {
        if self.client_proxy.mode == ProxyMode::Never {
            return NEVER;
        }
        let rule = self.client_proxy.rule(client, is_own);
        if self.client_tls.is_some() && !rule.is_listed {
            return NEVER;
        }
        rule
    }
}

const NEVER: HeaderRule = HeaderRule {
    mode: ProxyMode::Never,
    is_listed: false,
};

/// Parses a mode and the list of sources that the mode applies to.
pub(super) fn client_proxy(value: Field<'_>, findings: &mut Findings<'_>) -> Option<ClientProxy> {
    let mut parts = value.split(|c| c == ',' || is_blank(c));
    let mode = choice(parts.next()?, findings);
    let mut private = false;
    let parts = parts.filter(|part| {
        let is_word = part.text.eq_ignore_ascii_case(PRIVATE);
        private |= is_word;
        !is_word
    });
    let networks = networks(
        parts,
        "private or a network such as 10.0.0.0/8",
        &["private"],
        findings,
    );
    let is_limited = private || networks.as_ref().is_some_and(|all| !all.is_empty());
    if mode == Some(ProxyMode::Never) && is_limited {
        let message = "`never` is for all clients: the networks change nothing";
        findings.warning(value.place, message);
    }
    Some(ClientProxy {
        mode: mode?,
        private,
        networks: networks?,
    })
}

/// The value as proxy.conf takes it.
impl fmt::Display for ClientProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let private = self.private.then(|| PRIVATE.to_owned());
        let networks = self.networks.iter().map(ToString::to_string);
        let sources: Vec<_> = private.into_iter().chain(networks).collect();
        write!(f, "{}", self.mode)?;
        if !sources.is_empty() {
            write!(f, " {}", sources.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::good;
    use super::*;

    #[track_caller]
    fn check(conf: &str, client: &str, mode: ProxyMode, is_listed: bool) {
        let client = client.parse().unwrap();
        let own: IpAddr = "203.0.113.9".parse().unwrap();
        let rule = good(conf).of_port(1024).header_rule(client, |ip| ip == own);
        assert_eq!(rule, HeaderRule { mode, is_listed }, "{conf} {client}");
    }

    #[test]
    fn sources_select_the_mode() {
        use ProxyMode::{Detect, Never, Require};
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.7.7",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.1.1",
            "203.0.113.9",
            "::1",
            "fe80::1",
            "fc00::1",
            "fdff::1",
        ] {
            check("", private, Detect, false);
            check("CLIENTPROXY detect private\n", private, Detect, false);
            check("CLIENTPROXY require private\n", private, Require, false);
            check("CLIENTPROXY never\n", private, Never, false);
            check(
                "CLIENTPROXY detect 198.51.100.0/24\n",
                private,
                Never,
                false,
            );
        }
        for public in [
            "198.51.100.7",
            "172.15.255.255",
            "172.32.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.0.1",
            "192.167.0.1",
            "11.0.0.1",
            "126.0.0.1",
            "2001:db8::1",
            "fbff::1",
            "fec0::1",
            "::2",
        ] {
            check("", public, Never, false);
            check("CLIENTPROXY detect\n", public, Detect, false);
            check("CLIENTPROXY require\n", public, Require, false);
        }
        let both = "CLIENTPROXY detect 198.51.100.0/24 Private,10.9.0.0/16\n";
        check(both, "198.51.100.7", Detect, true);
        check(both, "10.9.1.1", Detect, true);
        check(both, "10.8.1.1", Detect, false);
        check(both, "203.0.113.1", Never, false);
    }

    #[test]
    fn tls_takes_headers_of_listed_networks_only() {
        use ProxyMode::{Detect, Never, Require};
        let tls = "CLIENTTLS /certs\n";
        check(tls, "127.0.0.1", Never, false);
        let all = format!("{tls}CLIENTPROXY require 0.0.0.0/0,::/0\n");
        check(&all, "198.51.100.7", Require, true);
        check(&all, "2001:db8::1", Require, true);
        let listed = format!("{tls}CLIENTPROXY detect private,10.9.0.0/16\n");
        check(&listed, "10.9.0.1", Detect, true);
        check(&listed, "10.8.0.1", Never, false);
    }
}
