//! Names of hosts.conf are asked for their addresses again and again: hosts move, the file stays.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::conf::{Conf, HostAddr, Target};

use super::Daemon;
use super::reload::Why;

/// Time after which the names of hosts.conf are resolved again.
const NAMES_AGE: Duration = Duration::from_mins(1);

/// Names with changed addresses that one line of the log lists.
const MAX_SAID: usize = 8;

impl Daemon {
    /// Begins a look at the names of the configuration in force, once a minute.
    pub(super) fn renew_names(&mut self, now: Instant) {
        let conf = &self.shared.table.load().conf;
        let resolved = self.loaded.resolved();
        if resolved.is_some_and(|resolved| are_due(conf, resolved, now)) {
            self.reload(Why::Names);
        }
    }
}

/// Whether a host or a target is written as a name, or targets are those of a service.
pub(super) fn has_names(conf: &Conf) -> bool {
    let mut targets = conf.apps.iter().flat_map(|app| &app.targets);
    conf.hosts.iter().any(HostAddr::is_name)
        || conf.apps.iter().any(|app| app.srv.is_some())
        || targets.any(Target::is_name)
}

/// Whether the names of `conf` are to be resolved again.
fn are_due(conf: &Conf, resolved: Instant, now: Instant) -> bool {
    now.saturating_duration_since(resolved) >= NAMES_AGE && conf.hosts.iter().any(HostAddr::is_name)
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
            resolve: &resolve,
            resolve_targets: &|names| names.iter().map(|_| Ok(Vec::new())).collect(),
            discovered: &|_, keys| vec![Err(String::new()); keys.len()],
            is_local: &|_| false,
            ephemeral: None,
            reserved: PortSet::new(),
        };
        conf::parse(&sources, &world).value.unwrap()
    }

    #[test]
    fn names_are_due_after_a_minute_and_addresses_never() {
        let (named, plain) = (
            conf("b.example:1\n", &[]),
            conf("10.0.0.2:1\n[::2]:1\n", &[]),
        );
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(!are_due(&named, start, later(59)));
        assert!(are_due(&named, start, later(60)));
        assert!(!are_due(&plain, start, later(3600)));
        // A clock that is read before the answer came.
        assert!(!are_due(&named, later(1), start));
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
