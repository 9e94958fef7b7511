//! The names of a configuration, and what the log says of them.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::conf::{Conf, HostAddr, Target};

/// Names with changed addresses that one line of the log lists.
const MAX_SAID: usize = 8;

/// Whether a host or a target is written as a name, or targets are those of a service.
pub(super) fn has_names(conf: &Conf) -> bool {
    let mut targets = conf.apps.iter().flat_map(|app| &app.targets);
    conf.hosts.iter().any(HostAddr::is_name)
        || conf.apps.iter().any(|app| app.srv.is_some())
        || targets.any(Target::is_name)
}

/// Names of hosts.conf; some may come more than once.
pub(super) fn host_names(conf: &Conf) -> impl Iterator<Item = &str> {
    let hosts = conf.hosts.iter().filter(|host| host.is_name());
    hosts.map(|host| &*host.name)
}

/// Names of targets; some may come more than once.
pub(super) fn target_names(conf: &Conf) -> impl Iterator<Item = &str> {
    let targets = conf.apps.iter().flat_map(|app| &app.targets);
    let targets = targets.filter(|target| target.is_name());
    targets.map(|target| &*target.host)
}

/// Names, of hosts and of targets, that have other addresses than before, for the log; `None` where there are none.
pub(super) fn changed_names(old: &Conf, new: &Conf) -> Option<String> {
    let before: HashMap<&str, &[IpAddr]> = names(old).collect();
    let list = |addrs: &[IpAddr]| match addrs {
        [] => "nothing".to_owned(),
        addrs => addrs
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>()
            .join("+"),
    };
    let mut changed: Vec<String> = names(new)
        .filter_map(|(name, new)| {
            let old = *before.get(name)?;
            (old != new).then(|| format!("{name} {} -> {}", list(old), list(new)))
        })
        .collect();
    // A name may stand there with several ports.
    changed.dedup();
    let more = changed.len().saturating_sub(MAX_SAID);
    changed.truncate(MAX_SAID);
    if more > 0 {
        changed.push(format!("{more} more"));
    }
    (!changed.is_empty()).then(|| changed.join(", "))
}

/// Names and their addresses; those of targets in their own order.
fn names(conf: &Conf) -> impl Iterator<Item = (&str, &[IpAddr])> {
    let hosts = conf.hosts.iter().map(|host| (&*host.name, &*host.addrs));
    let targets = conf.apps.iter().flat_map(|app| &app.targets);
    hosts.chain(targets.map(|target| (&*target.host, &*target.addrs)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::addr::PortSet;
    use crate::conf::{self, Sources, World};
    use crate::diag::Source;

    /// A configuration with these hosts; every name has these addresses.
    fn conf(hosts: &str, addrs: &[&str]) -> Conf {
        let source = |path: &str, text: &str| Source {
            path: path.into(),
            text: text.to_owned(),
        };
        let sources = Sources {
            proxy: source("proxy.conf", "HOST 10.0.0.1"),
            mappings: None,
            hosts: Some(source("hosts.conf", hosts)),
            apps: None,
        };
        let resolve = |_: &str| match addrs {
            [] => Err(io::Error::other("no such name")),
            addrs => Ok(addrs.iter().map(|ip| ip.parse().unwrap()).collect()),
        };
        let world = World {
            resolve: &|_| Err(io::Error::other("no such name")),
            resolve_all: &|names, _| names.iter().copied().map(resolve).collect(),
            discovered: &|_, keys| vec![Err(String::new()); keys.len()],
            is_local: &|_| false,
            ephemeral: None,
            reserved: PortSet::new(),
            ignore_unknown: false,
            can_bind: None,
        };
        conf::parse(&sources, &world).value.unwrap()
    }

    #[test]
    fn the_log_says_what_changed() {
        let text = "10.0.0.1:1\nb.example:1\nb.example:2\n";
        let changed =
            |old: &[&str], new: &[&str]| changed_names(&conf(text, old), &conf(text, new));
        assert_eq!(changed(&["10.0.0.2"], &["10.0.0.2"]), None);
        assert_eq!(
            changed(&["10.0.0.2"], &["::3", "10.0.0.3"]).unwrap(),
            "b.example 10.0.0.2 -> 10.0.0.3+::3"
        );
        assert_eq!(
            changed(&[], &["10.0.0.2"]).unwrap(),
            "b.example nothing -> 10.0.0.2"
        );
    }

    #[test]
    fn a_whole_cluster_that_moved_is_one_short_line() {
        let text = (0..4000)
            .map(|number| format!("host{number}:1\n"))
            .collect::<Vec<_>>()
            .concat();
        let line = changed_names(&conf(&text, &["10.0.0.2"]), &conf(&text, &["10.0.0.3"]));
        let line = line.unwrap();
        assert!(line.ends_with(", 3992 more") && line.len() < 400, "{line}");
    }
}
