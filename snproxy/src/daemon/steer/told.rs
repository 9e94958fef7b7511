//! What is told of steering.

use std::collections::BTreeMap;

use tracing::warn;

use super::{Mechanism, Steerer};
use crate::addr::Action;
use crate::admin::api;
use crate::route::plan::{Lot, Plan, Reason};
use crate::steering::{Counters, KernelLog};

impl Steerer {
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
        api::PortCounts {
            steer: count(Action::is_steered),
            refuse: count(|action| action == Action::Refuse),
            pass: count(|action| action == Action::Pass),
            all_out: self.plan.all_out().len(),
        }
    }
}
