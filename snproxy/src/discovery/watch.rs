//! Says when files change.
//!
//! inotify on the folders makes it quick; a look at the files every two seconds makes it certain:
//! a folder that was replaced, a symlink into another folder, a file system without events.
//! Watching the files themselves would go blind with the first rename over one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind, RemoveKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout_at};

use super::pending::{Happened, Pending, WRITTEN};
use super::whole::Stamp;

/// How often files and folders are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Most files of the watched folders whose writers are known.
const MAX_WRITING: usize = 1024;

/// Stand for files in [`Pending`]; no file is named so.
const LOOKED: &str = "/";
const NEIGHBOUR: &str = "";

/// Watches files that may be replaced, written in place, or not exist yet.
pub struct Watch {
    shared: Arc<Shared>,
    watcher: notify::Result<RecommendedWatcher>,
    /// Sorted, each once.
    paths: Vec<PathBuf>,
    /// Folders of the paths, and which directory was watched under that name.
    folders: BTreeMap<PathBuf, Option<Id>>,
    /// As of the last report.
    stamps: Vec<Option<Stamp>>,
    /// As of the last look.
    seen: Vec<Option<Stamp>>,
    next_look: tokio::time::Instant,
    /// Why the last folder could not be watched.
    problem: Option<String>,
    /// The look under way.
    looking: Option<tokio::task::JoinHandle<Look>>,
}

/// Device and inode.
type Id = (u64, u64);

/// What the thread of the watcher tells us.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    woken: Notify,
}

#[derive(Default)]
struct State {
    pending: Pending,
    /// An event named one of the files: no need to look whether something changed.
    named: bool,
    names: BTreeSet<OsString>,
    /// Files of the folders that were written and not closed, and when that was last seen. All of
    /// them: a symlink may lead to one of them by now.
    writing: HashMap<OsString, Instant>,
    /// The change was found by looking: no event will tell that it is over.
    looked: bool,
    /// A folder went away, and its watch with it; the next one may even have its inode.
    lost: bool,
}

/// What a look finds.
struct Look {
    stamps: Vec<Option<Stamp>>,
    folders: BTreeMap<PathBuf, Option<Id>>,
    /// Of the files, and of what symlinks lead to.
    names: BTreeSet<OsString>,
}

impl Look {
    fn at(paths: &[PathBuf]) -> Self {
        // A file behind a symlink may be written in place, in another folder.
        let real = paths.iter().filter_map(|path| path.canonicalize().ok());
        let all: Vec<PathBuf> = paths.iter().cloned().chain(real).collect();
        let folders: BTreeSet<PathBuf> = all.iter().map(|path| folder(path)).collect();
        let names = all.iter().filter_map(|path| path.file_name());
        let id = |path: &Path| {
            fs::metadata(path)
                .ok()
                .map(|found| (found.dev(), found.ino()))
        };
        Self {
            names: names.map(OsStr::to_owned).collect(),
            stamps: paths.iter().map(|path| Stamp::at(path)).collect(),
            folders: folders
                .into_iter()
                .map(|path| (id(&path), path))
                .map(|(id, path)| (path, id))
                .collect(),
        }
    }
}

impl Watch {
    /// Create it before the first read, or a change in between goes unseen.
    ///
    /// Without inotify (its limits are per user and easily used up) it looks every two seconds:
    /// see [`problem`](Self::problem).
    pub fn new(paths: &[PathBuf]) -> Self {
        let shared = Arc::new(Shared::default());
        let events = Arc::clone(&shared);
        let watcher = notify::recommended_watcher(move |event| events.on(event, Instant::now()));
        let mut watch = Self {
            shared,
            watcher,
            paths: sorted(paths),
            folders: BTreeMap::new(),
            stamps: Vec::new(),
            seen: Vec::new(),
            next_look: tokio::time::Instant::now() + LOOK,
            problem: None,
            looking: None,
        };
        watch.watch_all();
        // Only now: what changes before a folder is watched must differ from these.
        watch.stamps = Look::at(&watch.paths).stamps;
        watch.seen.clone_from(&watch.stamps);
        watch
    }

    /// Watches these files from now on. Files that were not watched before count as changed.
    pub fn set(&mut self, paths: &[PathBuf]) {
        let paths = sorted(paths);
        if paths == self.paths {
            return;
        }
        self.paths = paths;
        self.looking = None;
        self.watch_all();
        // Whoever read the new files did so before they were watched.
        let mut state = self.shared.lock();
        state
            .pending
            .on(OsStr::new(NEIGHBOUR), Happened::Finished, Instant::now());
        state.named = true;
    }

    /// Why changes are found by looking every two seconds only, where that is so.
    pub fn problem(&self) -> Option<String> {
        match &self.watcher {
            Ok(_) => self.problem.clone(),
            Err(error) => Some(format!("inotify: {error}")),
        }
    }

    /// Waits for the next change, until it is over.
    ///
    /// It may report a change that leaves the texts as they were: compare them.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    pub async fn changed(&mut self) {
        loop {
            let due = self.shared.lock().pending.due();
            let due = due.map_or(self.next_look, tokio::time::Instant::from_std);
            let due = due.min(self.next_look);
            if due > tokio::time::Instant::now() {
                let woken = self.shared.woken.notified();
                // Woken: the change goes on, and is over later.
                if timeout_at(due, woken).await.is_ok() {
                    continue;
                }
            }
            // A file system may hang; the connections on this thread must not. A look that was begun is kept when
            // this future is dropped, or a slow one would never come to its end.
            let looking = self.looking.get_or_insert_with(|| {
                let paths = self.paths.clone();
                tokio::task::spawn_blocking(move || Look::at(&paths))
            });
            let looked = looking.await;
            self.looking = None;
            let Ok(look) = looked else {
                // The runtime is going down, or a look panicked: no reason to spin.
                sleep(LOOK).await;
                continue;
            };
            // No await from here on: a look is used whole or not at all.
            if self.after(look, Instant::now()) {
                return;
            }
        }
    }

    /// Whether a change is over that has to be reported.
    fn after(&mut self, look: Look, now: Instant) -> bool {
        let Look {
            stamps,
            folders,
            names,
        } = look;
        self.next_look = self.next_look.max(tokio::time::Instant::from_std(now));
        if self.next_look.into_std() <= now {
            self.next_look += LOOK;
        }
        let is_watched_anew = self.watch_folders(folders);
        let mut state = self.shared.lock();
        state.names = names;
        if stamps != self.seen {
            self.seen.clone_from(&stamps);
            if state.looked || state.pending.due().is_none() {
                state.looked = true;
                state.pending.on(OsStr::new(LOOKED), Happened::Started, now);
            }
        }
        let is_over = state.pending.take(now);
        if is_watched_anew {
            // What happened between the two watches made no event.
            let neighbour = OsStr::new(NEIGHBOUR);
            state.pending.on(neighbour, Happened::Finished, now);
        }
        if !is_over {
            return false;
        }
        state.looked = false;
        let named = std::mem::take(&mut state.named);
        let report = named || stamps != self.stamps;
        self.stamps = stamps;
        report
    }

    /// Knows the writers of the watched files, on other threads.
    pub fn writers(&self) -> Writers {
        Writers(Arc::clone(&self.shared))
    }

    fn watch_all(&mut self) {
        let look = Look::at(&self.paths);
        self.shared.lock().names = look.names;
        self.watch_folders(look.folders);
    }

    /// Watches each folder under its name: again where another directory has that name now. Returns
    /// whether all folders are watched, and were not before.
    fn watch_folders(&mut self, now: BTreeMap<PathBuf, Option<Id>>) -> bool {
        let lost = std::mem::take(&mut self.shared.lock().lost);
        if now == self.folders && !lost {
            return false;
        }
        self.problem = None;
        let before = std::mem::replace(&mut self.folders, now);
        let Ok(watcher) = &mut self.watcher else {
            return false;
        };
        // All of them: notify also drops the folders below one that is dropped.
        for path in before.keys() {
            // Fails where the directory is gone, and its watch with it.
            drop(watcher.unwatch(path));
        }
        for (path, id) in &mut self.folders {
            // A folder that is not there is no problem: its file is missing, and it is looked for.
            if id.is_none() {
                continue;
            }
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                self.problem = Some(format!("inotify {}: {error}", path.display()));
                // So that the next look finds it changed, and tries again.
                *id = None;
            }
        }
        self.problem.is_none()
    }
}

/// Programs that write watched files, as far as inotify tells.
#[derive(Clone)]
pub struct Writers(Arc<Shared>);

impl fmt::Debug for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writers").finish_non_exhaustive()
    }
}

impl Writers {
    /// Whether a program writes a file of this name, or did until `delay` ago. Blocks for as long.
    pub(super) fn has(&self, path: &Path, delay: Duration) -> bool {
        std::thread::sleep(delay);
        let real = path.canonicalize().ok();
        let names = [Some(path), real.as_deref()].into_iter().flatten();
        let state = self.0.lock();
        let now = Instant::now();
        names
            .filter_map(Path::file_name)
            .filter_map(|name| state.writing.get(name))
            .any(|last| now < *last + WRITTEN)
    }
}

impl State {
    fn note_writer(&mut self, name: &OsStr, kind: EventKind, now: Instant) {
        match kind {
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => {}
            // Its writer has closed it, or the name has another file now.
            EventKind::Access(_)
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_) => {
                self.writing.remove(name);
                return;
            }
            _ => return,
        }
        if self.writing.len() >= MAX_WRITING {
            self.writing.retain(|_, last| now < *last + WRITTEN);
        }
        if self.writing.len() < MAX_WRITING {
            self.writing.insert(name.to_owned(), now);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each step leaves the state whole, even one that panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the watcher's thread.
    fn on(&self, event: notify::Result<Event>, now: Instant) {
        // Errors and lost events (`need_rescan`) have no path: a look says what happened.
        let event = event.unwrap_or_default();
        let happened = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
                Some(Happened::Finished)
            }
            // Reading makes these, ours too: each look would cause the next.
            EventKind::Access(_) => return,
            // Empty, half there, or gone until the next one comes: more is to follow.
            EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Name(_)) => {
                Some(Happened::Started)
            }
            _ => None,
        };
        let mut state = self.lock();
        state.lost |= matches!(
            event.kind,
            EventKind::Remove(RemoveKind::Folder | RemoveKind::Other)
        );
        let mut names = event.paths.iter().filter_map(|path| path.file_name());
        let name = names.next_back();
        if let Some(name) = name {
            state.note_writer(name, event.kind, now);
        }
        let ours: Option<OsString> = name
            .filter(|name| state.names.contains(*name))
            .map(OsStr::to_owned);
        match (ours, happened) {
            (Some(name), Some(happened)) => {
                state.pending.on(&name, happened, now);
                state.named = true;
            }
            // A neighbour: what a symlink leads to may be another file now. A look says.
            _ => state
                .pending
                .on(OsStr::new(NEIGHBOUR), Happened::Finished, now),
        }
        self.woken.notify_one();
    }
}

fn sorted(paths: &[PathBuf]) -> Vec<PathBuf> {
    let paths: BTreeSet<&PathBuf> = paths.iter().collect();
    paths.into_iter().cloned().collect()
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests;
