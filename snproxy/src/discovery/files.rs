//! Reads a set of files.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::conf::{self, Files, Sources};
use crate::diag::{Diagnostic, Severity, Source};

use super::watch::Writers;
use super::whole;

/// Where a set of files begins.
#[derive(Clone, Debug)]
pub enum Root {
    /// A proxy.conf, which names the others.
    Conf(PathBuf),
    /// An apps file alone, and what a proxy.conf would say of it.
    Apps(Source),
    /// Both texts, of which there is no file: a proxy.conf and an apps file.
    Said { conf: Source, apps: Source },
}

/// The file that it begins with.
impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conf(path) => path.display().fmt(f),
            Self::Apps(said) => match conf::files(said).apps {
                Some(apps) => apps.display().fmt(f),
                None => said.path.display().fmt(f),
            },
            Self::Said { conf, .. } => conf.path.display().fmt(f),
        }
    }
}

impl Root {
    /// Reads the files, each once its writer has closed it. Blocks on the file system and, for up
    /// to two seconds each, on programs that write.
    ///
    /// Shape: a file larger than its limit comes cut off one byte past it, which the parser refuses.
    /// Errors: one finding per file that exists and cannot be read, and for a missing proxy.conf.
    pub fn read(&self, writers: Option<&Writers>) -> Result<Sources, Vec<Diagnostic>> {
        let read_file = |path: &Path, limit| read_file(path, limit, writers);
        let proxy = self.conf(writers).map_err(|found| vec![found])?;
        let files = conf::files(&proxy);
        let empty = |path: &PathBuf| {
            Ok(Some(Source {
                path: path.clone(),
                text: String::new(),
            }))
        };
        let (mappings, hosts) = match self {
            Self::Conf(_) => (
                read_file(&files.mappings, conf::MAX_MAPPINGS_FILE),
                read_file(&files.hosts, conf::MAX_HOSTS_FILE),
            ),
            Self::Apps(_) | Self::Said { .. } => (empty(&files.mappings), empty(&files.hosts)),
        };
        let apps = match self {
            Self::Said { apps, .. } => Ok(Some(apps.clone())),
            Self::Conf(_) | Self::Apps(_) => {
                let path = files.apps.as_deref();
                path.map_or(Ok(None), |path| read_file(path, conf::MAX_APPS_FILE))
            }
        };
        match (mappings, hosts, apps) {
            (Ok(mappings), Ok(hosts), Ok(apps)) => Ok(Sources {
                proxy,
                mappings,
                hosts,
                apps,
            }),
            (mappings, hosts, apps) => Err([hosts.err(), mappings.err(), apps.err()]
                .into_iter()
                .flatten()
                .collect()),
        }
    }

    /// The text of proxy.conf, or what stands for it. Blocks on the file system.
    ///
    /// # Errors
    /// Returns the finding about a file that is missing or cannot be read.
    pub fn conf(&self, writers: Option<&Writers>) -> Result<Source, Diagnostic> {
        match self {
            Self::Conf(path) => read_conf(path, writers),
            Self::Apps(said) | Self::Said { conf: said, .. } => Ok(said.clone()),
        }
    }

    /// The file that it begins with, absolute; `None`: there is no file.
    pub fn file(&self) -> Option<PathBuf> {
        let file = match self {
            Self::Conf(path) => path.clone(),
            Self::Apps(said) => conf::files(said).apps?,
            Self::Said { .. } => return None,
        };
        Some(std::path::absolute(&file).unwrap_or(file))
    }

    /// All files of a set, existing or not: what to watch.
    pub fn paths(&self, files: &Files) -> Vec<PathBuf> {
        let conf = match self {
            Self::Conf(_) => vec![&files.proxy, &files.mappings, &files.hosts],
            Self::Apps(_) => Vec::new(),
            Self::Said { .. } => return Vec::new(),
        };
        conf.into_iter().chain(&files.apps).cloned().collect()
    }
}

fn read_conf(path: &Path, writers: Option<&Writers>) -> Result<Source, Diagnostic> {
    let missing = || {
        let message = "no such file: name another with --conf";
        Diagnostic::of_file(path, Severity::Error, message)
    };
    read_file(path, conf::MAX_PROXY_FILE, writers)?.ok_or_else(missing)
}

/// `None` for a file that does not exist.
pub(super) fn read_file(
    path: &Path,
    limit: usize,
    writers: Option<&Writers>,
) -> Result<Option<Source>, Diagnostic> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match whole::read(path, most, writers) {
        Ok(bytes) => Ok(bytes.map(|bytes| Source::decode(path, bytes))),
        Err(error) => {
            let message = error.to_string();
            Err(Diagnostic::of_file(path, Severity::Error, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_found_beside_proxy_conf() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("ports")).unwrap();
        fs::write(at("proxy.conf"), "PORTSCONF ports/here").unwrap();
        fs::write(at("ports/here"), "1024:30000:1:true").unwrap();
        let root = Root::Conf(at("proxy.conf"));
        let sources = root.read(None).unwrap();
        assert_eq!(sources.mappings.as_ref().unwrap().text, "1024:30000:1:true");
        assert_eq!(sources.hosts, None);
        assert_eq!(
            root.paths(&conf::files(&sources.proxy)),
            [at("proxy.conf"), at("ports/here"), at("hosts.conf")]
        );
        assert_eq!(sources, root.read(None).unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let missing = Root::Conf(at("proxy.conf")).read(None).unwrap_err();
        assert!(
            missing[0].message.starts_with("no such file"),
            "{}",
            missing[0]
        );

        fs::write(at("proxy.conf"), "").unwrap();
        fs::create_dir(at("hosts.conf")).unwrap();
        symlink("portmappings.conf", at("portmappings.conf")).unwrap();
        let found = Root::Conf(at("proxy.conf")).read(None).unwrap_err();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].ends_with("hosts.conf: error: a directory: expected a file"),
            "{found:?}"
        );
        assert!(
            found[1].contains("portmappings.conf: error: open: "),
            "{found:?}"
        );
    }

    #[test]
    fn a_fifo_does_not_hold_us_and_a_device_is_no_file() {
        let root = tempfile::tempdir().unwrap();
        let fifo = root.path().join("proxy.conf");
        let made = std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap();
        assert!(made.success());
        for path in [fifo.as_path(), Path::new("/dev/zero")] {
            assert_eq!(
                Root::Conf(path.into()).read(None).unwrap_err()[0].message,
                "not a regular file"
            );
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("proxy.conf");
        fs::write(&file, vec![b'#'; 2 * conf::MAX_PROXY_FILE]).unwrap();
        let sources = Root::Conf(file).read(None).unwrap();
        assert_eq!(sources.proxy.text.len(), conf::MAX_PROXY_FILE + 1);
    }
}
