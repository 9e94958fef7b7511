//! The table of a host, from the texts of its files.

use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use snproxy::addr::PortSet;
use snproxy::conf::{self, Sources, World};
use snproxy::diag::Source;
use snproxy::route::Table;

/// A host at 127.0.0.1 without others; `keys` go to its proxy.conf.
pub(crate) fn table(keys: &str, mappings: &str) -> Table {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.to_owned(),
    };
    let sources = Sources {
        proxy: source("proxy.conf", &format!("HOST 127.0.0.1\n{keys}")),
        mappings: Some(source("portmappings.conf", mappings)),
        hosts: Some(source("hosts.conf", "127.0.0.1:32767\n")),
        apps: None,
    };
    let world = World {
        resolve: &|name| Err(io::Error::other(format!("{name} is no address"))),
        resolve_all: &|names, _| names.iter().map(|_| Ok(Vec::new())).collect(),
        discovered: &|_, keys| vec![Err(String::new()); keys.len()],
        is_local: &|ip| ip == IpAddr::from([127, 0, 0, 1]),
        ephemeral: None,
        reserved: PortSet::new(),
        ignore_unknown: false,
        can_bind: None,
    };
    let parsed = conf::parse(&sources, &world);
    assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
    let conf = parsed.value.expect("a value where there is no error");
    Table::build(Arc::new(conf), None, Instant::now())
}

/// Mappings of `pods` pods of one cluster port.
pub(crate) fn mappings(cluster_port: u16, pods: u16) -> String {
    (0..pods).fold(String::new(), |mut text, pod| {
        let _ = writeln!(text, "{cluster_port}:{}:1000000:false", 30000 + pod);
        text
    })
}
