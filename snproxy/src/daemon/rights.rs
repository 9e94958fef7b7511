//! What the process may take from others on this host, as it was when it started: capabilities are dropped since.

use std::fs;

use rustix::process::geteuid;

use crate::conf::{App, Conf, Conflict};
use crate::sys::privileges::{self, Capability};

/// The kernel's own default.
const UNPRIVILEGED: u16 = 1024;

/// Rights of the start. With file capabilities an ordinary user may steer, which must not give the user ports that the
/// kernel keeps from users, nor ports of other programs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    is_root: bool,
    /// `CAP_NET_BIND_SERVICE`.
    binds_privileged: bool,
    /// `net.ipv4.ip_unprivileged_port_start`, as of the last start or reload.
    unprivileged: u16,
}

impl Rights {
    /// Those of the calling thread, before it drops them.
    pub(super) fn read() -> Self {
        Self {
            is_root: geteuid().is_root(),
            binds_privileged: privileges::has(Capability::CAP_NET_BIND_SERVICE),
            unprivileged: unprivileged(),
        }
    }

    /// The same with the kernel's setting as it is now.
    pub(super) fn renewed(self) -> Self {
        Self {
            unprivileged: unprivileged(),
            ..self
        }
    }

    /// The lowest port that may be steered or refused.
    pub(super) fn lowest(self) -> u16 {
        if self.is_root || self.binds_privileged {
            0
        } else {
            self.unprivileged
        }
    }

    /// Why steering may not do what `conf` asks for.
    pub(super) fn refuse(self, conf: &Conf) -> Option<String> {
        if conf.conflict == Conflict::Steal && !self.is_root {
            let message = "CONFLICT steal takes ports from other programs: start snproxy as root";
            return Some(message.to_owned());
        }
        let lowest = self.lowest();
        let mapped = conf.mappings.iter().map(|it| it.cluster_port.get());
        let mut ports = mapped.chain(conf.apps.iter().flat_map(App::ports));
        let port = ports.find(|port| *port < lowest)?;
        Some(format!(
            "port {port} is below net.ipv4.ip_unprivileged_port_start ({lowest}): \
             start snproxy with CAP_NET_BIND_SERVICE or as root"
        ))
    }
}

fn unprivileged() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let port = text.ok().and_then(|text| text.trim().parse().ok());
    port.unwrap_or(UNPRIVILEGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_may_not_take_privileged_ports() {
        let user = Rights {
            is_root: false,
            binds_privileged: false,
            unprivileged: 1024,
        };
        let with_the_capability = Rights {
            binds_privileged: true,
            ..user
        };
        let root = Rights {
            is_root: true,
            ..user
        };
        let lowest = [user, with_the_capability, root].map(Rights::lowest);
        assert_eq!(lowest, [1024, 0, 0]);
    }
}
