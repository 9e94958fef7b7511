//! What becomes of each port, and why: from the configuration, the routes and the host's other listeners.

use std::fmt;

use crate::addr::{Action, PortSet};
use crate::conf::{Conf, Locality, Unmapped};

use super::Table;

/// Why a port has its action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Outside CLUSTERPORTS.
    Foreign,
    /// PORT itself.
    ProxyPort,
    /// A pod listens here, at an address that is steered.
    PodListens,
    /// Another program listens here, and there is no route.
    Conflict,
    /// It has a route, and another program that listened before the route came into force.
    Held,
    /// Below `net.ipv4.ip_unprivileged_port_start`, and this process may not take such ports.
    Privileged,
    /// A pod of this host serves it.
    Mapped,
    /// Targets of an app serve it.
    App,
    /// No pod of this host can serve it, but another host may.
    OtherHosts,
    /// Every pod of it is down.
    PodsDown,
    /// An app serves it, of which no node is known and no target has an address.
    NoTarget,
    /// No pod of this host is mapped to it.
    NotMapped,
    /// No host of the cluster serves it.
    Unserved,
    /// Another host serves it, and there are no more listeners.
    NoListener,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "not a cluster port",
            Self::ProxyPort => "the proxy port",
            Self::PodListens => "host port of a pod",
            Self::Conflict => "another program listens",
            Self::Held => "another program listened before the mapping",
            Self::Privileged => "privileged port, needs CAP_NET_BIND_SERVICE",
            Self::Mapped => "mapped",
            Self::App => "app",
            Self::OtherHosts => "other hosts may serve it",
            Self::PodsDown => "all pods are down",
            Self::NoTarget => "no node is known, no target has an address",
            Self::NotMapped => "not mapped",
            Self::Unserved => "no host serves it",
            Self::NoListener => "another host serves it, and no listener is left",
        })
    }
}

/// One port's lot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lot {
    pub action: Action,
    pub reason: Reason,
}

/// What the host lets a plan have.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'b> {
    /// Ports that are left to other local programs.
    pub taken: &'b PortSet,
    /// Each steered port costs a listener, and there are no more than that; `None`: they cost nothing.
    pub listeners: Option<usize>,
    /// Ports below are left alone: taking them needs a privilege.
    pub lowest: u16,
}

/// The lot of all 65,536 ports.
#[derive(Clone, Eq, PartialEq)]
pub struct Plan(Box<[Lot]>);

/// The state of a kernel map that was never written.
const FOREIGN: Lot = Lot {
    action: Action::Pass,
    reason: Reason::Foreign,
};

impl Plan {
    /// The plan of a host that steers nothing.
    pub fn nothing() -> Self {
        Self(vec![FOREIGN; 65_536].into_boxed_slice())
    }

    /// The rules, first match first.
    pub fn build(conf: &Conf, table: &Table, bounds: Bounds<'_>) -> Self {
        let Bounds {
            taken,
            listeners,
            lowest,
        } = bounds;
        let view = table.peers.view();
        let complete = view.as_ref().filter(|view| view.is_complete);
        let crosses = |port| conf.of_port(port).locality != Locality::Only;
        let others = |port| {
            let may_serve = match complete {
                Some(view) => view.serves(port),
                None => !table.peers.is_empty(),
            };
            may_serve && crosses(port)
        };
        // What was known last holds here: nobody listens on all ports in case that somebody serves one.
        let is_served = |port| view.as_ref().is_some_and(|view| view.serves(port)) && crosses(port);
        let mut left = listeners.map(|most| most.saturating_sub(table.services().count()));
        let mut not_mapped = |port| match conf.unmapped {
            Unmapped::Refuse => (Action::Refuse, Reason::NotMapped),
            Unmapped::Steer if others(port) => (Action::Steer, Reason::OtherHosts),
            Unmapped::Steer => (Action::Steer, Reason::NotMapped),
            Unmapped::Auto => match &mut left {
                None if others(port) => (Action::Steer, Reason::OtherHosts),
                Some(0) if is_served(port) => (Action::Pass, Reason::NoListener),
                Some(left) if is_served(port) => {
                    *left -= 1;
                    (Action::Steer, Reason::OtherHosts)
                }
                _ if complete.is_some() && !table.peers.is_empty() && crosses(port) => {
                    (Action::Refuse, Reason::Unserved)
                }
                // Not refused by us: without a listener the kernel does that by itself, at the first SYN too.
                // The ephemeral ports are cluster ports by default, and a program that has just
                // got one must be reachable at once.
                _ => (Action::Pass, Reason::NotMapped),
            },
        };
        let yielded = |port| taken.contains(port);
        let mut host_ports: PortSet = if conf.host.is_unspecified() || conf.host == conf.pod_host {
            conf.mappings
                .iter()
                .map(|mapping| mapping.host_port.get())
                .collect()
        } else {
            PortSet::new()
        };
        for target in conf.apps.iter().flat_map(|app| &app.targets) {
            if target
                .addrs
                .iter()
                .any(|ip| conf.comes_back(*ip, target.port))
            {
                host_ports.insert(target.port);
            }
        }
        let mut plan = Self::nothing();
        for port in conf.cluster_ports.iter() {
            let (action, reason) = if port == conf.port {
                (Action::Pass, Reason::ProxyPort)
            } else if yielded(port) && !host_ports.contains(port) {
                let is_served = table.service(port).is_some();
                let reason = if is_served {
                    Reason::Held
                } else {
                    Reason::Conflict
                };
                (Action::Pass, reason)
            } else if port < lowest {
                (Action::Pass, Reason::Privileged)
            } else if host_ports.contains(port) {
                (Action::Pass, Reason::PodListens)
            } else {
                match table.service(port) {
                    Some(service) if service.alive() && service.is_app => {
                        (Action::Steer, Reason::App)
                    }
                    Some(service) if service.alive() => (Action::Steer, Reason::Mapped),
                    Some(_) if others(port) => (Action::Steer, Reason::OtherHosts),
                    Some(service) if service.pods.is_empty() => (Action::Refuse, Reason::NoTarget),
                    Some(service) if service.may_be_back() => (Action::Steer, Reason::PodsDown),
                    Some(_) => (Action::Refuse, Reason::PodsDown),
                    None => not_mapped(port),
                }
            };
            let is_limited = action == Action::Steer && conf.of_port(port).port_rate.is_some();
            let action = if is_limited {
                Action::SteerLimited
            } else {
                action
            };
            plan.0[usize::from(port)] = Lot { action, reason };
        }
        plan
    }

    /// Ports of which every pod is down, or that have none.
    pub fn all_out(&self) -> PortSet {
        let mut all_out = self.of_reason(Reason::PodsDown);
        for port in self.of_reason(Reason::NoTarget).iter() {
            all_out.insert(port);
        }
        all_out
    }

    /// Ports with this reason.
    pub fn of_reason(&self, reason: Reason) -> PortSet {
        let ports = self.ports().filter(|(_, lot)| lot.reason == reason);
        ports.map(|(port, _)| port).collect()
    }

    pub fn lot(&self, port: u16) -> Lot {
        self.0[usize::from(port)]
    }

    /// What the kernel is to be told, for all 65,536 ports.
    pub fn actions(&self) -> impl Iterator<Item = (u16, Action)> + '_ {
        self.ports().map(|(port, lot)| (port, lot.action))
    }

    /// Ports with their lots, ascending.
    pub fn ports(&self) -> impl Iterator<Item = (u16, Lot)> + '_ {
        (0..=u16::MAX).zip(self.0.iter().copied())
    }
}
