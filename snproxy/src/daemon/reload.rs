//! New configuration in the safe order: route before steer, unsteer before unroute; a bad set changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use tracing::{error, info, warn};

use crate::admin::api;
use crate::conf::{Conf, Sources, default_pod_host};
use crate::diag::{Diagnostic, Severity, has_errors};
use crate::discovery;
use crate::route::Table;

use super::start::max_listeners;
use super::steer::chain;
use super::{Daemon, control_socket};

/// One read of the files: what was in them and what was found.
pub struct Read {
    pub sources: Sources,
    pub diagnostics: Vec<Diagnostic>,
}

/// How the last read went, and whether what it gave is in force.
pub(super) struct Loaded {
    /// The set that was looked at last, good or bad: the same texts are not judged twice.
    seen: u64,
    had_mappings: bool,
    diagnostics: Vec<Diagnostic>,
    ok: bool,
    /// To be read again with each tick: a file could not be read, or the kernel would not take a good set.
    pub(super) pending: bool,
}

impl Loaded {
    pub(super) fn new(read: Read) -> Self {
        Self {
            seen: fingerprint(&read.sources),
            had_mappings: read.sources.mappings.is_some(),
            diagnostics: read.diagnostics,
            ok: true,
            pending: false,
        }
    }
}

impl Daemon {
    /// Reads the files and puts them in force if they changed, or if `always`.
    pub(super) fn reload(&mut self, always: bool) {
        let sources = match discovery::read(&self.conf_path) {
            Ok(sources) => sources,
            Err(diagnostics) => {
                self.keep(diagnostics);
                // No change may tell when it can be read again: descriptors had run out, or the text is the old one.
                self.loaded.pending = true;
                return;
            }
        };
        let seen = fingerprint(&sources);
        if seen == self.loaded.seen && !always && !self.loaded.pending {
            return;
        }
        self.loaded.seen = seen;
        // A moved file is watched at its new place even while the set is bad: mending it must be noticed.
        self.watch.set(&discovery::paths(&sources));
        if sources.mappings.is_none() && self.loaded.had_mappings {
            let path = discovery::paths(&sources).swap_remove(1);
            let gone = "the file is gone; the mappings in force stay until it is back";
            return self.keep(vec![Diagnostic::of_file(path, Severity::Error, gone)]);
        }
        let parsed = super::parse(&sources);
        let Some(conf) = parsed.value.filter(|_| !has_errors(&parsed.diagnostics)) else {
            return self.keep(parsed.diagnostics);
        };
        let had_mappings = sources.mappings.is_some();
        drop(sources);
        self.put_in_force(conf, parsed.diagnostics, had_mappings);
    }

    fn put_in_force(
        &mut self,
        mut conf: Conf,
        mut diagnostics: Vec<Diagnostic>,
        had_mappings: bool,
    ) {
        diagnostics.extend(self.keep_what_needs_a_restart(&mut conf));
        let old = self.shared.table.load_full();
        let table = Table::build(Arc::new(conf), Some(&old));
        let plan = self.steerer.plan_for(&table);
        if let Some(refusal) = self.too_many_listeners(&table) {
            return self.keep(vec![refusal]);
        }
        let withdrawn = self.steerer.withdraw(&plan);
        self.loaded.pending = withdrawn.is_err();
        if let Err(error) = withdrawn {
            // The kernel still sends connections of ports that would have no route: retried with each tick.
            let waits = format!("not in force yet, and tried again: {}", chain(&error));
            let mappings = &table.conf.files.mappings;
            diagnostics.push(Diagnostic::of_file(mappings, Severity::Error, waits));
            self.loaded.ok = false;
            self.loaded.diagnostics = diagnostics;
            return;
        }
        (self.set_log_level)(&table.conf);
        let (generation, mappings) = (table.generation, table.conf.mappings.len());
        self.shared.table.store(Arc::new(table));
        drop(old);
        self.steer();
        for found in &diagnostics {
            warn!("{found}");
        }
        let ports = self.steerer.port_counts();
        info!(
            generation,
            mappings,
            steered = ports.steer,
            refused = ports.refuse,
            "configuration in force"
        );
        self.loaded.ok = true;
        self.loaded.had_mappings = had_mappings;
        self.loaded.diagnostics = diagnostics;
        crate::sys::memory::trim();
    }

    /// The last good set stays; what is wrong goes to the log and to status.
    fn keep(&mut self, diagnostics: Vec<Diagnostic>) {
        if self.loaded.ok || self.loaded.diagnostics != diagnostics {
            for found in &diagnostics {
                match found.severity {
                    Severity::Error => error!("{found}\n{}", shown(found)),
                    Severity::Warning => warn!("{found}"),
                }
            }
            error!("configuration not used: the last good one stays in force");
        }
        self.loaded.pending = false;
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
        if conf.steering != started.steering {
            changed.push("STEERING");
        }
        if control_socket(conf) != control_socket(started) {
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
        conf.steering = started.steering;
        conf.admin.clone_from(&started.admin);
        conf.log_format = started.log_format;
        conf.bpf_log = started.bpf_log;
        let path: PathBuf = conf.files.proxy.clone();
        changed
            .into_iter()
            .map(|key| {
                let message = format!("{key} changed: in force after a restart of snproxy");
                Diagnostic::of_file(path.clone(), Severity::Warning, message)
            })
            .collect()
    }

    /// Listeners were taken because the ports were few: a set with many is not for them.
    fn too_many_listeners(&self, table: &Table) -> Option<Diagnostic> {
        let ports = table.services().count();
        let most = max_listeners(self.started_with.steering);
        (self.steerer.mechanism() == "listeners" && ports > most).then(|| {
            let message = format!(
                "{ports} mapped ports are too many for one listener each (at most {most}): \
                 start snproxy where it may use eBPF"
            );
            Diagnostic::of_file(&table.conf.files.mappings, Severity::Error, message)
        })
    }

    /// How the last reload went.
    pub(super) fn reloaded(&self) -> api::Reload {
        api::Reload {
            ok: self.loaded.ok,
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

/// The line of a finding with its caret, without the head that the one-line form has already.
fn shown(found: &Diagnostic) -> String {
    found.block().lines().skip(2).collect::<Vec<_>>().join("\n")
}

/// Tells sets of texts apart without keeping them: 61,744 mappings are more than a megabyte.
fn fingerprint(sources: &Sources) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for source in [
        Some(&sources.proxy),
        sources.mappings.as_ref(),
        sources.hosts.as_ref(),
    ] {
        source
            .map(|source| (&source.path, &source.text))
            .hash(&mut hasher);
    }
    hasher.finish()
}
