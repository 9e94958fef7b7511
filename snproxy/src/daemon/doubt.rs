//! Sets of files that are read a second time before they come into force: a writer that empties a
//! file, or replaces a key before its certificate, leaves one that parses.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::conf::Conf;
use crate::diag::{Diagnostic, Severity, Source};
use crate::discovery::Root;

use super::look::{Before, Found};

/// How long the texts of a set must stay the same.
const SECOND_READ: Duration = Duration::from_secs(1);
/// Time between two reads until then.
const POLL: Duration = Duration::from_millis(100);

/// The last line of a portmappings.conf that the Simplenetes daemon wrote.
const END: &str = "### EOF";

/// What a portmappings.conf was.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MappingsFile {
    pub exists: bool,
    /// Its last line was `### EOF`.
    pub is_ended: bool,
}

impl MappingsFile {
    pub(super) fn of(source: Option<&Source>) -> Self {
        Self {
            exists: source.is_some(),
            is_ended: source.is_some_and(|source| source.text.trim_end().ends_with(END)),
        }
    }
}

/// Why a set is read a second time.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// What the set lost that the one in force has.
    pub losses: Vec<Diagnostic>,
    /// Certificates that were good are not any more.
    pub certs: bool,
}

impl Doubts {
    pub(super) fn is_empty(&self) -> bool {
        self.losses.is_empty() && !self.certs
    }
}

/// The doubts about `found`; of a bad set only its certificates count, and the end of its mappings.
pub(super) fn doubts(
    root: &Root,
    found: &Found,
    before: &Before<'_>,
    mappings: MappingsFile,
) -> Doubts {
    let mut doubts = Doubts::default();
    let Some(in_force) = before.in_force else {
        return doubts;
    };
    let (conf, certs) = match found {
        Found::Same | Found::Unreadable(_) => return doubts,
        Found::Bad { certs, .. } => (in_force, certs),
        Found::Good(good) => (&*good.conf, good.certs_in_sight()),
    };
    doubts.certs = certs.has_new_problem(before.certs);
    // What a program hands over is whole.
    if matches!(root, Root::Said { .. }) {
        return doubts;
    }
    let files = &conf.files;
    let mut say = |file, message| {
        let message = format!("{message}, also in a second read 1 s later");
        let lost = Diagnostic::of_file(file, Severity::Warning, message);
        doubts.losses.push(lost);
    };
    if mappings.exists && !mappings.is_ended && before.mappings.is_ended {
        say(&files.mappings, format!("lost its last line `{END}`"));
    }
    let apps = files.apps.as_ref().unwrap_or(&files.proxy);
    let (had, has) = (Counts::of(in_force), Counts::of(conf));
    for (file, what, had, has) in [
        (&files.mappings, "mappings", had.mappings, has.mappings),
        (apps, "apps", had.apps, has.apps),
        (&files.hosts, "other hosts", had.hosts, has.hosts),
        (&files.proxy, "keys", had.keys, has.keys),
    ] {
        if had > 0 && has == 0 {
            say(file, format!("lost all {what} ({had})"));
        }
    }
    doubts
}

struct Counts {
    mappings: usize,
    apps: usize,
    hosts: usize,
    keys: usize,
}

impl Counts {
    fn of(conf: &Conf) -> Self {
        Self {
            mappings: conf.mappings.len(),
            apps: conf.apps.len(),
            hosts: conf.others.len(),
            keys: conf.origins.len(),
        }
    }
}

/// Whether `is_same` holds for a second. Blocks.
pub(super) fn stays(mut is_same: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < SECOND_READ {
        sleep(POLL);
        if !is_same() {
            return false;
        }
    }
    true
}
