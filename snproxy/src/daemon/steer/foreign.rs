//! Other programs that listen on cluster ports: which of them keep their port, and the log of it.
//!
//! A port without a route is always left to a program. A served port is left to a program that listened before the
//! route came into force, for as long as it listens: a program that starts later gets no connections. Otherwise every
//! local user could take the clients of a service.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::addr::PortSet;
use crate::conf::{Conf, Conflict};
use crate::route::Table;
use crate::steering::conflict::Listening;

/// Lines about conflicts that are logged in one go, and the time until one more is.
const MAX_LINES: u32 = 10;
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Listening sockets of other programs, by cluster port.
pub(in crate::daemon) type Owners = BTreeMap<u16, Vec<Listening>>;

/// The programs, and the served ports that they hold.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct Foreign {
    owners: Owners,
    /// Inodes of the sockets that hold a served port.
    holders: BTreeMap<u16, Vec<u32>>,
}

impl Foreign {
    /// The state once `owners` are seen: `is_served` ports have a route now, `was_served` ports had one before.
    pub(in crate::daemon) fn next(
        &self,
        owners: Owners,
        is_served: impl Fn(u16) -> bool,
        was_served: impl Fn(u16) -> bool,
    ) -> Self {
        let mut holders = BTreeMap::new();
        for (port, sockets) in owners.iter().filter(|(port, _)| is_served(**port)) {
            let held: Vec<u32> = if was_served(*port) {
                self.successors(*port, sockets)
            } else {
                sockets.iter().map(|socket| socket.inode).collect()
            };
            if !held.is_empty() {
                holders.insert(*port, held);
            }
        }
        Self { owners, holders }
    }

    /// Sockets that hold a port after those that held it: these, and what the same user opened beside them, as a
    /// program does that replaces itself (`SO_REUSEPORT`).
    fn successors(&self, port: u16, sockets: &[Listening]) -> Vec<u32> {
        let Some(before) = self.holders.get(&port) else {
            return Vec::new();
        };
        let mut holders = sockets.iter().filter(|one| before.contains(&one.inode));
        let Some(uid) = holders.next().map(|one| one.uid) else {
            return Vec::new();
        };
        let same = sockets.iter().filter(|one| one.uid == uid);
        same.map(|one| one.inode).collect()
    }

    /// The program on a port; of several the one that holds it.
    pub(in crate::daemon) fn on(&self, port: u16) -> Option<&Listening> {
        let sockets = self.owners.get(&port)?;
        let holders = self.holders.get(&port);
        let holds = |one: &&Listening| holders.is_some_and(|held| held.contains(&one.inode));
        sockets.iter().find(holds).or_else(|| sockets.last())
    }

    /// Whether a program holds a served port.
    pub(in crate::daemon) fn holds(&self, port: u16) -> bool {
        self.holders.contains_key(&port)
    }

    /// Ports that are left to programs. `steals`: none but those of our metrics; `keeps`: every port on which one listens.
    pub(super) fn taken(&self, table: &Table, steals: bool, keeps: bool) -> PortSet {
        let is_left = |port: u16, sockets: &[Listening]| {
            let is_admin = || sockets.iter().any(|one| table.conf.is_admin(one.addr));
            let is_free = || keeps || table.service(port).is_none() || self.holds(port);
            (!steals && is_free()) || is_admin()
        };
        let owners = self.owners.iter();
        owners
            .filter(|(port, sockets)| is_left(**port, sockets))
            .map(|(port, _)| *port)
            .collect()
    }

    /// Programs on cluster ports that are neither pods nor ours.
    fn strangers<'f>(&'f self, conf: &'f Conf) -> impl Iterator<Item = (u16, &'f Listening)> {
        // Without programs there is nothing to tell apart.
        let pods = if self.owners.is_empty() {
            PortSet::new()
        } else {
            conf.pod_ports()
        };
        let is_known = move |port, addr| pods.contains(port) || conf.is_admin(addr);
        let owners = self.owners.keys();
        owners
            .filter_map(|port| Some((*port, self.on(*port)?)))
            .filter(move |(port, socket)| !is_known(*port, socket.addr))
    }

    /// The first program that `CONFLICT fail` does not start beside.
    pub(in crate::daemon) fn any(&self, conf: &Conf) -> Option<(u16, Listening)> {
        let fails = conf.conflict == Conflict::Fail;
        let mut strangers = self.strangers(conf);
        strangers.find(|_| fails).map(|(port, one)| (port, *one))
    }

    /// The first program that holds a port which `CONFLICT fail` lets no reload bring into force.
    pub(in crate::daemon) fn first_held(&self, conf: &Conf) -> Option<(u16, Listening)> {
        let fails = conf.conflict == Conflict::Fail;
        let mut strangers = self.strangers(conf);
        let held = strangers.find(|(port, _)| fails && self.holds(*port));
        held.map(|(port, one)| (port, *one))
    }

    /// The conflicts, `taken` being the ports that are left to programs.
    pub(super) fn conflicts(&self, table: &Table, taken: &PortSet) -> Conflicts {
        let mut conflicts = Conflicts::default();
        for (port, _) in self.strangers(&table.conf) {
            let ports = match (taken.contains(port), table.service(port).is_some()) {
                (true, true) => &mut conflicts.held,
                (true, false) => &mut conflicts.unmapped,
                (false, _) => &mut conflicts.shadowed,
            };
            ports.insert(port);
        }
        conflicts
    }
}

/// Cluster ports on which other programs listen, by what becomes of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::daemon) struct Conflicts {
    /// Without a route: left to the program.
    pub(in crate::daemon) unmapped: PortSet,
    /// With a route, and left to the program, which listened first.
    pub(in crate::daemon) held: PortSet,
    /// Steered or refused: the program gets no connections.
    pub(in crate::daemon) shadowed: PortSet,
}

/// Log of conflicts: what was logged last, and how many lines may follow.
#[derive(Debug, Default)]
pub(super) struct ConflictLog {
    logged: Conflicts,
    lines: u32,
    since: Option<Instant>,
}

impl ConflictLog {
    /// Logs what changed, up to [`MAX_LINES`] and then one line per [`LINE_INTERVAL`]; the rest is logged later if it is still so.
    pub(super) fn log(&mut self, now: Conflicts, foreign: &Foreign, steals: bool, at: Instant) {
        let elapsed = self.since.map_or(Duration::ZERO, |since| at - since);
        let more = elapsed.as_secs() / LINE_INTERVAL.as_secs();
        if self.since.is_none() || more > 0 {
            self.lines = self
                .lines
                .saturating_sub(u32::try_from(more).unwrap_or(u32::MAX));
            self.since = Some(at);
        }
        if now == self.logged || self.lines >= MAX_LINES {
            return;
        }
        self.lines += 1;
        let new = |now: &PortSet, before: &PortSet| -> PortSet {
            now.iter().filter(|port| !before.contains(*port)).collect()
        };
        let shadowed = if steals {
            "its new connections are taken over (CONFLICT steal)"
        } else {
            "the program gets no connections, the port was mapped before it listened"
        };
        for (what, ports) in [
            (
                "the port is left to it",
                new(&now.unmapped, &self.logged.unmapped),
            ),
            (
                "the mapping is not served, the program listened before it",
                new(&now.held, &self.logged.held),
            ),
            (shadowed, new(&now.shadowed, &self.logged.shadowed)),
        ] {
            let Some(first) = ports.iter().next().and_then(|port| foreign.on(port)) else {
                continue;
            };
            let (addr, uid) = (first.addr, first.uid);
            warn!(
                event = "port_conflict", %ports, %addr, uid,
                "another program listens on a cluster port: {what}"
            );
        }
        let all = |of: &Conflicts| -> PortSet {
            let sets = [&of.unmapped, &of.held, &of.shadowed];
            sets.iter().flat_map(|set| set.iter()).collect()
        };
        let ended = new(&all(&self.logged), &all(&now));
        if ended.iter().next().is_some() {
            info!(event = "port_conflict_ended", ports = %ended, "the other program stopped listening");
        }
        self.logged = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(port: u16, uid: u32, inode: u32) -> Listening {
        Listening {
            addr: ([10, 0, 0, 1], port).into(),
            v6_only: false,
            uid,
            inode,
        }
    }

    fn owners(sockets: &[Listening]) -> Owners {
        let mut owners = Owners::new();
        for socket in sockets {
            owners.entry(socket.addr.port()).or_default().push(*socket);
        }
        owners
    }

    const YES: fn(u16) -> bool = |_| true;
    const NO: fn(u16) -> bool = |_| false;

    #[test]
    fn only_a_program_before_the_route_holds_its_port() {
        let none = Foreign::default();
        let first = none.next(owners(&[socket(2000, 1000, 7)]), YES, NO);
        assert!(first.holds(2000));
        // It is seen again and again.
        let later = first.next(owners(&[socket(2000, 1000, 7)]), YES, YES);
        assert!(later.holds(2000));
        // It restarts: its new socket came after the route.
        let again = later.next(owners(&[socket(2000, 1000, 8)]), YES, YES);
        assert!(!again.holds(2000) && again.on(2000).is_some());
        let late = none.next(owners(&[socket(2001, 1000, 9)]), YES, YES);
        assert!(!late.holds(2001));
        let unmapped = none.next(owners(&[socket(2002, 1000, 9)]), NO, NO);
        assert!(!unmapped.holds(2002));
        // It is mapped now, and the program was there.
        assert!(
            unmapped
                .next(owners(&[socket(2002, 1000, 9)]), YES, NO)
                .holds(2002)
        );
    }

    #[test]
    fn a_program_that_replaces_its_socket_keeps_the_port() {
        let first = Foreign::default().next(owners(&[socket(80, 33, 1)]), YES, NO);
        let both = first.next(owners(&[socket(80, 33, 1), socket(80, 33, 2)]), YES, YES);
        let second = both.next(owners(&[socket(80, 33, 2)]), YES, YES);
        assert!(second.holds(80));
        let other = second.next(owners(&[socket(80, 33, 2), socket(80, 1000, 3)]), YES, YES);
        assert!(
            !other
                .next(owners(&[socket(80, 1000, 3)]), YES, YES)
                .holds(80)
        );
    }
}
