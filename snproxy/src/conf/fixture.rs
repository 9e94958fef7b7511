//! Configurations for the tests of what is made of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::text::{Field, Findings};
use super::{Conf, Sources, World, parse};
use crate::addr::PortSet;
use crate::diag::{Place, Source};

/// The address of this host; no other one is.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The texts of a set of files; each is empty unless it is said otherwise. Names have no addresses.
#[derive(Default)]
pub(crate) struct Texts<'a> {
    pub(crate) proxy: &'a str,
    pub(crate) mappings: &'a str,
    pub(crate) hosts: &'a str,
    pub(crate) apps: Option<&'a str>,
}

impl Texts<'_> {
    pub(crate) fn conf(&self) -> Arc<Conf> {
        let source = |path: &str, text: &str| Source {
            path: path.into(),
            text: text.to_owned(),
        };
        let sources = Sources {
            proxy: source("proxy.conf", self.proxy),
            mappings: Some(source("portmappings.conf", self.mappings)),
            hosts: Some(source("hosts.conf", self.hosts)),
            apps: self.apps.map(|apps| source("config.json", apps)),
        };
        let world = World {
            resolve: &|name| Err(io::Error::other(format!("{name} is no address"))),
            resolve_all: &|names, _| names.iter().map(|_| Ok(Vec::new())).collect(),
            discovered: &|_, keys| vec![Err(String::new()); keys.len()],
            is_local: &|ip| ip == IpAddr::V4(OWN),
            ephemeral: None,
            reserved: PortSet::new(),
            ignore_unknown: false,
            can_bind: None,
        };
        let parsed = parse(&sources, &world);
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        Arc::new(parsed.value.unwrap())
    }
}

/// What `take` makes of a value that is the whole of a file, and what is found in it.
pub(super) fn read<T>(
    text: &str,
    take: impl FnOnce(Field<'_>, &mut Findings<'_>) -> T,
) -> (T, Vec<String>) {
    let source = Source {
        path: "proxy.conf".into(),
        text: text.to_owned(),
    };
    let mut findings = Findings::new(&source);
    let place = Place {
        line: 1,
        col: 1,
        start: 0,
        end: text.len(),
    };
    let field = Field {
        text: &source.text,
        place,
    };
    let value = take(field, &mut findings);
    let findings = findings.finish();
    (value, findings.iter().map(ToString::to_string).collect())
}
