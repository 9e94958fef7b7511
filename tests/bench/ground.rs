//! Where the contestants run: hosts of their own, the same for all.

use crate::{load::CONGESTION_CONTROL, results::Topology};
use snproxy_tests::{Namespace, Process};
use std::{
    env,
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

/// The port that clients open. Below the ephemeral ports: a client socket that happened to get it would be connected
/// to itself.
pub(crate) const PORT: u16 = 1100;
/// The port of the pod.
pub(crate) const POD_PORT: u16 = 30_000;

/// Set in every namespace, for all contestants alike; keys below /proc/sys/net.
pub(crate) const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/tcp_congestion_control", CONGESTION_CONTROL),
    ("ipv4/ip_local_port_range", "2048 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
    // No TIME_WAIT: a round of direct connections leaves as many as there are ports, and who came next would search
    // long for a free one (seen: 2 ms per connect), or pay for the timers of who came before.
    ("ipv4/tcp_max_tw_buckets", "0"),
    // What one connection learned of the path is not for the next one.
    ("ipv4/tcp_no_metrics_save", "1"),
];

/// The hosts of one contestant: the client is on the first, the pod on the last.
pub(crate) struct Ground {
    pub(crate) topology: Topology,
    pub(crate) hosts: Vec<Host>,
}

pub(crate) struct Host {
    pub(crate) namespace: Namespace,
    pub(crate) address: Ipv4Addr,
}

impl Ground {
    /// `label` is the readable part of the names of its namespaces.
    pub(crate) fn new(topology: Topology, label: &str) -> Self {
        let hosts = match topology {
            Topology::OneHost => vec![Host {
                namespace: Namespace::new(label),
                address: Ipv4Addr::LOCALHOST,
            }],
            Topology::TwoHosts => {
                let hosts: Vec<_> = [("a", 1), ("b", 2)]
                    .into_iter()
                    .map(|(end, number)| Host {
                        namespace: Namespace::new(&format!("{label}-{end}")),
                        address: Ipv4Addr::new(10, 77, 0, number),
                    })
                    .collect();
                hosts[0].namespace.ip(&format!(
                    "link add eth0 type veth peer name eth0 netns {}",
                    hosts[1].namespace.name()
                ));
                for Host { namespace, address } in &hosts {
                    namespace.ip(&format!("address add {address}/24 dev eth0"));
                    namespace.ip("link set eth0 up");
                }
                hosts
            }
        };
        for host in &hosts {
            for (key, value) in SYSCTLS {
                host.namespace.sysctl(key, value);
            }
        }
        Self { topology, hosts }
    }

    pub(crate) fn first(&self) -> &Host {
        &self.hosts[0]
    }

    pub(crate) fn last(&self) -> &Host {
        &self.hosts[self.hosts.len() - 1]
    }

    pub(crate) fn pod_address(&self) -> SocketAddr {
        (self.last().address, POD_PORT).into()
    }
}

impl Host {
    /// A command that runs inside, and ends when this thread does, whatever ends it.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let name = Path::new("/run/netns").join(self.namespace.name());
        command
            .arg(format!("--net={}", name.display()))
            .args(["setpriv", "--pdeathsig", "TERM", "--"])
            .arg(program);
        command
    }

    /// A subcommand of this very executable.
    pub(crate) fn own(&self, subcommand: &str) -> Command {
        let own = env::current_exe().expect("path of this executable");
        let mut command = self.command(own);
        command.arg(subcommand);
        command
    }

    /// Starts a server and waits until it listens.
    pub(crate) fn server(&self, name: &str, command: &mut Command, port: u16) -> Process {
        let process = Process::spawn_here(name, command);
        snproxy_tests::eventually(super::START, &format!("{name} listens on {port}"), || {
            assert!(
                process.exit_status().is_none(),
                "{name} ended: {}",
                process.log()
            );
            self.namespace.listens(port)
        });
        process
    }
}
