//! What is told of steering.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use tracing::warn;

use super::{Mechanism, Steerer};
use crate::addr::Action;
use crate::admin::api;
use crate::route::plan::{Lot, Plan, Reason};
use crate::steering::{Counters, KernelLog};

/// What holds of a port that is to be steered or refused, beside its plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum PortState {
    /// Its listener could not be opened: the number of the error.
    Closed(i32),
    /// The kernel does not have its action yet.
    Pending,
    /// It floods the accept queue.
    Isolated,
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(number) => {
                let error = io::Error::from_raw_os_error(*number);
                write!(f, "failed to listen: {error}")?;
                f.write_str(match *number {
                    libc::EACCES => "; start snproxy as root or with CAP_NET_BIND_SERVICE",
                    libc::EADDRINUSE => "; another program listens",
                    libc::EMFILE => "; raise the descriptor limit",
                    _ => "",
                })
            }
            Self::Pending => f.write_str("the kernel does not have this action yet, retrying"),
            Self::Isolated => f.write_str("floods the accept queue, has a listener of its own"),
        }
    }
}

impl Steerer {
    /// What holds of a port beside its plan; `None`: nothing.
    pub(in crate::daemon) fn state_of(&self, port: u16) -> Option<PortState> {
        let is_isolated = (self.aside.as_ref()).is_some_and(|aside| aside.ports.contains(&port));
        match &self.mechanism {
            Mechanism::Listeners(sockets) => {
                let number = sockets.failed().get(&port)?;
                return Some(PortState::Closed(*number));
            }
            Mechanism::Ebpf(_) => {}
            Mechanism::Detached => return None,
        }
        let action = self.plan.lot(port).action;
        let wanted = if is_isolated { action.aside() } else { action };
        if self.pending.is_some() && self.known.get(port) != Some(wanted) {
            Some(PortState::Pending)
        } else {
            is_isolated.then_some(PortState::Isolated)
        }
    }

    /// Ports whose listeners could not be opened.
    pub(in crate::daemon) fn closed_ports(&self) -> impl Iterator<Item = (u16, PortState)> {
        let failed = match &self.mechanism {
            Mechanism::Listeners(sockets) => Some(sockets.failed()),
            Mechanism::Ebpf(_) | Mechanism::Detached => None,
        };
        let failed = failed.into_iter().flatten();
        failed.map(|(port, number)| (*port, PortState::Closed(*number)))
    }

    pub(in crate::daemon) fn mechanism(&self) -> &'static str {
        match self.mechanism {
            Mechanism::Ebpf(_) => "ebpf",
            Mechanism::Listeners(_) => "listeners",
            Mechanism::Detached => "none",
        }
    }

    pub(in crate::daemon) fn kernel_log(&mut self) -> Option<KernelLog> {
        match &mut self.mechanism {
            Mechanism::Ebpf(ebpf) => ebpf.logger(),
            Mechanism::Listeners(_) | Mechanism::Detached => None,
        }
    }

    pub(in crate::daemon) fn counters(&self) -> Option<Counters> {
        match &self.mechanism {
            Mechanism::Ebpf(ebpf) => Some(ebpf.counters()),
            Mechanism::Listeners(_) | Mechanism::Detached => None,
        }
    }

    /// Connections refused by the rate of their port, of the ports that have one.
    pub(in crate::daemon) fn limited(&self) -> BTreeMap<u16, u64> {
        let ports = self.known_rates.ports();
        match &self.mechanism {
            Mechanism::Ebpf(ebpf) => ebpf
                .counters()
                .limited(ports)
                .inspect_err(|error| warn!(%error, "read the kernel's counters"))
                .unwrap_or_default(),
            Mechanism::Listeners(sockets) => ports
                .filter_map(|port| Some((port, sockets.get(port)?.gate.limited())))
                .collect(),
            Mechanism::Detached => BTreeMap::new(),
        }
    }

    pub(in crate::daemon) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(in crate::daemon) fn port_counts(&self) -> api::PortCounts {
        let count = |is_one: fn(Action) -> bool| {
            let is = |lot: &Lot| lot.reason != Reason::Foreign && is_one(lot.action);
            self.plan.ports().filter(|(_, lot)| is(lot)).count()
        };
        let closed = self.closed_ports().count();
        api::PortCounts {
            steer: count(Action::is_steered).saturating_sub(closed),
            closed,
            refuse: count(|action| action == Action::Refuse),
            pass: count(|action| action == Action::Pass),
            all_out: self.plan.all_out().len(),
        }
    }
}
