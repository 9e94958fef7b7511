//! The differences of two configurations, for the log.

use std::collections::BTreeMap;

use tracing::{debug, info};

use crate::addr::PortSet;
use crate::admin::api;
use crate::conf::{App, Conf, HostAddr, Mapping, explain};
use crate::route::Table;

use super::names::changed_names;
use super::reload::Why;

/// Items of one kind that are named; ranges of ports count as one.
const MAX_NAMED: usize = 8;

/// Each `None` where nothing is of this kind: `ports 1025,2000-2009; apps web; keys BALANCE`.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Changes {
    pub added: Option<String>,
    pub changed: Option<String>,
    pub removed: Option<String>,
    /// Names that have other addresses.
    pub addresses: Option<String>,
}

/// One kind of items.
#[derive(Debug, Default)]
struct Kind<T> {
    added: Vec<T>,
    changed: Vec<T>,
    removed: Vec<T>,
}

impl Changes {
    /// What a look at the files changed, or one at names only.
    pub(super) fn of(why: Why, old: &Conf, new: &Conf) -> Self {
        let changes = match why {
            Why::Nodes | Why::Names => Self::default(),
            Why::Changed | Why::Asked => Self::between(old, new),
        };
        Self {
            addresses: changed_names(old, new),
            ..changes
        }
    }

    /// The line of a configuration that came into force.
    pub(super) fn log(self, why: Why, table: &Table, ports: &api::PortCounts) {
        let generation = table.generation;
        if why == Why::Nodes {
            debug!(generation, "nodes in force");
            return;
        }
        info!(
            generation,
            mappings = table.conf.mappings.len(),
            steered = ports.steer,
            refused = ports.refuse,
            added = self.added,
            changed = self.changed,
            removed = self.removed,
            addresses = self.addresses,
            "configuration in force"
        );
    }

    fn between(old: &Conf, new: &Conf) -> Self {
        let ports = if old.mappings == new.mappings {
            Kind::default()
        } else {
            Kind::of(mappings(old), mappings(new))
        };
        let mut changes = Self::default();
        changes.add("ports", ports.map(ranges));
        changes.add("apps", Kind::of(apps(old), apps(new)).map(named));
        changes.add("hosts", Kind::of(hosts(old), hosts(new)).map(named));
        changes.add("keys", Kind::of(keys(old), keys(new)).map(named));
        changes
    }

    fn add(&mut self, kind: &str, items: [Option<String>; 3]) {
        let all = [&mut self.added, &mut self.changed, &mut self.removed];
        for (text, items) in all.into_iter().zip(items) {
            let Some(items) = items else { continue };
            let before = text.take().map_or_else(String::new, |text| text + "; ");
            *text = Some(format!("{before}{kind} {items}"));
        }
    }
}

impl<T: Ord> Kind<T> {
    fn of<V: PartialEq>(mut old: BTreeMap<T, V>, new: BTreeMap<T, V>) -> Self {
        let (mut added, mut changed) = (Vec::new(), Vec::new());
        for (item, value) in new {
            match old.remove(&item) {
                None => added.push(item),
                Some(before) if before != value => changed.push(item),
                Some(_) => {}
            }
        }
        Self {
            added,
            changed,
            removed: old.into_keys().collect(),
        }
    }

    fn map(self, text: impl Fn(Vec<T>) -> Option<String>) -> [Option<String>; 3] {
        [self.added, self.changed, self.removed].map(text)
    }
}

fn ranges(ports: Vec<u16>) -> Option<String> {
    let mut set = PortSet::new();
    for port in ports {
        set.insert(port);
    }
    let ranges = set.ranges().into_iter().map(|(first, last)| match last {
        _ if first == last => first.to_string(),
        last => format!("{first}-{last}"),
    });
    bounded(ranges.collect(), ",")
}

fn named(names: Vec<String>) -> Option<String> {
    bounded(names, ", ")
}

fn bounded(mut items: Vec<String>, comma: &str) -> Option<String> {
    let more = items.len().saturating_sub(MAX_NAMED);
    items.truncate(MAX_NAMED);
    let end = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (!items.is_empty()).then(|| items.join(comma) + &end)
}

/// By cluster port, without the places in the file.
fn mappings(conf: &Conf) -> BTreeMap<u16, Vec<Mapping>> {
    let mut ports: BTreeMap<u16, Vec<Mapping>> = BTreeMap::new();
    for mapping in &conf.mappings {
        let pods = ports.entry(mapping.cluster_port.get()).or_default();
        pods.push(Mapping {
            line: 0,
            col: 0,
            ..*mapping
        });
    }
    ports
}

/// What the file says of an app: the addresses of its names, and the nodes of its service, change
/// without it.
fn apps(conf: &Conf) -> BTreeMap<String, String> {
    let text = |app: &App| {
        let ports: Vec<_> = app
            .ports
            .iter()
            .map(|range| (range.first, range.last))
            .collect();
        let targets = app.targets.iter().filter(|_| app.srv.is_none());
        let targets: Vec<_> = targets
            .map(|it| (&it.host, it.port, it.weight, it.max_conn, it.send_proxy))
            .collect();
        format!("{ports:?} {targets:?} {:?}", app.srv)
    };
    let apps = conf.apps.iter();
    apps.map(|app| (app.name.to_string(), text(app))).collect()
}

/// By name and port; there is nothing else to change.
fn hosts(conf: &Conf) -> BTreeMap<String, u16> {
    let name = |host: &HostAddr| {
        if host.name.contains(':') {
            format!("[{}]:{}", host.name, host.port)
        } else {
            format!("{}:{}", host.name, host.port)
        }
    };
    let hosts = conf.hosts.iter();
    hosts.map(|host| (name(host), host.port)).collect()
}

/// Keys that are not at their default, with all that was set.
fn keys(conf: &Conf) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in explain(conf) {
        if key.origin != "default" {
            keys.entry(key.key.to_owned()).or_default().push(key.value);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{self, Sources, World};
    use crate::diag::Source;

    fn conf(proxy: &str, mappings: &str, hosts: &str, apps: &str) -> Conf {
        let source = |path: &str, text: &str| Source {
            path: path.into(),
            text: text.to_owned(),
        };
        let sources = Sources {
            proxy: source(
                "proxy.conf",
                &format!("HOST 10.0.0.1\nAPPSCONF a.json\n{proxy}"),
            ),
            mappings: Some(source("portmappings.conf", mappings)),
            hosts: Some(source("hosts.conf", hosts)),
            apps: Some(source("a.json", apps)),
        };
        let world = World {
            resolve: &|_| Ok(vec!["10.0.0.9".parse().unwrap()]),
            resolve_all: &|names, _| names.iter().map(|_| Ok(Vec::new())).collect(),
            discovered: &|_, keys| vec![Err(String::new()); keys.len()],
            is_local: &|ip| ip == "10.0.0.1".parse::<std::net::IpAddr>().unwrap(),
            ephemeral: None,
            reserved: PortSet::new(),
            ignore_unknown: false,
            can_bind: None,
        };
        conf::parse(&sources, &world).value.unwrap()
    }

    fn app(name: &str, port: u16) -> String {
        format!(r#"{{"Name":"{name}","Ports":[{port}],"Targets":["10.0.0.1:9"]}}"#)
    }

    #[test]
    fn added_changed_and_removed_items_are_named() {
        let apps = |apps: &[String]| format!(r#"{{"Apps":[{}]}}"#, apps.join(","));
        let old = conf(
            "BALANCE rr\nMAXCONN 9\n",
            "1024:1:1:true 1025:1:1:true 1030:1:1:true",
            "10.0.0.1:1\n10.0.0.2:1\n",
            &apps(&[app("a", 4000), app("b", 4001)]),
        );
        let new = conf(
            "BALANCE ordered\nIDLETIMEOUT 1024 9s\n",
            "\n\n1024:1:1:true 1025:1:2:true 1026:1:1:true 1027:1:1:true",
            "10.0.0.1:1\n10.0.0.3:1\n",
            &apps(&[app("a", 4002), app("c", 4001)]),
        );
        let text = |text: &str| Some(text.to_owned());
        let changes = Changes {
            added: text("ports 1026-1027; apps c; hosts 10.0.0.3:1; keys IDLETIMEOUT"),
            changed: text("ports 1025; apps a; keys BALANCE"),
            removed: text("ports 1030; apps b; hosts 10.0.0.2:1; keys MAXCONN"),
            addresses: None,
        };
        assert_eq!(Changes::between(&old, &new), changes);
        assert_eq!(Changes::between(&new, &new), Changes::default());
    }

    #[test]
    fn many_changes_are_counted() {
        let lines = (0..20_000).map(|at| format!("{}:1:1:true ", 1024 + 3 * at));
        let many = conf("", &lines.collect::<String>(), "", "{}");
        let added = Changes::between(&conf("", "", "", "{}"), &many)
            .added
            .unwrap();
        assert!(added.starts_with("ports 1024,1027,1030,"), "{added}");
        assert!(added.ends_with(" and 19992 more"), "{added}");
    }
}
