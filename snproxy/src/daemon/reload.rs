//! New configuration in the safe order: route before steer, unsteer before unroute; a bad set changes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use crate::admin::api;
use crate::conf::{Conf, PortConf, Sources, default_pod_host};
use crate::diag::{Diagnostic, Severity};
use crate::net::dial::tune_anew;
use crate::route::Table;
use crate::sys::memory;

use super::Daemon;
use super::certs::Certs;
use super::changes::Changes;
use super::doubt::MappingsFile;
use super::look::{Before, Found, Good, judge, parse};
use super::steer::{Foreign, chain, max_listeners, wanted_listeners};

/// Most findings of names and nodes that the log has in a minute.
const MAX_LOGGED: u32 = 16;

/// Why the configuration is looked at; the last one comes first where several wait.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Why {
    /// Services may have other nodes than what is in force has.
    Nodes,
    /// Names in what is in force may have other addresses by now, whatever the files say.
    Names,
    /// The files may have changed.
    Changed,
    /// Somebody asked for it.
    Asked,
}

impl Why {
    /// Whether the files are read; if not, what they last said is looked at anew.
    fn is_of_files(self) -> bool {
        matches!(self, Self::Changed | Self::Asked)
    }
}

/// How the last look went, and whether what it gave is in force.
pub(super) struct Loaded {
    /// The set that was looked at last, good or bad: the same texts are not judged twice.
    seen: u64,
    /// Fingerprint of the set in force.
    in_force: u64,
    /// Its texts, where it has names.
    named: Option<Arc<Sources>>,
    mappings: MappingsFile,
    /// Of the last look that came as far as them.
    certs: Arc<Certs>,
    diagnostics: Vec<Diagnostic>,
    ok: bool,
    /// Sets that were not used.
    refusals: u64,
    unreadable: bool,
    /// What the files say, while the kernel will not take it yet.
    waiting: Option<Box<Good>>,
    /// A look at nodes or names of the set in force that is wanted with the next tick.
    late: Option<Why>,
    /// The look under way, on a thread that may block: files and name services may hang.
    looking: Option<(Why, JoinHandle<Found>)>,
    /// Other looks that were asked for meanwhile.
    again: BTreeSet<Why>,
    /// Bounds what name servers and etcd can have logged.
    spared: Spared,
    /// Callers that wait for the outcome.
    callers: Vec<oneshot::Sender<api::Reload>>,
}

impl Loaded {
    pub(super) fn new(started: &Good) -> Self {
        Self {
            seen: started.seen,
            in_force: started.seen,
            named: started.named.clone(),
            mappings: started.mappings,
            certs: Arc::clone(&started.certs),
            diagnostics: started.diagnostics.clone(),
            ok: true,
            refusals: 0,
            unreadable: false,
            waiting: None,
            late: None,
            looking: None,
            again: BTreeSet::new(),
            spared: Spared::default(),
            callers: Vec::new(),
        }
    }

    pub(super) fn certs(&self) -> &Arc<Certs> {
        &self.certs
    }

    pub(super) fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Whether what the files say waits until the kernel takes it.
    pub(super) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// The outcome of the look under way; never without one.
    ///
    /// Cancel safety: yes.
    pub(super) async fn looked(&mut self) -> Looked {
        let Some((why, looking)) = &mut self.looking else {
            return std::future::pending().await;
        };
        let (why, found) = (*why, looking.await);
        self.looking = None;
        // A look that panicked found nothing out: the next change makes a new one.
        Looked(why, found.unwrap_or(Found::Same))
    }
}

/// Findings of names and nodes in the last minute: answers from outside can make others many times a second.
#[derive(Default)]
struct Spared {
    since: Option<Instant>,
    count: u32,
}

impl Spared {
    /// Whether one more is logged; `status` shows all of them.
    fn take(&mut self, now: Instant) -> bool {
        let is_over = |since| now.saturating_duration_since(since) >= Duration::from_mins(1);
        if self.since.is_none_or(is_over) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= MAX_LOGGED
    }
}

/// What a look came to, for [`Daemon::loaded`].
pub(super) struct Looked(Why, Found);

impl Daemon {
    /// Begins a look at the files, or at the names of what they last said.
    pub(super) fn reload(&mut self, why: Why) {
        if self.loaded.looking.is_some() {
            self.loaded.again.insert(why);
            return;
        }
        let names = Arc::clone(&self.names);
        let found: Box<dyn FnOnce() -> Found + Send> = if why.is_of_files() {
            // What could not even be read is news whatever it is.
            let is_news = why == Why::Asked || self.loaded.unreadable;
            let last = (!is_news).then_some(self.loaded.seen);
            let (root, mappings) = (self.root.clone(), self.loaded.mappings);
            let certs = Arc::clone(&self.loaded.certs);
            let in_force = Arc::clone(&self.shared.table.load().conf);
            Box::new(move || {
                // Who asks does not want to wait for its time to come.
                if why == Why::Asked {
                    certs.renew(&names.certs);
                    names.addresses.expire();
                }
                let before = Before {
                    last,
                    in_force: Some(&in_force),
                    mappings,
                    certs: &certs,
                };
                judge(&root, &names, &before)
            })
        } else {
            let Some(sources) = self.loaded.named.clone() else {
                return;
            };
            let seen = self.loaded.in_force;
            // A set that was good and is not any more stays as it was.
            let certs = Arc::clone(&self.loaded.certs);
            Box::new(move || {
                parse(sources, |_| seen, &names, &certs).map_or(Found::Same, Found::Good)
            })
        };
        let look = move || {
            let found = found();
            // The texts were read into this thread's own part of the heap.
            memory::trim();
            found
        };
        self.loaded.looking = Some((why, tokio::task::spawn_blocking(look)));
    }

    /// Begins a look whose outcome `caller` is told.
    pub(super) fn reload_for(&mut self, caller: oneshot::Sender<api::Reload>) {
        self.loaded.callers.push(caller);
        self.reload(Why::Asked);
    }

    /// Takes note of what a look came to.
    pub(super) fn loaded(&mut self, Looked(why, found): Looked) {
        if why.is_of_files() {
            self.loaded.unreadable = matches!(found, Found::Unreadable(_));
        }
        match found {
            Found::Same => {}
            Found::Unreadable(diagnostics) => self.keep(diagnostics),
            Found::Bad {
                seen,
                paths,
                diagnostics,
                certs,
            } => {
                self.loaded.seen = seen;
                self.loaded.certs = certs;
                self.renew_certs();
                self.watch.set(&paths);
                self.keep(diagnostics);
            }
            // Another one came into force meanwhile, and is looked at next.
            Found::Good(good) if !why.is_of_files() && good.seen != self.loaded.in_force => {}
            Found::Good(mut good) => {
                let (seen, beside) = (good.seen, good.beside.take());
                if let Some((seen, certs)) = beside {
                    let paths = [good.paths(&self.root), certs.paths()].concat();
                    self.watch.set(&paths);
                    self.loaded.seen = seen;
                    self.loaded.certs = certs;
                }
                if let Some(refusal) = claimed_until_restart(&good.conf, self.started_with.port) {
                    self.keep(vec![refusal]);
                } else {
                    self.take(good, why);
                }
                if why.is_of_files() && self.loaded.in_force != seen {
                    self.renew_certs();
                }
            }
        }
        let is_looked_at_again = self.loaded.again.iter().any(|why| why.is_of_files());
        if why.is_of_files() && !is_looked_at_again {
            self.keep_good_root();
        }
        match self.loaded.again.pop_last() {
            // Nobody waits for the outcome.
            Some(why) if why.is_of_files() => return self.reload(why),
            Some(why) => self.reload(why),
            None => {}
        }
        self.answer_callers();
        self.manager.ready(&self.summary());
    }

    /// Gives new connections the certificates that are there now, whatever else the files say.
    fn renew_certs(&mut self) {
        let configs = self.loaded.certs.configs();
        self.shared.tls.store(Arc::new(configs));
        let table = self.shared.table.load_full();
        self.follow_services(&table.conf);
        self.follow_directory();
    }

    /// Goes back to the files that were there before those that have just been refused.
    fn keep_good_root(&mut self) {
        let Some(before) = self.before.take() else {
            return;
        };
        if !self.loaded.ok {
            // Who gave it was told that it is refused: it does not come later.
            self.loaded.waiting = None;
            self.root = before;
            self.reload(Why::Changed);
        }
    }

    /// Puts a good set in force, with what the process was started with.
    fn take(&mut self, mut good: Box<Good>, why: Why) {
        let restart = self.keep_what_needs_a_restart(Arc::make_mut(&mut good.conf));
        if let Some(refusal) = self.apart_from_what_is_steered(&good.conf) {
            self.keep(vec![refusal]);
            return;
        }
        if let Some(why) = self.steerer.refuse(&good.conf) {
            let refusal = Diagnostic::of_file(&good.conf.files.proxy, Severity::Error, why);
            self.keep(vec![refusal]);
            return;
        }
        good.diagnostics.extend(restart);
        let nothing_new = !why.is_of_files() && good.conf == self.shared.table.load().conf;
        if !nothing_new {
            self.put_in_force(good, why);
        }
    }

    /// Tries again what could not be read, or what the kernel would not take.
    pub(super) fn retry_reload(&mut self) {
        let looking = self.loaded.looking.as_ref();
        if looking.is_some_and(|(why, _)| why.is_of_files()) {
            // What it comes to is newer, and was compared with what is in force.
            return;
        }
        if let Some(good) = self.loaded.waiting.take() {
            self.put_in_force(good, Why::Asked);
            if !self.loaded.waits() {
                self.manager.ready(&self.summary());
                // Its names are as they were when it was looked at.
                self.loaded.late = Some(Why::Names);
            }
        } else if self.loaded.unreadable {
            self.reload(Why::Changed);
        }
        if let Some(why) = self.loaded.late.take() {
            self.reload(why);
        }
    }

    fn put_in_force(&mut self, good: Box<Good>, why: Why) {
        if why.is_of_files() {
            // Whatever waited is of the past: this set came later.
            self.loaded.waiting = None;
        }
        let old = self.shared.table.load_full();
        let further = self.directory.further(&good.conf);
        let conf = Arc::clone(&good.conf);
        let table = Table::build_among(conf, &further, Some(&old), Instant::now());
        self.directory.show_to(&table);
        // Who listens where, as it is now and with the ports of the new set.
        let was_served = |port| old.service(port).is_some();
        let foreign = self.steerer.foreign_by(&table, was_served);
        // A set in force stays so, whoever came to its ports since.
        if why.is_of_files()
            && let Some(refusal) = self
                .too_many_listeners(&table)
                .or_else(|| conflict(&table.conf, &foreign))
        {
            self.keep(vec![refusal]);
            // The host may change under it: tried again with each tick.
            self.loaded.waiting = Some(good);
            return;
        }
        // Not so where the files are others by now, and what is in force follows its names.
        let is_of_the_files = why.is_of_files() || good.seen == self.loaded.seen;
        let plan = self.steerer.plan_for(&table, &foreign);
        if let Err(error) = self.steerer.withdraw(&plan) {
            // The kernel still sends connections of ports that would have no route: retried with each tick.
            let waits = format!("not in force yet, and tried again: {}", chain(&error));
            let mappings = &table.conf.files.mappings;
            let waits = Diagnostic::of_file(mappings, Severity::Error, waits);
            if !why.is_of_files() {
                self.loaded.late = Some(why);
                return;
            }
            self.loaded.ok = false;
            self.loaded.diagnostics.clone_from(&good.diagnostics);
            self.loaded.diagnostics.push(waits);
            self.loaded.waiting = Some(good);
            return;
        }
        if why.is_of_files() {
            self.watch.set(&good.paths(&self.root));
            self.loaded.seen = good.seen;
            self.loaded.certs = Arc::clone(&good.certs);
        }
        let Good {
            certs,
            diagnostics,
            mappings: mappings_file,
            seen,
            named,
            ..
        } = *good;
        (self.set_log_level)(&table.conf);
        self.steerer.note_foreign(&table, foreign);
        let changes = Changes::of(why, &old.conf, &table.conf);
        let keepalive = table.conf.keepalive;
        if let Some(listener) = &self.listener {
            tune_anew(listener, keepalive);
        }
        self.steerer.keep_alive(keepalive);
        if !self.loaded.waits() {
            self.names.addresses.keep(&table.conf);
        }
        self.follow_services(&table.conf);
        let table = Arc::new(table);
        // Before the table that asks for them; those of the last one are among them.
        self.shared.tls.store(Arc::new(certs.configs()));
        self.shared.table.store(Arc::clone(&table));
        self.measure_capacity(Instant::now());
        self.shared.limits.look_again();
        self.part_with_removed(&old, &table);
        drop(old);
        self.part_with_down(&table);
        drop(table);
        self.steer();
        self.follow_directory();
        for found in &diagnostics {
            // Nobody touched the files: what was said of them needs no second time.
            let is_known = || self.loaded.diagnostics.contains(found) || !is_of_the_files;
            if why.is_of_files() || (!is_known() && self.loaded.spared.take(Instant::now())) {
                warn!("{found}");
            }
        }
        let ports = self.steerer.port_counts();
        changes.log(why, &self.shared.table.load(), &ports);
        self.loaded.in_force = seen;
        self.loaded.named = named;
        self.loaded.mappings = mappings_file;
        if is_of_the_files {
            self.loaded.ok = true;
            self.loaded.diagnostics = diagnostics;
        }
        memory::trim();
    }

    /// Tells those who wait for an outcome how things are.
    pub(super) fn answer_callers(&mut self) {
        let outcome = self.reloaded();
        for caller in self.loaded.callers.drain(..) {
            // A caller that left before its answer is no error.
            let _ = caller.send(outcome.clone());
        }
    }

    /// The last good set stays; what is wrong goes to the log and to status.
    fn keep(&mut self, diagnostics: Vec<Diagnostic>) {
        if self.loaded.ok || self.loaded.diagnostics != diagnostics {
            for found in &diagnostics {
                match found.severity {
                    Severity::Error => error!("{found}{}", shown(found)),
                    Severity::Warning => warn!("{found}"),
                }
            }
            error!("configuration not used: the last good one stays in force");
            self.loaded.refusals += 1;
        }
        self.loaded.waiting = None;
        self.loaded.ok = false;
        self.loaded.diagnostics = diagnostics;
    }

    /// HOST, PORT and what else belongs to the process keep the values that it was started with.
    fn keep_what_needs_a_restart(&self, conf: &mut Conf) -> Vec<Diagnostic> {
        let started = &self.started_with;
        let mut changed = Vec::new();
        if conf.host != started.host {
            changed.push("HOST");
        }
        if conf.port != started.port {
            changed.push("PORT");
        }
        if conf.family != started.family {
            changed.push("FAMILY");
        }
        if conf.steering != started.steering {
            changed.push("STEERING");
        }
        if conf.workers != started.workers {
            changed.push("WORKERS");
        }
        if conf.admin != started.admin {
            changed.push("ADMIN");
        }
        if conf.log_format != started.log_format {
            changed.push("LOGFORMAT");
        }
        if conf.bpf_log != started.bpf_log {
            changed.push("BPFLOG");
        }
        let pod_host_is_set = conf.origins.iter().any(|origin| origin.key == "PODHOST");
        if conf.host != started.host && !pod_host_is_set {
            // It follows the HOST that is served, not the one that waits.
            conf.pod_host = default_pod_host(started.host);
        }
        conf.host = started.host;
        conf.port = started.port;
        conf.family = started.family;
        conf.steering = started.steering;
        conf.workers = started.workers;
        conf.admin.clone_from(&started.admin);
        conf.log_format = started.log_format;
        conf.bpf_log = started.bpf_log;
        conf.place_hosts();
        let path: PathBuf = conf.files.proxy.clone();
        changed
            .into_iter()
            .map(|key| {
                let message = format!("{key} changed: in force after a restart of snproxy");
                Diagnostic::of_file(path.clone(), Severity::Warning, message)
            })
            .collect()
    }

    /// HOST and STEERING are those of the start, not those that BIND was checked against.
    fn apart_from_what_is_steered(&self, conf: &Conf) -> Option<Diagnostic> {
        let is_apart = |kind: &PortConf| kind.bind.is_some_and(|ip| ip != conf.host);
        let (port, _) = conf.ports.kinds().find(|(_, kind)| is_apart(kind))?;
        (self.steerer.mechanism() != "listeners").then(|| {
            let message = format!(
                "BIND of port {port}: ports are steered until snproxy is restarted with \
                 `STEERING listeners`, and steered ports are those of HOST {}",
                conf.host
            );
            Diagnostic::of_file(&conf.files.proxy, Severity::Error, message)
        })
    }

    /// Listeners were taken because the ports were few: a set with many is not for them.
    fn too_many_listeners(&self, table: &Table) -> Option<Diagnostic> {
        let ports = wanted_listeners(table);
        let most = max_listeners(self.started_with.steering);
        (self.steerer.mechanism() == "listeners" && ports > most).then(|| {
            let message = format!(
                "{ports} ports are too many for one listener each (at most {most}): \
                 start snproxy where it may use eBPF"
            );
            Diagnostic::of_file(&table.conf.files.mappings, Severity::Error, message)
        })
    }

    /// What holds until the next reload, in one line.
    pub(super) fn summary(&self) -> String {
        let table = self.shared.table.load();
        let newer = match (self.loaded.ok, self.loaded.waits()) {
            (true, _) => "",
            (false, true) => "; newer files wait",
            (false, false) => "; NEWER FILES ARE NOT USED, see `snproxy status`",
        };
        let apps = match table.conf.apps.len() {
            0 => String::new(),
            apps => format!("{apps} apps, "),
        };
        format!(
            "{} mappings, {apps}{} hosts, generation {}{newer}",
            table.conf.mappings.len(),
            table.conf.hosts.len(),
            table.generation,
        )
    }

    /// How the last reload went.
    pub(super) fn reloaded(&self) -> api::Reload {
        api::Reload {
            ok: self.loaded.ok,
            waiting: self.loaded.waits(),
            generation: self.shared.table.load().generation,
            diagnostics: self
                .loaded
                .diagnostics
                .iter()
                .map(Diagnostic::to_string)
                .collect(),
        }
    }
}

/// `CONFLICT fail` holds for a reload too, for ports that it would bring into force: on the others no program could
/// take anything away, nor may it keep a reload off.
fn conflict(conf: &Conf, foreign: &Foreign) -> Option<Diagnostic> {
    let (port, socket) = foreign.first_held(conf)?;
    let message = format!(
        "CONFLICT fail: another program (uid {}) listens on {}, and {port} is a cluster port",
        socket.uid, socket.addr
    );
    Some(Diagnostic::of_file(
        &conf.files.proxy,
        Severity::Error,
        message,
    ))
}

/// An app on the port that other hosts reach until the PORT of the files counts.
fn claimed_until_restart(conf: &Conf, port: u16) -> Option<Diagnostic> {
    let mut ranges = conf.apps.iter().flat_map(|app| &app.ports);
    let range = ranges.find(|range| (range.first..=range.last).contains(&port))?;
    let message = format!(
        "port {port} at {}:{} is PORT until snproxy is restarted: an app may have it then",
        range.line, range.col
    );
    let file = conf.files.apps.as_ref().unwrap_or(&conf.files.proxy);
    Some(Diagnostic::of_file(file, Severity::Error, message))
}

/// The line of a finding with its caret, without the head that the one-line form has already.
fn shown(found: &Diagnostic) -> String {
    found
        .block()
        .lines()
        .skip(2)
        .flat_map(|line| ["\n", line])
        .collect()
}
