//! What there is to see, each with its name, its labels and where in the status it stands.

use super::Kind::{Counter, Gauge};
use super::Value::{Count, Millis, Time};
use super::{Family, MAX_EACH, Sample, Value};
use crate::admin::api::{App, Directory, PodStatus, Queue, Service, Status, Target, TargetAddress};

/// In the order of the page.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "build_info",
        kind: Gauge,
        labels: &["version", "steering"],
        help: "1, with the version and the way of steering: `ebpf` or `listeners`",
        read: |status| {
            let labels = [&status.version, &status.steering];
            vec![one(labels, Count(1))]
        },
    },
    Family {
        name: "uptime_seconds",
        kind: Gauge,
        labels: &[],
        help: "Time since the start",
        read: |status| alone(Count(status.uptime_seconds)),
    },
    Family {
        name: "draining",
        kind: Gauge,
        labels: &[],
        help: "1: no new connections, those that live may end",
        read: |status| alone(truth(status.state == "draining")),
    },
    Family {
        name: "connections_live",
        kind: Gauge,
        labels: &[],
        help: "Connections that are served now",
        read: |status| alone(Count(status.connections.live)),
    },
    Family {
        name: "connections_waiting",
        kind: Gauge,
        labels: &[],
        help: "Other proxies' connections that have not asked for anything yet",
        read: |status| alone(Count(status.connections.waiting)),
    },
    Family {
        name: "connections_accepted",
        kind: Counter,
        labels: &[],
        help: "Connections since the start",
        read: |status| alone(Count(status.connections.total)),
    },
    Family {
        name: "connections_ended",
        kind: Counter,
        labels: &["end"],
        help: "Connections that ended, by how they did",
        read: |status| {
            let ends = status.ends.iter();
            ends.map(|(end, count)| one([end], Count(*count))).collect()
        },
    },
    Family {
        name: "connections_max",
        kind: Gauge,
        labels: &[],
        help: "Most connections at once, by MAXCONN",
        read: |status| perhaps(status.limits.connections.map(u64::from)),
    },
    Family {
        name: "queue_connections",
        kind: Gauge,
        labels: &["limit"],
        help: "Connections that wait for a place, by what holds them up",
        read: |status| {
            by_limit(status, |waiting| {
                Count(waiting.iter().map(|line| count(line.waiting.len())).sum())
            })
        },
    },
    Family {
        name: "queue_oldest_seconds",
        kind: Gauge,
        labels: &["limit"],
        help: "How long the one has waited that waits longest",
        read: |status| {
            by_limit(status, |waiting| {
                let waiting = waiting.iter().flat_map(|line| &line.waiting);
                Millis(waiting.map(|it| it.waited_ms).max().unwrap_or(0))
            })
        },
    },
    Family {
        name: "descriptors_open",
        kind: Gauge,
        labels: &[],
        help: "Open descriptors of the process",
        read: |status| perhaps(status.limits.descriptors_open),
    },
    Family {
        name: "descriptors_max",
        kind: Gauge,
        labels: &[],
        help: "Most descriptors that it may have",
        read: |status| perhaps(status.limits.descriptors),
    },
    Family {
        name: "ports",
        kind: Gauge,
        labels: &["action"],
        help: "Cluster ports, by what becomes of them: `steer`, `refuse`, or `pass` to who else listens",
        read: |status| {
            let ports = &status.ports;
            let actions = [
                ("steer", ports.steer),
                ("refuse", ports.refuse),
                ("pass", ports.pass),
            ];
            actions
                .map(|(action, ports)| one([action], Count(count(ports))))
                .into()
        },
    },
    Family {
        name: "ports_down",
        kind: Gauge,
        labels: &[],
        help: "Ports without an upstream that is up",
        read: |status| alone(Count(count(status.ports.all_out))),
    },
    Family {
        name: "port_conflicts",
        kind: Gauge,
        labels: &["state"],
        help: "Mapped ports on which another program listens: `held` by it, or `shadowed`, as it gets no connections",
        read: |status| {
            let conflicts = &status.conflicts;
            let states = [
                ("held", conflicts.held_ports),
                ("shadowed", conflicts.shadowed_ports),
            ];
            states
                .map(|(state, ports)| one([state], Count(count(ports))))
                .into()
        },
    },
    Family {
        name: "steering_pending",
        kind: Gauge,
        labels: &[],
        help: "1: the kernel's ports are not yet as they should be",
        read: |status| alone(truth(status.pending.is_some())),
    },
    Family {
        name: "lookups",
        kind: Counter,
        labels: &["outcome"],
        help: "Lookups of the steering program, of which one connection can take several; with eBPF only",
        read: |status| {
            let Some(kernel) = &status.kernel else {
                return Vec::new();
            };
            let outcomes = [
                ("steered", kernel.steered),
                ("refused", kernel.refused),
                ("limited", kernel.limited),
                ("no_listener", kernel.no_listener),
                ("failed", kernel.failed),
            ];
            outcomes
                .map(|(outcome, lookups)| one([outcome], Count(lookups)))
                .into()
        },
    },
    Family {
        name: "hosts",
        kind: Gauge,
        labels: &["state"],
        help: "The other hosts, by whether their proxies are reached",
        read: |status| {
            let hosts = &status.hosts;
            let states = [
                ("up", hosts.up),
                ("draining", hosts.draining),
                ("down", hosts.down),
            ];
            states
                .map(|(state, hosts)| one([state], Count(count(hosts))))
                .into()
        },
    },
    Family {
        name: "pod_connections",
        kind: Gauge,
        labels: POD,
        help: "Live connections of a pod",
        read: |status| pods(status, |pod| Count(pod.active.into())),
    },
    Family {
        name: "pod_connections_max",
        kind: Gauge,
        labels: POD,
        help: "Its maxConn",
        read: |status| pods(status, |pod| Count(pod.max_conn.into())),
    },
    Family {
        name: "pod_up",
        kind: Gauge,
        labels: POD,
        help: "1: it takes connections, as far as HEALTH knows",
        read: |status| pods(status, |pod| truth(pod.up)),
    },
    Family {
        name: "target_connections",
        kind: Gauge,
        labels: TARGET,
        help: "Live connections of an address of an app's target",
        read: |status| targets(status, |_, address| Count(address.active.into())),
    },
    Family {
        name: "target_connections_max",
        kind: Gauge,
        labels: TARGET,
        help: "Its maxConn",
        read: |status| targets(status, |target, _| Count(target.max_conn.into())),
    },
    Family {
        name: "target_up",
        kind: Gauge,
        labels: TARGET,
        help: "1: it takes connections, as far as HEALTH knows",
        read: |status| targets(status, |_, address| truth(address.up)),
    },
    Family {
        name: "service_nodes",
        kind: Gauge,
        labels: &["service"],
        help: "Nodes of a service, as etcd last said",
        read: |status| {
            services(status, |service| {
                service.nodes.map(|nodes| Count(count(nodes)))
            })
        },
    },
    Family {
        name: "service_keys_ignored",
        kind: Gauge,
        labels: &["service"],
        help: "Its keys that are no address",
        read: |status| services(status, |service| Some(Count(count(service.ignored)))),
    },
    Family {
        name: "service_stale_seconds",
        kind: Gauge,
        labels: &["service"],
        help: "Time since etcd last answered for it; 0: it does",
        read: |status| {
            services(status, |service| {
                Some(Millis(service.stale_ms.unwrap_or(0)))
            })
        },
    },
    Family {
        name: "directory_current",
        kind: Gauge,
        labels: &[],
        help: "1: the cluster directory is as etcd has it; with ETCD only",
        read: |status| directory(status, |it| truth(it.state == "current")),
    },
    Family {
        name: "directory_stale_seconds",
        kind: Gauge,
        labels: &[],
        help: "Time since etcd was last reached for it; 0: it is",
        read: |status| directory(status, |it| Millis(it.lost_ms.unwrap_or(0))),
    },
    Family {
        name: "directory_hosts",
        kind: Gauge,
        labels: &[],
        help: "Other hosts that publish what they serve",
        read: |status| directory(status, |it| Count(count(it.hosts))),
    },
    Family {
        name: "directory_ports",
        kind: Gauge,
        labels: &[],
        help: "Ports that these serve",
        read: |status| directory(status, |it| Count(count(it.ports))),
    },
    Family {
        name: "directory_published",
        kind: Gauge,
        labels: &[],
        help: "1: all that this host serves is there",
        read: |status| directory(status, |it| truth(it.published)),
    },
    Family {
        name: "configurations_accepted",
        kind: Counter,
        labels: &[],
        help: "Configurations that came into force, with changes of names and nodes",
        read: |status| alone(Count(status.generation)),
    },
    Family {
        name: "configurations_refused",
        kind: Counter,
        labels: &[],
        help: "Configurations that were found to be bad",
        read: |status| alone(Count(status.refusals)),
    },
    Family {
        name: "configuration_refused",
        kind: Gauge,
        labels: &[],
        help: "1: the files as they are now are bad, the last good ones stay in force",
        read: |status| alone(truth(!status.reload.ok && !status.reload.waiting)),
    },
    Family {
        name: "configuration_waiting",
        kind: Gauge,
        labels: &[],
        help: "1: they are good, and wait for the kernel or for what else runs on the host",
        read: |status| alone(truth(status.reload.waiting)),
    },
    Family {
        name: "certificate_expiry_timestamp_seconds",
        kind: Gauge,
        labels: &["use", "source", "file", "subject"],
        help: "End of a certificate in use, in seconds since 1970; of several with one name the first end",
        read: |status| {
            let certificates = status.certificates.iter().take(MAX_EACH);
            let series = certificates.flat_map(|it| {
                let labels = |key| [key, &it.source, &it.file, &it.subject];
                let keys = it.uses.iter();
                keys.map(move |key| one(labels(key), Time(it.expires_at)))
            });
            series.collect()
        },
    },
    Family {
        name: "certificate_rotation_failed",
        kind: Gauge,
        labels: &["source"],
        help: "1: what is there now cannot be used, the last good certificates stay in use",
        read: |status| {
            let sources = status.certificate_sources.iter().take(MAX_EACH);
            sources
                .map(|it| one([&it.source], truth(it.problem.is_some())))
                .collect()
        },
    },
    Family {
        name: "series_left_out",
        kind: Gauge,
        labels: &["of"],
        help: "Pods, targets, services and certificates beyond the first 2,000 of each, which have no series",
        read: |status| {
            let left = |all: usize| Count(count(all.saturating_sub(MAX_EACH)));
            let of = [
                ("pods", status.pods.len()),
                ("targets", all_targets(status).count()),
                ("services", status.services.len()),
                ("certificates", status.certificates.len()),
            ];
            of.map(|(of, all)| one([of], left(all))).into()
        },
    },
];

const POD: &[&str] = &["port", "upstream"];
const TARGET: &[&str] = &["app", "upstream"];

/// As the limits are set.
const LIMITS: [&str; 3] = ["MAXCONN", "PORTMAXCONN", "maxConn"];

fn one<const N: usize>(labels: [impl AsRef<str>; N], value: Value) -> Sample {
    Sample {
        labels: labels.map(|label| label.as_ref().to_owned()).into(),
        value,
    }
}

fn alone(value: Value) -> Vec<Sample> {
    vec![one::<0>([] as [&str; 0], value)]
}

fn perhaps(value: Option<u64>) -> Vec<Sample> {
    value.map_or_else(Vec::new, |value| alone(Count(value)))
}

fn truth(is: bool) -> Value {
    Count(is.into())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn by_limit(status: &Status, read: impl Fn(&[&Queue]) -> Value) -> Vec<Sample> {
    let of = |limit| {
        let queues = status.queues.iter();
        let queues: Vec<_> = queues.filter(|queue| queue.limit == limit).collect();
        one([limit], read(&queues))
    };
    LIMITS.map(of).into()
}

fn pods(status: &Status, read: impl Fn(&PodStatus) -> Value) -> Vec<Sample> {
    let pods = status.pods.iter().take(MAX_EACH);
    pods.map(|pod| one([&pod.cluster_port.to_string(), &pod.upstream], read(pod)))
        .collect()
}

fn all_targets(status: &Status) -> impl Iterator<Item = (&App, &Target, &TargetAddress)> {
    status.apps.iter().flat_map(|app| {
        let targets = app.targets.iter();
        targets.flat_map(move |target| {
            let addresses = target.addresses.iter();
            addresses.map(move |address| (app, target, address))
        })
    })
}

fn targets(status: &Status, read: impl Fn(&Target, &TargetAddress) -> Value) -> Vec<Sample> {
    let series = all_targets(status)
        .take(MAX_EACH)
        .map(|(app, target, address)| one([&app.name, &address.upstream], read(target, address)));
    series.collect()
}

fn services(status: &Status, read: impl Fn(&Service) -> Option<Value>) -> Vec<Sample> {
    let services = status.services.iter().take(MAX_EACH);
    services
        .filter_map(|service| Some(one([&service.key], read(service)?)))
        .collect()
}

fn directory(status: &Status, read: impl Fn(&Directory) -> Value) -> Vec<Sample> {
    let directory = status.directory.iter();
    directory.flat_map(|it| alone(read(it))).collect()
}
