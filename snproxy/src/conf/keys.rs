//! The keys of proxy.conf, each declared once: how it is read, shown and explained.

use std::path::{Path, PathBuf};

use super::admin;
use super::etcd;
use super::peer_tls;
use super::port::PortConf;
use super::port_keys::PORT_KEYS;
use super::suggest::{Hint, hint, nearest};
use super::text::{Field, Findings};
use super::value::{
    self, NONE, choice, cluster, cluster_ports, duration, keepalive, max_conn, peers, proxy_port,
    show_cluster_ports, show_duration, show_max_conn, show_proxy_port, show_workers, unless_off,
    workers,
};
use super::{Conf, Explained, Origin, TargetNets};
use crate::diag::printable;

/// Values read so far; those of the two addresses are not yet resolved.
pub(super) struct Draft<'a> {
    pub(super) conf: Conf,
    pub(super) host: Option<Field<'a>>,
    pub(super) pod_host: Option<Field<'a>>,
}

/// What an unset key means.
pub(super) enum Unset {
    /// This text.
    Text(&'static str),
    /// Something that comes from other values.
    Derived(&'static str),
}

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) unset: Unset,
    /// One line for the README and for `check --explain`.
    pub(super) doc: &'static str,
    pub(super) scope: Scope,
}

/// What a key is for. `apply` checks a value and takes it; a bad one is a finding and changes nothing. `show` gives the
/// value in effect, in the form that `apply` takes.
pub(super) enum Scope {
    /// The process.
    Whole {
        apply: for<'a> fn(&mut Draft<'a>, Field<'a>, &mut Findings<'_>),
        show: fn(&Conf) -> String,
    },
    /// Each port.
    Ports {
        apply: fn(&mut PortConf, Field<'_>, &mut Findings<'_>),
        show: fn(&PortConf) -> String,
    },
}

/// All of them, in the order of the README.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    WHOLE_KEYS.iter().chain(PORT_KEYS)
}

/// A key as it is declared.
#[derive(Clone, Copy, Debug)]
pub struct KeyDoc {
    pub name: &'static str,
    /// `None`: it follows from other values.
    pub default: Option<&'static str>,
    pub doc: &'static str,
    /// Whether it is for each port, not for the process.
    pub of_port: bool,
}

/// The keys, in the order of the README.
pub fn key_docs() -> impl Iterator<Item = KeyDoc> {
    all().map(|key| KeyDoc {
        name: key.name,
        default: match key.unset {
            Unset::Text(text) => Some(text),
            Unset::Derived(_) => None,
        },
        doc: key.doc,
        of_port: matches!(key.scope, Scope::Ports { .. }),
    })
}

/// The key of this name, in any case of letters.
pub(super) fn by_name(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name.eq_ignore_ascii_case(name))
}

impl Key {
    /// The value in effect, for the ports of which nothing is said.
    fn show(&self, conf: &Conf) -> String {
        match self.scope {
            Scope::Whole { show, .. } => show(conf),
            Scope::Ports { show, .. } => show(conf.ports.common()),
        }
    }
}

/// In the order of the README.
pub(super) const WHOLE_KEYS: &[Key] = &[
    Key {
        name: "HOSTSCONF",
        unset: Unset::Text("hosts.conf"),
        doc: "hosts file, relative to the folder of proxy.conf",
        scope: Scope::Whole {
            apply: |draft, value, _| {
                draft.conf.files.hosts = beside(&draft.conf.files.proxy, value.text);
            },
            show: |conf| path(&conf.files.hosts),
        },
    },
    Key {
        name: "PORTSCONF",
        unset: Unset::Text("portmappings.conf"),
        doc: "port mappings file, relative to the folder of proxy.conf",
        scope: Scope::Whole {
            apply: |draft, value, _| {
                draft.conf.files.mappings = beside(&draft.conf.files.proxy, value.text);
            },
            show: |conf| path(&conf.files.mappings),
        },
    },
    Key {
        name: "APPSCONF",
        unset: Unset::Derived("none"),
        doc: "apps file (`config.json`), relative to the folder of proxy.conf: ports that are served by targets anywhere, beside those of portmappings.conf",
        scope: Scope::Whole {
            apply: |draft, value, _| {
                let is_none = value.text.eq_ignore_ascii_case(NONE);
                draft.conf.files.apps =
                    (!is_none).then(|| beside(&draft.conf.files.proxy, value.text));
            },
            show: |conf| {
                let apps = conf.files.apps.as_deref();
                apps.map_or_else(|| NONE.to_owned(), path)
            },
        },
    },
    Key {
        name: "HOST",
        unset: Unset::Derived("address in this host's line of hosts.conf, else in line 1"),
        doc: "address on which PORT and the cluster ports are served: an IP, a name, `0.0.0.0` or `::` (both families)",
        scope: Scope::Whole {
            apply: |draft, value, _| draft.host = Some(value),
            show: |conf| conf.host.to_string(),
        },
    },
    Key {
        name: "FAMILY",
        unset: Unset::Text("any"),
        doc: "addresses that are used: `any`, `ipv4` or `ipv6`; of targets of apps, and of clients where HOST is `::`",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.family, choice(value, findings)),
            show: |conf| conf.family.to_string(),
        },
    },
    Key {
        name: "PORT",
        unset: Unset::Text("32767"),
        doc: "port for traffic from other proxies; `none`: no other proxy is served",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.port, proxy_port(value, findings)),
            show: |conf| show_proxy_port(conf.port),
        },
    },
    Key {
        name: "PODHOST",
        unset: Unset::Derived("HOST; `127.0.0.1` where HOST is a wildcard"),
        doc: "address used to connect to the host port of a pod",
        scope: Scope::Whole {
            apply: |draft, value, _| draft.pod_host = Some(value),
            show: |conf| conf.pod_host.to_string(),
        },
    },
    Key {
        name: "CLUSTERPORTS",
        unset: Unset::Text("1024-29999,32768-65535"),
        doc: "ports that are cluster ports: a comma list of `a-b` (both included) or `p`; `none`; ports of apps always are",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                set(
                    &mut draft.conf.cluster_ports,
                    cluster_ports(value, findings),
                );
            },
            show: |conf| show_cluster_ports(&conf.cluster_ports),
        },
    },
    Key {
        name: "STEERING",
        unset: Unset::Text("auto"),
        doc: "how cluster ports reach the one listener: `ebpf`, `listeners` (a socket per mapped port), `auto` (ebpf where it can attach)",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.steering, choice(value, findings)),
            show: |conf| conf.steering.to_string(),
        },
    },
    Key {
        name: "WORKERS",
        unset: Unset::Text("auto"),
        doc: "threads that serve connections; `auto`: one per CPU that the process may use",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.workers, workers(value, findings)),
            show: |conf| show_workers(conf.workers),
        },
    },
    Key {
        name: "PUMP",
        unset: Unset::Text("adaptive"),
        doc: "how bytes are moved: `copy` through the process, `splice` through kernel pipes, `adaptive` messages by the first and bulk by the second",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.pump, choice(value, findings)),
            show: |conf| conf.pump.to_string(),
        },
    },
    Key {
        name: "CONFLICT",
        unset: Unset::Text("yield"),
        doc: "a cluster port on which another program listens: `yield` leaves it to a program that listened before the port was mapped, `steal` takes its new connections (needs root), `fail` does not start beside one; see [Port conflicts](#port-conflicts)",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.conflict, choice(value, findings)),
            show: |conf| conf.conflict.to_string(),
        },
    },
    Key {
        name: "UNMAPPED",
        unset: Unset::Text("auto"),
        doc: "a cluster port without a pod on this host: `steer` takes its connections to other hosts, `refuse` turns them away, `auto` steers it where other hosts may serve it, refuses it where the cluster directory says that none does, and else leaves it alone",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.unmapped, choice(value, findings)),
            show: |conf| conf.unmapped.to_string(),
        },
    },
    Key {
        name: "MAXCONN",
        unset: Unset::Text("auto"),
        doc: "connections of clients and of other proxies at once; `auto`: as many as the descriptors and the memory limit of the cgroup allow, the last tenth for ports and sources with less than a tenth; `0`: no limit",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                set(&mut draft.conf.max_conn, max_conn(value, findings));
            },
            show: |conf| show_max_conn(conf.max_conn),
        },
    },
    Key {
        name: "DRAINTIMEOUT",
        unset: Unset::Text("30s"),
        doc: "how long live connections may go on after TERM; `0` cuts them at once",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                set(&mut draft.conf.drain_timeout, duration(value, findings));
            },
            show: |conf| show_duration(conf.drain_timeout),
        },
    },
    Key {
        name: "KEEPALIVE",
        unset: Unset::Text("60s"),
        doc: "silence after which the kernel probes the other end (TCP keepalive); `0` is off",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                set(
                    &mut draft.conf.keepalive,
                    keepalive(value, findings).map(unless_off),
                );
            },
            show: |conf| show_duration(conf.keepalive.unwrap_or_default()),
        },
    },
    Key {
        name: "PEERS",
        unset: Unset::Text("hosts"),
        doc: "who may use PORT: `hosts` (the addresses of hosts.conf and of the cluster directory), `any`, networks, or several of these; a program of this host may if root or the user of snproxy runs it, with `local` whoever does",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.peers, peers(value, findings)),
            show: |conf| value::show_peers(&conf.peers),
        },
    },
    Key {
        name: "PEERTLS",
        unset: Unset::Text("none"),
        doc: "proxies speak TLS to each other on PORT, and each shows a certificate of the CA: certificates as for CLIENTTLS; options: `optional` (those that do not are served and called too), `verify=host` (the one that is called shows a certificate for its line of hosts.conf; else any of the CA does); see [TLS between hosts](#tls-between-hosts)",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                let Conf {
                    files, peer_tls, ..
                } = &mut draft.conf;
                peer_tls::read(value, &files.proxy, peer_tls, findings);
            },
            show: |conf| peer_tls::show(conf.peer_tls.as_deref()),
        },
    },
    Key {
        name: "ETCD",
        unset: Unset::Text("none"),
        doc: "where etcd is asked: `http://host:2379`, a comma list of its members, then, for `https`, certificates as in UPSTREAMTLS, then `user=NAME password-file=PATH`",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                let Conf { files, etcd, .. } = &mut draft.conf;
                etcd::read(value, &files.proxy, etcd, findings);
            },
            show: |conf| etcd::show(conf.etcd.as_deref()),
        },
    },
    Key {
        name: "CLUSTER",
        unset: Unset::Text("default"),
        doc: "name of the cluster: with ETCD its hosts publish what they serve under `/snproxy/<CLUSTER>/hosts/`; `none`: this one does not, and asks for none",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.cluster, cluster(value, findings)),
            show: |conf| conf.cluster.as_deref().unwrap_or(NONE).to_owned(),
        },
    },
    Key {
        name: "TARGETNETS",
        unset: Unset::Text("!link-local"),
        doc: "addresses that name servers and etcd may give for targets and hosts: networks, `link-local`, `loopback` or `any`; after `!` those are left out; see [Where targets may point](#where-targets-may-point)",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                set(
                    &mut draft.conf.target_nets,
                    TargetNets::parse(value, findings),
                );
            },
            show: |conf| conf.target_nets.to_string(),
        },
    },
    Key {
        name: "ADMIN",
        unset: Unset::Derived("`unix:/run/snproxy/<PORT>.sock`"),
        doc: "where the running proxy is asked: `unix:/path`, or `none`; then addresses such as `127.0.0.1:9180` at which whoever asks gets [metrics](#metrics)",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                set(&mut draft.conf.admin, admin::admin(value, findings));
            },
            show: admin::show,
        },
    },
    Key {
        name: "LOGLEVEL",
        unset: Unset::Text("info"),
        doc: "`error`, `warn`, `info`, `debug` or `trace`; the variable LOG_LEVEL wins",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.log_level, choice(value, findings)),
            show: |conf| conf.log_level.to_string(),
        },
    },
    Key {
        name: "LOGFORMAT",
        unset: Unset::Text("text"),
        doc: "`text` or `json`",
        scope: Scope::Whole {
            apply: |draft, value, findings| {
                set(&mut draft.conf.log_format, choice(value, findings));
            },
            show: |conf| conf.log_format.to_string(),
        },
    },
    Key {
        name: "BPFLOG",
        unset: Unset::Text("off"),
        doc: "what the steering program logs: `off`, `error`, `warn`, `info` or `debug`; all but `off` need CAP_PERFMON",
        scope: Scope::Whole {
            apply: |draft, value, findings| set(&mut draft.conf.bpf_log, choice(value, findings)),
            show: |conf| conf.bpf_log.to_string(),
        },
    },
];

/// A file named in proxy.conf: beside it, wherever we run; an absolute name stands for itself.
pub(super) fn beside(proxy: &Path, name: &str) -> PathBuf {
    proxy.parent().unwrap_or(Path::new("")).join(name)
}

pub(super) fn path(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

pub(super) fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// The hint for a key that is unknown.
pub(super) fn key_hint(name: &str) -> Hint {
    hint(all().map(|key| key.name), name)
}

/// The known key that an unknown one probably means.
pub fn nearest_key(name: &str) -> Option<&'static str> {
    nearest(all().map(|key| key.name), name)
}

/// Every key with its value in effect and where that comes from; what is said for some ports only comes behind.
pub fn explain(conf: &Conf) -> Vec<Explained> {
    let explained = all().flat_map(|key| {
        let said = |origin: &&Origin| origin.key == key.name;
        let origins = conf.origins.iter().filter(said);
        let common = origins.clone().find(|origin| origin.ports.is_none());
        let common = Explained {
            key: key.name,
            value: key.show(conf),
            origin: common.map_or_else(|| "default".to_owned(), |origin| origin.place.clone()),
            doc: key.doc,
        };
        let of_ports = origins.filter_map(|origin| {
            Some(Explained {
                key: key.name,
                value: origin.ports.clone()?,
                origin: origin.place.clone(),
                doc: key.doc,
            })
        });
        std::iter::once(common).chain(of_ports)
    });
    explained.collect()
}

/// The keys as a table for README.md.
pub fn markdown_table() -> String {
    let mut table = String::new();
    for (title, keys) in [("of the process", WHOLE_KEYS), ("of a port", PORT_KEYS)] {
        table.extend(["| key ", title, " | default | meaning |\n|---|---|---|\n"]);
        for key in keys {
            let unset = match key.unset {
                Unset::Text(text) => format!("`{text}`"),
                Unset::Derived(text) => text.to_owned(),
            };
            table.extend(["| `", key.name, "` | ", &unset, " | ", key.doc, " |\n"]);
        }
        table.push('\n');
    }
    table.pop();
    table
}
