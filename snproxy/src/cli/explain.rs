//! `snproxy explain`.

use std::net::IpAddr;

use hyper::Method;

use crate::addr::canonical;
use crate::admin::api::Explain;
use crate::discovery::Root;

use super::output::out;
use super::{DONE, client};

/// An address, with or without a port, as logs show clients.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let with_port = || text.parse().map(|addr| canonical(addr).ip());
    // `[::1]` as well as `::1`.
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .filter(|inner| inner.contains(':'));
    let address = inner.unwrap_or(text).parse::<IpAddr>();
    address
        .map(|ip| ip.to_canonical())
        .or_else(|_| with_port())
        .map_err(|_| "expected an address such as 10.0.0.7".to_owned())
}

pub(super) fn explain(
    root: &Root,
    port: u16,
    from: Option<IpAddr>,
    json: bool,
) -> anyhow::Result<u8> {
    let from = from.map_or_else(String::new, |from| format!("&from={from}"));
    let path = format!("/explain?port={port}{from}");
    let answer = client::ask(root, &Method::GET, &path)?;
    if json {
        out!("{}", String::from_utf8_lossy(&answer));
    } else {
        print(&client::parse(&answer)?);
    }
    Ok(DONE)
}

fn print(explain: &Explain) {
    let from = explain.from.as_deref().unwrap_or("anywhere");
    let balance = if explain.action == "steer" {
        format!(", BALANCE {}", explain.balance)
    } else {
        String::new()
    };
    out!(
        "port {} from {from}: {} ({}){balance}",
        explain.port,
        explain.action,
        explain.reason
    );
    for state in &explain.states {
        out!("state   {state}");
    }
    for limit in &explain.limits {
        out!("limit   {limit}");
    }
    for header in &explain.headers {
        out!("header  {header}");
    }
    if explain.by_chance {
        out!("One of many possible orders, for this policy draws:");
    }
    for candidate in &explain.candidates {
        let place = candidate
            .place
            .map_or_else(|| "-".to_owned(), |place| place.to_string());
        out!(
            "{place:>5}   {:<5} {:<32} {}",
            candidate.kind,
            candidate.address,
            candidate.why
        );
    }
    out!("{}", explain.verdict);
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn a_client_is_given_as_logs_show_it() {
        for text in [
            "10.0.0.7",
            "10.0.0.7:5555",
            "::ffff:10.0.0.7",
            "[::ffff:10.0.0.7]:5",
            "[::ffff:10.0.0.7]",
        ] {
            assert_eq!(address(text).unwrap().to_string(), "10.0.0.7", "{text}");
        }
        assert!(address("localhost").is_err());
    }
}
