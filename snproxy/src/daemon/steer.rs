//! Brings the kernel to the plan: by eBPF or by one listener per port, always by difference.

mod foreign;
mod told;

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::addr::{Action, PortSet};
use crate::conf::{Conf, Conflict, Family, Rate, Steering, Unmapped};
use crate::net::dial::tune_anew;
use crate::net::gate::Gate;
use crate::net::listener;
use crate::route::Table;
use crate::route::plan::{Bounds, Plan, Reason};
use crate::steering::conflict::{self, Listening, owner_of};
use crate::steering::sockets::{MAX_AUTO, Sockets};
use crate::steering::{Ebpf, Known, KnownRates, RateLimit, SteeringError};

use super::aside::Aside;
use super::rights::Rights;
use super::workers::Workers;

use foreign::{ConflictLog, Owners};

pub(super) use foreign::{Conflicts, Foreign};
pub(super) use told::PortState;

/// How connections to steered ports reach us. The same proxy stands above both.
pub(super) enum Mechanism {
    Ebpf(Box<Ebpf>),
    Listeners(Sockets<OpenPort>),
    /// Steering has ended.
    Detached,
}

/// A listener of one port, and the task that accepts from it.
pub(super) struct OpenPort {
    listener: Arc<TcpListener>,
    inode: u32,
    gate: Arc<Gate>,
    accepting: AbortHandle,
}

impl Drop for OpenPort {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Mechanism {
    /// Gives ports a rate, or another one.
    fn limit(&mut self, limits: &[(u16, RateLimit)]) -> Result<(), SteeringError> {
        match self {
            Self::Ebpf(ebpf) => ebpf.limit(limits)?,
            Self::Listeners(sockets) => {
                // A port that is not open yet is opened with its rate.
                for (port, limit) in limits {
                    if let Some(open) = sockets.get(*port) {
                        open.gate.set(Some(*limit));
                    }
                }
            }
            Self::Detached => {}
        }
        Ok(())
    }

    fn unlimit(&mut self, ports: &[u16]) -> Result<(), SteeringError> {
        match self {
            Self::Ebpf(ebpf) => ebpf.unlimit(ports)?,
            Self::Listeners(sockets) => {
                for open in ports.iter().filter_map(|port| sockets.get(*port)) {
                    open.gate.set(None);
                }
            }
            Self::Detached => {}
        }
        Ok(())
    }
}

/// Time between two lines about failing lookups.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// The kernel's ports: what is wanted of them, what they were told, who else is there.
pub(super) struct Steerer {
    mechanism: Mechanism,
    known: Known,
    known_rates: KnownRates,
    plan: Plan,
    rights: Rights,
    foreign: Foreign,
    conflict_log: ConflictLog,
    /// Inode of the one listener.
    own: u32,
    /// Inodes of listeners that are ours, or were and are still open.
    ours: HashSet<u32>,
    /// Why the kernel is not at the plan; told once, retried with every look around.
    pub(super) pending: Option<String>,
    /// The host's listening sockets could not be listed.
    blind: bool,
    behind: bool,
    /// Lookups that failed, as last said, and when.
    failed: u64,
    failed_said: Option<Instant>,
    keepalive: Option<Duration>,
    family: Family,
    workers: Option<Arc<Workers>>,
    /// Ports that flood, while there are some.
    aside: Option<Aside>,
}

impl Steerer {
    pub(super) fn new(mechanism: Mechanism, own: &impl AsFd, family: Family) -> io::Result<Self> {
        Ok(Self {
            mechanism,
            known: Known::new(),
            known_rates: KnownRates::default(),
            plan: Plan::nothing(),
            rights: Rights::read(),
            foreign: Foreign::default(),
            conflict_log: ConflictLog::default(),
            own: conflict::inode(own)?,
            ours: HashSet::new(),
            pending: None,
            blind: false,
            behind: true,
            failed: 0,
            failed_said: None,
            keepalive: None,
            family,
            workers: None,
            aside: None,
        })
    }

    /// Connections of ports that get a listener of their own go to `workers` from now on.
    pub(super) fn serve_with(&mut self, workers: &Arc<Workers>) {
        self.workers = Some(Arc::clone(workers));
    }

    /// Lists the host's listening sockets and takes note of other programs on cluster ports.
    ///
    /// `None` where the kernel does not tell: said once.
    pub(super) fn look(&mut self, table: &Table) -> Option<Vec<Listening>> {
        let listening = self.listening()?;
        let owners = self.owners_among(&table.conf, &listening);
        let is_served = |port| table.service(port).is_some();
        let foreign = self.foreign.next(owners, is_served, is_served);
        self.note_foreign(table, foreign);
        Some(listening)
    }

    /// Why `conf` may not come into force: it takes what this process may not have.
    pub(super) fn refuse(&mut self, conf: &Conf) -> Option<String> {
        self.rights = self.rights.renewed();
        match self.mechanism {
            Mechanism::Ebpf(_) => self.rights.refuse(conf),
            Mechanism::Listeners(_) | Mechanism::Detached => None,
        }
    }

    /// The same before the first routes come into force: every program was there before them.
    pub(super) fn look_first(&mut self, table: &Table) {
        let foreign = self.foreign_by(table, |_| false);
        self.note_foreign(table, foreign);
    }

    /// Other programs as they are once `table` comes into force, which it may not: not noted, not said.
    /// `was_served`: ports that have routes now.
    pub(super) fn foreign_by(
        &mut self,
        table: &Table,
        was_served: impl Fn(u16) -> bool,
    ) -> Foreign {
        match self.listening() {
            Some(listening) => {
                let owners = self.owners_among(&table.conf, &listening);
                let is_served = |port| table.service(port).is_some();
                self.foreign.next(owners, is_served, was_served)
            }
            None => self.foreign.clone(),
        }
    }

    fn listening(&mut self) -> Option<Vec<Listening>> {
        match conflict::listening() {
            Ok(listening) => {
                self.blind = false;
                Some(listening)
            }
            Err(error) => {
                if !self.blind {
                    warn!(%error, "list the host's listening sockets: conflicts will not be noticed");
                }
                self.blind = true;
                None
            }
        }
    }

    /// Who else listens on cluster ports of HOST.
    fn owners_among(&mut self, conf: &Conf, listening: &[Listening]) -> Owners {
        // A worker may close a listener only after it was given up.
        let listed: HashSet<u32> = listening.iter().map(|socket| socket.inode).collect();
        self.ours.retain(|inode| listed.contains(inode));
        // With listeners; the program in the kernel would take the port of both families.
        let v6_only =
            self.family == Family::V6 && matches!(self.mechanism, Mechanism::Listeners(_));
        let own = &mut self.ours;
        own.insert(self.own);
        if let Mechanism::Listeners(sockets) = &self.mechanism {
            own.extend(sockets.open().map(|port| port.inode));
        }
        own.extend(self.aside.iter().map(|aside| aside.inode));
        let is_on_ours = |socket: &&Listening| {
            let is_foreign = v6_only && socket.addr.is_ipv4();
            let port = socket.addr.port();
            !own.contains(&socket.inode)
                && !is_foreign
                && conf.cluster_ports.contains(port)
                && port != conf.port
                && owner_of(conf.served_at(port), socket)
        };
        let mut owners = Owners::new();
        for socket in listening.iter().filter(is_on_ours) {
            owners.entry(socket.addr.port()).or_default().push(*socket);
        }
        owners
    }

    /// Takes note of other programs on cluster ports of what is in force; logs what changed.
    pub(super) fn note_foreign(&mut self, table: &Table, foreign: Foreign) {
        let before = self.taken(table, &self.foreign);
        self.foreign = foreign;
        let taken = self.taken(table, &self.foreign);
        self.behind |= taken != before;
        let (steals, now) = (self.steals(&table.conf), Instant::now());
        let conflicts = self.foreign.conflicts(table, &taken);
        self.conflict_log.log(conflicts, &self.foreign, steals, now);
    }

    /// Ports that are left to other programs. Without eBPF the kernel gives them to the program anyway.
    fn taken(&self, table: &Table, foreign: &Foreign) -> PortSet {
        let is_kernels = matches!(self.mechanism, Mechanism::Listeners(_));
        foreign.taken(table, self.steals(&table.conf), is_kernels)
    }

    /// Cluster ports on which other programs listen.
    pub(super) fn conflicts(&self, table: &Table) -> Conflicts {
        let taken = self.taken(table, &self.foreign);
        self.foreign.conflicts(table, &taken)
    }

    /// Says when lookups of ours were not given to our listener: then another program of the kernel has them.
    pub(super) fn look_for_failures(&mut self) {
        let Some(Ok(counts)) = self.counters().map(|counters| counters.counts()) else {
            return;
        };
        let failed = counts.failed + counts.no_listener;
        if failed > self.failed && self.failed_said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            warn!(
                failed,
                "the kernel did not give connections of ours to the listener: does another sk_lookup program, \
                 or a second snproxy, serve this address? (`bpftool link list`)"
            );
            self.failed_said = Some(Instant::now());
            self.failed = failed;
        }
    }

    /// From now on accepted connections have this keepalive.
    pub(super) fn keep_alive(&mut self, keepalive: Option<Duration>) {
        self.keepalive = keepalive;
        if let Some(aside) = &self.aside {
            aside.keep_alive(keepalive);
        }
        if let Mechanism::Listeners(sockets) = &self.mechanism {
            for port in sockets.open() {
                tune_anew(&port.listener, keepalive);
            }
        }
    }

    /// Whether the kernel may not be at the plan: someone else's listeners changed, or a write failed.
    pub(super) fn is_behind(&self) -> bool {
        self.behind || self.pending.is_some()
    }

    pub(super) fn foreign(&self) -> &Foreign {
        &self.foreign
    }

    /// Whether ports of other programs are taken all the same: only the BPF program stands before their sockets.
    fn steals(&self, conf: &Conf) -> bool {
        conf.conflict == Conflict::Steal && matches!(self.mechanism, Mechanism::Ebpf(_))
    }

    /// What the kernel should be told for these routes, while others listen so.
    pub(super) fn plan_for(&self, table: &Table, foreign: &Foreign) -> Plan {
        let taken = self.taken(table, foreign);
        let one_by_one = matches!(self.mechanism, Mechanism::Listeners(_));
        let listeners = one_by_one.then(|| max_listeners(table.conf.steering));
        let bounds = Bounds {
            taken: &taken,
            listeners,
            // Of a listener the kernel asks the same.
            lowest: if one_by_one { 0 } else { self.rights.lowest() },
        };
        Plan::build(&table.conf, table, bounds)
    }

    /// Tells the kernel what differs from `table`'s plan. A failure is kept, and retried by the next call.
    pub(super) fn bring(&mut self, table: &Table) {
        self.behind = false;
        self.place(&table.conf);
        let plan = self.plan_for(table, &self.foreign);
        say_all_out(&self.plan, &plan);
        self.plan = plan;
        match self.write_plan(&table.conf) {
            Ok(()) => {
                if self.pending.take().is_some() {
                    info!("the kernel's ports are as they should be again");
                }
            }
            Err(error) => self.complain(&error),
        }
    }

    /// Closes ports that are to be served at another address than before.
    fn place(&mut self, conf: &Conf) {
        let Mechanism::Listeners(sockets) = &mut self.mechanism else {
            return;
        };
        let is_apart = conf.ports.kinds().any(|(_, kind)| kind.bind.is_some());
        let ports = conf.cluster_ports.iter().filter(|_| is_apart);
        let apart = ports.filter_map(|port| Some((port, conf.of_port(port).bind?)));
        let apart = apart.filter(|(_, ip)| *ip != conf.host);
        for port in sockets.place(apart.collect()) {
            self.known.forget(port);
        }
    }

    /// Writes the first plan while nothing runs yet; listeners of single ports wait for the runtime.
    pub(super) fn begin(&mut self, table: &Table) -> Result<(), SteeringError> {
        self.plan = self.plan_for(table, &self.foreign);
        if matches!(self.mechanism, Mechanism::Ebpf(_)) {
            self.write_plan(&table.conf)?;
        }
        Ok(())
    }

    /// First half of a reload: ports that will not be steered any more leave the kernel before their
    /// routes leave the table. A failure is kept, as by [`bring`](Self::bring).
    pub(super) fn withdraw(&mut self, next: &Plan) -> Result<(), SteeringError> {
        // A port whose last write failed may still be steered.
        let may_be_steered = |port| self.known.get(port).is_none_or(Action::is_steered);
        let leaving: Vec<_> = next
            .actions()
            .filter(|(port, action)| !action.is_steered() && may_be_steered(*port))
            .collect();
        self.write(leaving)
            .map(drop)
            .inspect_err(|error| self.complain(error))
    }

    /// Rates before the actions that ask for them, and away after these.
    fn write_plan(&mut self, conf: &Conf) -> Result<(), SteeringError> {
        let rates = self
            .plan
            .actions()
            .filter(|(_, action)| *action == Action::SteerLimited)
            .filter_map(|(port, _)| Some((port, limit(conf.of_port(port).port_rate?))));
        let mechanism = &mut self.mechanism;
        self.known_rates
            .bring(rates, |changes| mechanism.limit(changes))?;
        let aside = |port| (self.aside.as_ref()).is_some_and(|aside| aside.ports.contains(&port));
        let actions = self.plan.actions().map(|(port, action)| match action {
            action if aside(port) => (port, action.aside()),
            action => (port, action),
        });
        self.write(actions.collect())?;
        let is_limited = |port| self.plan.lot(port).action == Action::SteerLimited;
        let mechanism = &mut self.mechanism;
        self.known_rates
            .retain(is_limited, |ports| mechanism.unlimit(ports))
    }

    fn write(&mut self, wanted: Vec<(u16, Action)>) -> Result<usize, SteeringError> {
        let Self {
            mechanism,
            known,
            known_rates,
            workers,
            keepalive,
            family,
            ..
        } = self;
        match mechanism {
            Mechanism::Ebpf(ebpf) => known.bring(wanted, |changes| ebpf.write(changes)),
            Mechanism::Listeners(sockets) => known.bring(wanted, |changes| {
                sockets.write(changes, |addr| {
                    let limit = known_rates.get(addr.port());
                    open_port(addr, *family, *keepalive, limit, workers.as_deref())
                })
            }),
            Mechanism::Detached => Ok(0),
        }
    }

    /// From now on connections to `port` wait in a queue of their own. Listeners of single ports have that anyway.
    pub(super) fn set_aside(&mut self, port: u16, table: &Table) {
        let Mechanism::Ebpf(ebpf) = &mut self.mechanism else {
            return;
        };
        // PORT is not steered, and who comes late to a port that was withdrawn is no flood.
        if !self.plan.lot(port).action.is_steered() {
            return;
        }
        if self.aside.is_none() {
            let Some(workers) = &self.workers else { return };
            let opened = Aside::open(table.conf.host, table.conf.family, self.keepalive, workers)
                .map_err(|error| error.to_string())
                .and_then(|aside| {
                    ebpf.set_aside_listener(&aside.listener)
                        .map_err(|error| chain(&error))?;
                    Ok(aside)
                });
            match opened {
                Ok(aside) => self.aside = Some(aside),
                Err(error) => {
                    warn!(%error, port, "a flooded port cannot get an accept queue of its own");
                    return;
                }
            }
        }
        let is_new = (self.aside.as_mut()).is_some_and(|aside| aside.ports.insert(port));
        if is_new {
            info!(
                port,
                "so many clients at once: they wait in an accept queue of their own, for the sake of other ports"
            );
            self.bring(table);
        }
    }

    /// Takes ports back that nobody came to for some time, and closes a queue that nobody needs.
    pub(super) fn look_aside(&mut self, now: Instant) {
        let Some(aside) = &mut self.aside else { return };
        if !aside.is_calm(now) {
            return;
        }
        if !aside.ports.is_empty() {
            info!(ports = ?aside.ports, "calm again: they share the accept queue with the other ports");
            aside.ports.clear();
            self.behind = true;
        } else if !self.is_behind()
            && let Some(listener) = self.close_aside()
            && let Some(workers) = &self.workers
        {
            // Who came in the last moment.
            while let Ok(Some((stream, addr))) = listener::next(&listener) {
                workers.serve(stream, addr);
            }
        }
    }

    /// Accepts no more of what was set aside; what waits there is in the listener.
    pub(super) fn close_aside(&mut self) -> Option<Arc<TcpListener>> {
        self.aside.take().map(|aside| Arc::clone(&aside.listener))
    }

    /// Keeps the failure for `status`; says it when it is a new one.
    fn complain(&mut self, error: &SteeringError) {
        let error = chain(error);
        if self.pending.as_ref() != Some(&error) {
            warn!(%error, "the kernel's ports stay as they were; trying again");
        }
        self.pending = Some(error);
    }

    /// Ends steering: from now on the kernel refuses every cluster port.
    pub(super) fn detach(&mut self) {
        self.mechanism = Mechanism::Detached;
        self.plan = Plan::nothing();
    }
}

/// Says of which ports the last pod went down or away, and of which one came back; each time once.
fn say_all_out(before: &Plan, after: &Plan) {
    let (out, still_out) = (after.all_out(), before.all_out());
    let is_back = |port: &u16| {
        let is_served = matches!(
            after.lot(*port).reason,
            Reason::Mapped | Reason::App | Reason::OtherHosts
        );
        !out.contains(*port) && is_served
    };
    let back: PortSet = still_out.iter().filter(is_back).collect();
    for (reason, what) in [
        (Reason::PodsDown, "all pods are down"),
        (
            Reason::NoTarget,
            "no node is known, no target has an address: refused until there is one",
        ),
    ] {
        let is_new = |port: &u16| before.lot(*port).reason != reason;
        let new: PortSet = after.of_reason(reason).iter().filter(is_new).collect();
        if !new.is_empty() {
            warn!(ports = %new, "{what}");
        }
    }
    if !back.is_empty() {
        info!(ports = %back, "served again");
    }
}

fn open_port(
    addr: SocketAddr,
    family: Family,
    keepalive: Option<Duration>,
    limit: Option<RateLimit>,
    workers: Option<&Workers>,
) -> io::Result<OpenPort> {
    let workers = workers.ok_or(io::ErrorKind::NotConnected)?;
    let listener = Arc::new(listener::bind(addr, family, keepalive)?);
    let inode = conflict::inode(&listener)?;
    let gate = Arc::new(Gate::new(limit));
    let accepting = workers.accept_one(Arc::clone(&listener), addr.port(), Arc::clone(&gate));
    Ok(OpenPort {
        listener,
        inode,
        gate,
        accepting,
    })
}

fn limit(rate: Rate) -> RateLimit {
    RateLimit::new(rate.per_second, rate.burst)
}

/// Ports that want a listener each, where there is no eBPF.
pub(super) fn wanted_listeners(table: &Table) -> usize {
    match table.conf.unmapped {
        Unmapped::Steer => table.conf.cluster_ports.len(),
        Unmapped::Auto | Unmapped::Refuse => table.services().count(),
    }
}

/// Most ports that may have a listener each. Half of the descriptors at most: without one that is
/// free nothing is accepted, dialled or read.
pub(super) fn max_listeners(steering: Steering) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let half = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit / 2).unwrap_or(usize::MAX)
    });
    match steering {
        Steering::Auto => half.min(MAX_AUTO),
        Steering::Ebpf | Steering::Listeners => half,
    }
}

/// The error with all of its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
