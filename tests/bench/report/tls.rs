//! TLS and ambassadors: each case beside HAProxy and nginx in one line, then all figures.

use super::{
    cases,
    figures::{or_none, ratio},
};
use crate::results::{Case, Contestant, HAPROXY_LARGE, Of, SNPROXY, TlsTable};
use snproxy_pages::table::{Table, number};
use std::fmt::Write as _;

const ENDS: &str = "\
Clients speak TLS to a proxy on their host, which ends it and sends plain bytes to the pod. *snproxy* is `snproxy tls-server`, *snproxy-port* a \
cluster port with CLIENTTLS; HAProxy has `ssl … verify required` at its `bind`, nginx `ssl_verify_client on`. Clients are the same for all (rustls): \
AES-256-GCM with SHA-384 and X25519, certificates of both sides ECDSA with P-256, verified by both sides. *Full handshake* is one without any \
session; *resumed* is the next one of a client that keeps what the server gave it, the line below says in how many it could. A new connection asks \
for 64 bytes, and ends. Before anything is measured, each proxy has refused a client without a certificate.";

const PAIRS: &str = "\
Clients and pods know nothing of TLS: it is between the proxies, one on each of two hosts, that show certificates to each other. *snproxy* is `snproxy tls-client` \
and `snproxy tls-server`, *snproxy-peers* a cluster of two hosts with PEERTLS; HAProxy and nginx have their TLS to a server on the first host, and \
that of clients on the second one. Each takes the versions and suites that it prefers, and takes up sessions where it does so by itself.";

const AMBASSADORS: &str = "\
`snproxy ambassador --src … --dst …` beside HAProxy and nginx with one address and one server, on one host and without TLS.";

pub(super) fn text(tls: &TlsTable) -> String {
    let mut text = format!(
        "Measured {}, while other programs used {} % of the processors: {} rounds, snproxy beside the others by the median of ratios within a \
         round. More is better, of processor time less.\n\n",
        tls.date,
        number(tls.others * 100.0),
        rounds(tls),
    );
    let all = [&tls.ends, &tls.pairs, &tls.ambassadors];
    text.push_str(&summary(all.into_iter().flatten()));
    for (title, said, cases) in [
        ("TLS of clients", ENDS, &tls.ends),
        ("TLS between hosts", PAIRS, &tls.pairs),
        ("Ambassador", AMBASSADORS, &tls.ambassadors),
    ] {
        if !cases.is_empty() {
            let cases: Vec<_> = cases.iter().collect();
            let tables = cases::text(&cases);
            let _ = write!(text, "\n### {title}\n\n{said}\n\n{tables}");
        }
    }
    text
}

fn rounds(tls: &TlsTable) -> usize {
    let all = [&tls.ends, &tls.pairs, &tls.ambassadors];
    let mut contestants = all.into_iter().flatten().flat_map(|case| &case.contestants);
    contestants.next().map_or(0, |one| one.rounds.len())
}

fn summary<'c>(cases: impl Iterator<Item = &'c Case>) -> String {
    let mut table = Table::new([
        "snproxy, of",
        "HAProxy's best",
        HAPROXY_LARGE,
        "nginx",
        "proxy CPU, of HAProxy's best",
        "of haproxy-64k",
        "of nginx",
    ]);
    for case in cases {
        let Some(own) = case.contestant(SNPROXY) else {
            continue;
        };
        let to = |other: Option<&Contestant>, of| {
            or_none(other.and_then(|other| own.ratio(other, of)), ratio)
        };
        let best = |of| to(case.best_haproxy(of), of);
        let named = |name, of| to(case.contestant(name), of);
        table.row([
            case.title.clone(),
            best(Of::Value),
            named(HAPROXY_LARGE, Of::Value),
            named("nginx", Of::Value),
            best(Of::ProxyCpu),
            named(HAPROXY_LARGE, Of::ProxyCpu),
            named("nginx", Of::ProxyCpu),
        ]);
    }
    table.to_string()
}
