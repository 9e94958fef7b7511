//! Proxies that end TLS, proxies that speak it to each other, and ambassadors.

use crate::{
    cases::{self, Part},
    contestants::{Contestant, Role},
    load::NAME,
    machine,
    results::{DIRECT, HAPROXY, HAPROXY_LARGE, TlsTable},
    rounds::{self, Pace, warn_if_busy},
};
use snproxy_tests::{Ca, Conn, Issued, TlsConn, TlsEnded};
use std::{fs, net::SocketAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};
use tempfile::TempDir;

/// Another way of snproxy to end the clients' TLS, or to speak it between hosts.
const PORT: &str = "snproxy-port";
const PEERS: &str = "snproxy-peers";
/// There are many cases: all of it takes four minutes.
const ROUNDS: usize = 3;
const SECONDS: f64 = 0.5;
const WARM_UP: f64 = 0.1;
/// How long a contestant is given to refuse a client.
const REFUSAL: Duration = Duration::from_secs(10);

/// Certificates of all ends, ECDSA with P-256, in folders.
#[derive(Clone, Debug)]
pub(crate) struct Certs(Arc<TempDir>);

impl Certs {
    fn new() -> Self {
        let folder = TempDir::new().expect("folder of certificates");
        let ca = Ca::new("the authority");
        for (name, names) in [
            ("server", &[NAME, "10.77.0.1", "10.77.0.2"][..]),
            ("client", &["client"]),
        ] {
            let issued = ca.issue(names);
            let folder = folder.path().join(name);
            issued.write_folder(&folder);
            // HAProxy has both in one file.
            let both = [issued.cert, issued.key].concat();
            fs::write(folder.join("both.pem"), both).expect("write a certificate");
        }
        Self(Arc::new(folder))
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.0.path().join("server")
    }

    pub(crate) fn client(&self) -> PathBuf {
        self.0.path().join("client")
    }

    /// Panics unless who has a certificate is let in there, and who has none is not.
    pub(crate) fn assert_asked_for(&self, at: SocketAddr) {
        let client = Issued::read_folder(&self.client()).expect("certificates");
        // Whatever the protocol behind it is: who is let in is not closed at once.
        let known = is_kept(at, || client.client());
        let stranger = is_kept(at, || client.nameless_client());
        assert!(known, "{at}: a client with a certificate is refused");
        assert!(!stranger, "{at}: a client without a certificate is let in");
    }
}

/// Whether a client is neither refused nor reset within a moment.
fn is_kept(at: SocketAddr, config: impl Fn() -> Arc<rustls::ClientConfig>) -> bool {
    const MOMENT: Duration = Duration::from_millis(200);
    let conn = Conn::connect(at, REFUSAL).expect("connect");
    match TlsConn::connect(conn, config(), NAME) {
        Ok(tls) => {
            let is_kept = tls.rest(MOMENT).1 == TlsEnded::Open;
            // The pod takes a reset for the end of the benchmark.
            tls.half_close().rest(REFUSAL);
            is_kept
        }
        Err(_) => false,
    }
}

/// Lines of HAProxy's `bind` and `server`.
pub(crate) fn haproxy_bind(server: &Path) -> String {
    let server = server.display();
    format!(" ssl crt {server}/both.pem ca-file {server}/ca.pem verify required")
}

pub(crate) fn haproxy_server(client: &Path) -> String {
    let client = client.display();
    format!(
        " ssl crt {client}/both.pem ca-file {client}/ca.pem verify required sni str({NAME}) verifyhost {NAME}"
    )
}

/// Lines of nginx for its clients and its server.
pub(crate) fn nginx_clients(server: &Path) -> String {
    let server = server.display();
    // Of its own it remembers no sessions, and knows no TLS 1.3.
    format!(
        "ssl_certificate {server}/cert.pem;\n ssl_certificate_key {server}/key.pem;\n\
         ssl_client_certificate {server}/ca.pem;\n ssl_verify_client on;\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n ssl_session_cache shared:tls:10m;\n"
    )
}

pub(crate) fn nginx_upstream(client: &Path) -> String {
    let client = client.display();
    format!(
        "proxy_ssl on;\n proxy_ssl_certificate {client}/cert.pem;\n\
         proxy_ssl_certificate_key {client}/key.pem;\n proxy_ssl_trusted_certificate {client}/ca.pem;\n\
         proxy_ssl_verify on;\n proxy_ssl_name {NAME};\n proxy_ssl_server_name on;\n\
         proxy_ssl_protocols TLSv1.2 TLSv1.3;\n"
    )
}

/// Whether any of these cases has this in its name.
pub(crate) fn has(filter: &str) -> bool {
    let pairs = cases::plain(Part::Pair);
    let all = [cases::tls(), pairs, cases::plain(Part::Ambassador)];
    all.iter()
        .flatten()
        .any(|work| work.name().contains(filter))
}

/// Cases with `filter` in their name; a quick look leaves out second ways of the same program.
pub(crate) fn measure(
    all: &[Contestant],
    filter: &str,
    is_quick: bool,
    pace: &Pace,
) -> anyhow::Result<TlsTable> {
    let certs = Certs::new();
    let pace = Pace {
        rounds: if is_quick { 1 } else { ROUNDS },
        seconds: if is_quick { SECONDS / 2.0 } else { SECONDS },
        warm_up: WARM_UP,
        ..pace.clone()
    };
    let [_, splice] = HAPROXY;
    let as_one = |role: Role, unlike: &[&str]| -> Vec<_> {
        let is_second = |one: &Contestant| is_quick && one.name == HAPROXY_LARGE;
        let here = all
            .iter()
            .filter(|one| !unlike.contains(&&*one.name) && !is_second(one));
        here.map(|one| one.clone().in_role(role.clone())).collect()
    };
    let own = |name, role| {
        let mut first = all.iter().filter(|_| !is_quick);
        first.find_map(|one| one.another_way(name, &role))
    };
    // Nothing is spliced through TLS.
    let mut ends = as_one(Role::TlsServer(certs.clone()), &[DIRECT, splice]);
    ends.extend(own(PORT, Role::TlsPort(certs.clone())));
    let mut pairs = as_one(Role::Pair(certs.clone()), &[splice]);
    pairs.extend(own(PEERS, Role::Peers(certs)));
    let run = |mut works: Vec<cases::Work>, contestants: &[Contestant]| {
        works.retain(|work| work.name().contains(filter));
        rounds::run(&works, contestants, &pace)
    };
    let others = warn_if_busy()?;
    Ok(TlsTable {
        date: machine::date(),
        others,
        ends: run(cases::tls(), &ends)?,
        pairs: run(cases::plain(Part::Pair), &pairs)?,
        ambassadors: run(
            cases::plain(Part::Ambassador),
            &as_one(Role::Ambassador, &[]),
        )?,
    })
}
