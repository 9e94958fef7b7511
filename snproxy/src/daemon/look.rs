//! One look at the files: what they say, and whether it may be put in force.

use std::path::PathBuf;
use std::sync::Arc;

use crate::conf::{self, Conf, Sources};
use crate::diag::{Diagnostic, Parsed, Severity, has_errors};
use crate::discovery::Root;

use super::certs::Certs;
use super::doubt::{self, MappingsFile};
use super::names::has_names;
use super::world::Names;

/// A set of files that may be put in force.
pub struct Good {
    pub conf: Arc<Conf>,
    pub diagnostics: Vec<Diagnostic>,
    /// Fingerprint of the texts.
    pub seen: u64,
    pub mappings: MappingsFile,
    pub certs: Arc<Certs>,
    /// Certificates, and the fingerprint with them, where another set is in force: what that one uses is in sight, too,
    /// for this one may be refused.
    pub(super) beside: Option<(u64, Arc<Certs>)>,
    /// The texts, where names in them may get other addresses: the files may be bad by then.
    pub(super) named: Option<Arc<Sources>>,
}

impl Good {
    /// All files that it came from, existing or not: what to watch.
    pub(super) fn paths(&self, root: &Root) -> Vec<PathBuf> {
        let mut paths = root.paths(&self.conf.files);
        paths.extend(self.certs.paths());
        paths
    }

    /// The certificates that its fingerprint covers.
    pub(super) fn certs_in_sight(&self) -> &Arc<Certs> {
        let beside = self.beside.as_ref();
        beside.map_or(&self.certs, |(_, certs)| certs)
    }
}

/// What a look compares the files with.
pub(super) struct Before<'a> {
    /// Fingerprint of the set that was looked at last; `None`: every set is news.
    pub last: Option<u64>,
    /// Stays where the files are bad, with its certificates.
    pub in_force: Option<&'a Conf>,
    pub mappings: MappingsFile,
    pub certs: &'a Certs,
}

/// Sets that lose something, one after the other, until a look gives up.
const MAX_SETS: usize = 5;

/// What one look at the files came to.
pub(super) enum Found {
    /// Nothing that was not known.
    Same,
    /// Not even readable: looked at again with each tick.
    Unreadable(Vec<Diagnostic>),
    /// Not to be used. The paths are those to watch: a mended file must be noticed where it is now.
    Bad {
        seen: u64,
        paths: Vec<PathBuf>,
        diagnostics: Vec<Diagnostic>,
        /// Those of what stays in force, as they are now.
        certs: Arc<Certs>,
    },
    Good(Box<Good>),
}

/// Reads and judges the files. May block.
pub fn look(root: &Root, names: &Names) -> Result<Good, Vec<Diagnostic>> {
    let before = Before {
        last: None,
        in_force: None,
        mappings: MappingsFile::default(),
        certs: &Certs::default(),
    };
    match judge(root, names, &before) {
        Found::Good(good) => Ok(*good),
        Found::Bad { diagnostics, .. } | Found::Unreadable(diagnostics) => Err(diagnostics),
        Found::Same => Err(Vec::new()),
    }
}

/// Reads and judges the files; a set that lost something is read a second time. May block.
pub(super) fn judge(root: &Root, names: &Names, before: &Before<'_>) -> Found {
    let mut sets = 0;
    loop {
        let mut mappings = MappingsFile::default();
        let mut found = judge_once(root, names, before, &mut mappings);
        let doubts = doubt::doubts(root, &found, before, mappings);
        if doubts.is_empty() {
            return found;
        }
        if doubt::stays(|| is_still(root, names, &found)) {
            if let Found::Good(good) = &mut found {
                good.diagnostics.extend(doubts.losses);
            }
            return found;
        }
        sets += 1;
        if sets == MAX_SETS {
            // The tick looks again.
            let message = "the files change again and again, each time with a loss";
            let error = Diagnostic::of_file(root.to_string(), Severity::Error, message);
            return Found::Unreadable(vec![error]);
        }
    }
}

/// Whether the files have the texts that `found` came from.
fn is_still(root: &Root, names: &Names, found: &Found) -> bool {
    let (seen, certs) = match found {
        Found::Same | Found::Unreadable(_) => return false,
        Found::Bad { seen, certs, .. } => (*seen, certs),
        Found::Good(good) => match &good.beside {
            Some((seen, certs)) => (*seen, certs),
            None => (good.seen, &good.certs),
        },
    };
    let sources = root.read(names.writers.get());
    sources.is_ok_and(|sources| fingerprint(&sources) ^ certs.fingerprint_now(&names.certs) == seen)
}

/// Reads and judges the files, unless they are those that were looked at last.
fn judge_once(
    root: &Root,
    names: &Names,
    before: &Before<'_>,
    mappings: &mut MappingsFile,
) -> Found {
    let Before {
        last,
        in_force,
        certs,
        ..
    } = *before;
    let sources = match root.read(names.writers.get()) {
        Ok(sources) => sources,
        Err(diagnostics) => return Found::Unreadable(diagnostics),
    };
    *mappings = MappingsFile::of(sources.mappings.as_ref());
    let texts = fingerprint(&sources);
    let seen = texts ^ certs.fingerprint_now(&names.certs);
    if last == Some(seen) {
        return Found::Same;
    }
    let files = conf::files(&sources.proxy);
    let paths = root.paths(&files);
    let seen = |certs: &Certs| texts ^ certs.fingerprint();
    let bad = |mut diagnostics: Vec<Diagnostic>, looked: Option<Box<Certs>>| {
        let looked = looked.map_or_else(Certs::default, |looked| *looked);
        let certs = match in_force {
            Some(conf) => {
                let (certs, wrong) = Certs::load_behind(looked, conf, certs, &names.certs);
                let is_said = |one: &Diagnostic| diagnostics.contains(one);
                let wrong: Vec<_> = wrong.into_iter().filter(|one| !is_said(one)).collect();
                diagnostics.extend(wrong);
                certs
            }
            None => looked,
        };
        Found::Bad {
            seen: seen(&certs),
            paths: [paths.clone(), certs.paths()].concat(),
            diagnostics,
            certs: Arc::new(certs),
        }
    };
    if !mappings.exists && before.mappings.exists {
        let gone = "the file is gone; the mappings in force stay until it is back";
        let gone = Diagnostic::of_file(&files.mappings, Severity::Error, gone);
        return bad(vec![gone], None);
    }
    match parse(Arc::new(sources), seen, names, certs) {
        Ok(mut good) => {
            good.beside = in_force.map(|conf| {
                let (beside, _) =
                    Certs::load_behind(good.certs.looked(), conf, certs, &names.certs);
                (seen(&beside), Arc::new(beside))
            });
            Found::Good(good)
        }
        Err((diagnostics, looked)) => bad(diagnostics, looked),
    }
}

/// What is wrong with a set, and its certificates if they were looked at.
pub(super) type Wrong = (Vec<Diagnostic>, Option<Box<Certs>>);

/// The set with the addresses that its names have now, and the certificates that are there now; `seen` is its
/// fingerprint. Errors: what is wrong with it.
pub(super) fn parse(
    sources: Arc<Sources>,
    seen: impl Fn(&Certs) -> u64,
    names: &Names,
    before: &Certs,
) -> Result<Box<Good>, Wrong> {
    let Parsed {
        value,
        mut diagnostics,
    } = super::parse(&sources, names);
    let Some(conf) = value.filter(|_| !has_errors(&diagnostics)) else {
        return Err((diagnostics, None));
    };
    let (certs, wrong) = Certs::load(&conf, before, &names.certs);
    diagnostics.extend(wrong);
    if has_errors(&diagnostics) {
        return Err((diagnostics, Some(Box::new(certs))));
    }
    Ok(Box::new(Good {
        diagnostics,
        seen: seen(&certs),
        certs: Arc::new(certs),
        beside: None,
        mappings: MappingsFile::of(sources.mappings.as_ref()),
        named: has_names(&conf).then_some(sources),
        conf: Arc::new(conf),
    }))
}

/// Tells sets of texts apart without keeping them: 61,744 mappings are more than a megabyte.
fn fingerprint(sources: &Sources) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    for source in [
        Some(&sources.proxy),
        sources.mappings.as_ref(),
        sources.hosts.as_ref(),
        sources.apps.as_ref(),
    ] {
        source
            .map(|source| (&source.path, &source.text))
            .hash(&mut hasher);
    }
    hasher.finish()
}
