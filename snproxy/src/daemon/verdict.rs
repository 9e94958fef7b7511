//! How a connection to a port ends before any candidate is tried: by the kernel, a drain or a limit.

use crate::addr::Action;
use crate::admin::api;
use crate::flow::limits::Thing;
use crate::route::Table;
use crate::route::plan::{Lot, Reason};

use super::Daemon;
use super::steer::PortState;

impl Daemon {
    /// Whether a drain has come so far that nothing new is taken.
    pub(super) fn has_ended_steering(&self) -> bool {
        self.steerer.mechanism() == "none"
    }

    /// The end of a connection that never gets as far as the candidates; `None` where it does.
    pub(super) fn verdict_of_kernel(&self, lot: Lot, state: Option<PortState>) -> Option<String> {
        if self.has_ended_steering() {
            return Some("now: snproxy drains: the kernel refuses the connection".to_owned());
        }
        if let Some(state @ PortState::Closed(_)) = state {
            return Some(format!(
                "now: {state}: the kernel refuses the connection, unless another program listens"
            ));
        }
        match lot.action {
            Action::Pass => Some(verdict_of_pass(lot.reason)),
            Action::Refuse => Some(format!(
                "now: the kernel refuses the connection ({})",
                lot.reason
            )),
            _ => None,
        }
    }

    /// What a client of this port waits for, or is sent away by, while a limit is reached.
    pub(super) fn verdict_of_limits(&self, table: &Table, port: u16) -> Option<String> {
        let conf = table.conf.of_port(port);
        let limits = &self.shared.limits;
        let lines = limits.lines();
        let is_full = |thing: &Thing, active: u32, most: Option<u32>| {
            let line = lines.iter().find(|(other, _)| other == thing);
            let waiting = line.map_or(0, |(_, waiting)| waiting.len());
            let is_full = waiting > 0 || most.is_some_and(|most| active >= most);
            is_full.then_some(waiting)
        };
        let all = is_full(&Thing::Any, limits.all(), limits.max_conn(&table.conf));
        let one = is_full(&Thing::Port(port), limits.active(port), conf.max_conn);
        let (name, waiting) = match (all, one) {
            (Some(waiting), _) => ("MAXCONN", waiting),
            (None, Some(waiting)) => ("PORTMAXCONN", waiting),
            (None, None) => return None,
        };
        let (queue, over) = (conf.queue, conf.over_limit);
        let has_room = u32::try_from(waiting).is_ok_and(|waiting| waiting < queue);
        Some(if has_room {
            format!(
                "now: {name} is reached: the client waits in the queue ({waiting} of {queue} \
                 places taken), then these are tried"
            )
        } else if queue > 0 {
            format!("now: {name} is reached and the queue is full: {over}, end queue_full")
        } else {
            format!("now: {name} is reached: {over}, end limit")
        })
    }

    /// What holds of a port beside its action.
    pub(super) fn states(&self, state: Option<PortState>) -> Vec<String> {
        let mut states: Vec<String> = state.iter().map(ToString::to_string).collect();
        if let (Some(PortState::Pending), Some(pending)) = (state, &self.steerer.pending) {
            states.push(format!("the last attempt failed: {pending}"));
        }
        states
    }

    /// The action of a port as it is now.
    pub(super) fn action_now(&self, lot: Lot, state: Option<PortState>) -> Action {
        let is_closed = matches!(state, Some(PortState::Closed(_)));
        if self.has_ended_steering() || is_closed {
            Action::Pass
        } else {
            lot.action
        }
    }

    /// Says at the start which ports could not be opened.
    pub(super) fn warn_of_closed_ports(&self, ports: &api::PortCounts) {
        if ports.closed == 0 {
            return;
        }
        let mut closed = self.steerer.closed_ports();
        let first = closed.next().map_or_else(String::new, |(port, state)| {
            format!("; port {port}: {state}")
        });
        tracing::warn!(
            event = "ports_closed",
            "ready: {} of {} ports{first}",
            ports.steer,
            ports.steer + ports.closed
        );
    }
}

fn verdict_of_pass(reason: Reason) -> String {
    match reason {
        Reason::ProxyPort => {
            "now: peers connect to snproxy here, and clients are not served".to_owned()
        }
        Reason::PodListens => {
            "now: the pod that listens on this port takes the connection itself".to_owned()
        }
        Reason::Conflict | Reason::Held => {
            "now: the program that listens takes the connection; `snproxy ports` names it"
                .to_owned()
        }
        reason => format!(
            "now: snproxy does not take this port ({reason}): a program that listens gets the \
             connection, else the kernel refuses it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_that_passes_says_who_takes_its_connections() {
        for (reason, taker) in [
            (Reason::ProxyPort, "peers connect"),
            (Reason::PodListens, "the pod that listens"),
            (Reason::Held, "the program that listens takes"),
            (Reason::Conflict, "the program that listens takes"),
            (Reason::Foreign, "a program that listens gets"),
            (Reason::Privileged, "CAP_NET_BIND_SERVICE"),
        ] {
            let verdict = verdict_of_pass(reason);
            assert!(verdict.contains(taker), "{verdict}");
        }
    }
}
