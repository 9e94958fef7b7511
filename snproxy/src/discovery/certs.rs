//! Certificates as texts: from files, which are read anew at each look, and from S3, where they are asked for now and then.

mod files;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::s3::{Etags, Fetched, fetch};
use crate::conf::{CertSource, CertTexts};
use crate::diag::{Diagnostic, Severity, Source};

pub use files::{exposed, key_paths, paths};

/// Largest file of certificates, in bytes: that of a system is 200 KiB.
const MAX_FILE: usize = 1024 * 1024;
/// In the order in which [`CertTexts`] has them.
const NAMES: [&str; 3] = ["ca", "cert", "key"];

/// What was fetched from S3 last: it stays true while the store cannot be asked. Of a set that was never fetched, why: a
/// store that does not answer must not hold up each look at the files.
#[derive(Debug, Default)]
pub struct Store(Mutex<BTreeMap<CertSource, Result<Known, Diagnostic>>>);

#[derive(Debug)]
struct Known {
    texts: CertTexts,
    etags: Etags,
    /// Why the last fetch failed.
    problem: Option<Diagnostic>,
}

impl Store {
    /// Reads a set. Blocks: on the file system, and for the first one of a bucket on its store.
    ///
    /// Errors: what cannot be read. A file that does not exist is no error here.
    pub fn read(&self, source: &CertSource) -> Result<CertTexts, Diagnostic> {
        let CertSource::S3 { bucket, prefix } = source else {
            return files::read(source);
        };
        let texts = |known: &Result<Known, Diagnostic>| match known {
            Ok(known) => Ok(known.texts.clone()),
            Err(problem) => Err(problem.clone()),
        };
        if let Some(known) = self.lock().get(source) {
            return texts(known);
        }
        let known = fetched(source, bucket, prefix, None)
            .and_then(|found| found.ok_or_else(|| problem(source, &"nothing was fetched")));
        let texts = texts(&known);
        self.lock().insert(source.clone(), known);
        texts
    }

    /// Asks S3 for the sets of these that are from there, and forgets the others; whether anything is new. Blocks.
    pub fn renew(&self, sources: &[CertSource]) -> bool {
        self.lock().retain(|source, _| sources.contains(source));
        let mut is_news = false;
        for source in sources {
            let CertSource::S3 { bucket, prefix } = source else {
                continue;
            };
            let etags = match self.lock().get(source) {
                Some(Ok(known)) => Some(known.etags.clone()),
                _ => None,
            };
            let found = fetched(source, bucket, prefix, etags.as_ref());
            let mut all = self.lock();
            let Some(Ok(known)) = all.get_mut(source) else {
                // It was never there so far.
                if let Some(found) = found.transpose() {
                    let before = all.insert(source.clone(), found);
                    is_news |= match (&before, &all[source]) {
                        (Some(Err(before)), Err(problem)) => before != problem,
                        _ => true,
                    };
                }
                continue;
            };
            match found {
                Ok(Some(new)) => {
                    is_news |= new.texts != known.texts || known.problem.is_some();
                    *known = new;
                }
                Ok(None) => is_news |= known.problem.take().is_some(),
                Err(problem) => {
                    is_news |= known.problem.as_ref() != Some(&problem);
                    known.problem = Some(problem);
                }
            }
        }
        is_news
    }

    /// Why a set is not known to be the newest.
    pub fn problem(&self, source: &CertSource) -> Option<Diagnostic> {
        self.lock().get(source)?.as_ref().ok()?.problem.clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CertSource, Result<Known, Diagnostic>>> {
        // Each step leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in a bucket; `None`: as known.
fn fetched(
    source: &CertSource,
    bucket: &str,
    prefix: &str,
    etags: Option<&Etags>,
) -> Result<Option<Known>, Diagnostic> {
    // Nobody else is on this thread, which may block.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| problem(source, &error))?;
    let names = NAMES.map(|name| format!("{name}.pem"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fetched = runtime.block_on(fetch(bucket, prefix, &names, etags));
    match fetched.map_err(|error| problem(source, &error))? {
        Fetched::NotModified => Ok(None),
        Fetched::Changed { objects, etags } => {
            let mut objects = objects.into_iter().zip(NAMES).map(|(bytes, name)| {
                let place = source.place_of(name).unwrap_or_default();
                bytes.map(|bytes| Source::decode(place, bytes))
            });
            let mut next = || objects.next().flatten();
            let texts = CertTexts {
                source: source.clone(),
                ca: next(),
                cert: next(),
                key: next(),
            };
            Ok(Some(Known {
                texts,
                etags,
                problem: None,
            }))
        }
    }
}

fn problem(source: &CertSource, why: &impl ToString) -> Diagnostic {
    Diagnostic::of_file(source.to_string(), Severity::Error, why.to_string())
}
