//! ADMIN: where the running proxy is asked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::Conf;
use super::keys::path;
use super::text::{Field, Findings, is_blank};
use super::value::{NONE, show_proxy_port};
use crate::addr::{PortSet, canonical};
use crate::diag::Severity;

/// Longest path of a unix socket, in bytes: `sockaddr_un` and a final zero.
const MAX_SOCKET_PATH: usize = 107;
/// Most addresses of metrics.
const MAX_ADDRS: usize = 8;

const SOCKET: &str = "unix:";
const EXPECTED: &str = "expected a socket such as unix:/run/snproxy/32767.sock, or none, then addresses for metrics such as 127.0.0.1:9180";

/// Where the running proxy is asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Admin {
    pub socket: AdminSocket,
    /// Where metrics are given to whoever asks, and nothing else is.
    pub addrs: Vec<SocketAddr>,
}

/// The unix socket at which the running proxy is asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum AdminSocket {
    /// One per PORT, where the daemon keeps them.
    #[default]
    OfPort,
    At(PathBuf),
    /// Nobody is answered.
    None,
}

/// Whether a value of ADMIN says what becomes of the socket.
pub fn says_socket(value: &str) -> bool {
    let is_socket = |word: &str| word.starts_with(SOCKET) || word.eq_ignore_ascii_case(NONE);
    value.split(is_blank).any(is_socket)
}

/// `unix:/path` or `none`, then addresses; each may be left out.
pub(super) fn admin(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Admin> {
    let mut admin = Admin::default();
    let mut words = value.split(is_blank).peekable();
    if let Some(word) = words.next_if(|word| says_socket(word.text)) {
        admin.socket = socket(word, findings)?;
    }
    for word in words {
        let addr = word.text.parse().map(canonical);
        let Ok(addr) = addr else {
            findings.error(word.place, format_args!("{EXPECTED}, found {word}"));
            return None;
        };
        if addr.port() == 0 {
            findings.error(word.place, format_args!("{word}: port 0 is none"));
            return None;
        }
        if admin.addrs.contains(&addr) {
            findings.error(word.place, format_args!("{word} is there twice"));
            return None;
        }
        if admin.addrs.len() == MAX_ADDRS {
            findings.error(word.place, format_args!("more than {MAX_ADDRS} addresses"));
            return None;
        }
        admin.addrs.push(addr);
    }
    Some(admin)
}

fn socket(word: Field<'_>, findings: &mut Findings<'_>) -> Option<AdminSocket> {
    let Some(path) = word.text.strip_prefix(SOCKET) else {
        return Some(AdminSocket::None);
    };
    if !path.starts_with('/') {
        findings.error(word.place, format_args!("{EXPECTED}, found {word}"));
        return None;
    }
    if path.len() > MAX_SOCKET_PATH {
        let message = format_args!("path of a socket is longer than {MAX_SOCKET_PATH} bytes");
        findings.error(word.place, message);
        return None;
    }
    Some(AdminSocket::At(path.into()))
}

pub(super) fn show(conf: &Conf) -> String {
    let mut shown = match &conf.admin.socket {
        AdminSocket::At(socket) => format!("{SOCKET}{}", path(socket)),
        AdminSocket::OfPort => {
            format!("{SOCKET}/run/snproxy/{}.sock", show_proxy_port(conf.port))
        }
        AdminSocket::None => NONE.to_owned(),
    };
    for addr in &conf.admin.addrs {
        shown = format!("{shown} {addr}");
    }
    shown
}

impl Conf {
    /// Whether this is where metrics are given.
    pub fn is_admin(&self, addr: SocketAddr) -> bool {
        self.admin.addrs.contains(&addr)
    }
}

/// Addresses of metrics among those that the proxy serves; `served`: ports with mappings or an app.
pub(super) fn clashes(conf: &Conf, served: &PortSet, findings: &mut Findings<'_>) {
    let origin = conf.origins.iter().rev().find(|it| it.key == "ADMIN");
    let line = origin.and_then(|origin| origin.place.rsplit_once(':')?.1.parse().ok());
    let mut say = |severity, message: String| {
        findings.at(severity, line.unwrap_or(1), 1, message);
    };
    for addr in &conf.admin.addrs {
        let port = addr.port();
        if !meet(conf.served_at(port), addr.ip()) {
            continue;
        }
        if port == conf.port {
            say(Severity::Error, format!("ADMIN {addr} is PORT"));
        } else if served.contains(port) {
            let message = format!("ADMIN {addr} is a cluster port served here: use another port");
            say(Severity::Error, message);
        } else if conf.cluster_ports.contains(port) {
            let message = format!(
                "ADMIN {addr} is a cluster port: it is not steered on this host, so that its clients get metrics; \
                 use another port, or leave it out of CLUSTERPORTS"
            );
            say(Severity::Warning, message);
        }
    }
}

/// Whether sockets on both would take the same connections.
fn meet(one: IpAddr, other: IpAddr) -> bool {
    // One socket for both families.
    let takes_all = |ip: IpAddr| ip.is_ipv6() && ip.is_unspecified();
    let is_any = one.is_unspecified() || other.is_unspecified();
    let same_family = one.is_ipv4() == other.is_ipv4();
    takes_all(one) || takes_all(other) || same_family && (is_any || one == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::fixture::Texts;

    #[test]
    fn addresses_follow_the_socket_and_stand_alone() {
        for (said, expected) in [
            ("unix:/a", "unix:/a"),
            ("none", "none"),
            (
                "unix:/a\t127.0.0.1:9180  [::1]:9180",
                "unix:/a 127.0.0.1:9180 [::1]:9180",
            ),
            ("NONE 127.0.0.1:9180", "none 127.0.0.1:9180"),
            (
                "[::ffff:127.0.0.1]:80",
                "unix:/run/snproxy/32767.sock 127.0.0.1:80",
            ),
        ] {
            let proxy = format!("HOST 10.0.0.1\nADMIN {said}\n");
            let texts = Texts {
                proxy: &proxy,
                ..Texts::default()
            };
            assert_eq!(show(&texts.conf()), expected, "{said}");
        }
        assert!(says_socket("unix:/a 127.0.0.1:80") && says_socket("none"));
        assert!(!says_socket("127.0.0.1:80"));
    }

    #[test]
    fn two_sockets_meet_where_one_connection_could_be_for_both() {
        for (one, other, expected) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "127.0.0.1", false),
            ("0.0.0.0", "127.0.0.1", true),
            ("10.0.0.1", "0.0.0.0", true),
            ("10.0.0.1", "::", true),
            ("::", "10.0.0.1", true),
            ("0.0.0.0", "::1", false),
            ("fd00::1", "0.0.0.0", false),
            ("fd00::1", "fd00::1", true),
        ] {
            let ips = [one, other].map(|ip| ip.parse().unwrap());
            assert_eq!(meet(ips[0], ips[1]), expected, "{one} {other}");
        }
    }
}
