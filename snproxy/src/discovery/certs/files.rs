//! Certificates in files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::files::read_file;
use super::{MAX_FILE, NAMES};
use crate::conf::{CertSource, CertTexts};
use crate::diag::{Diagnostic, Severity, Source, printable};

/// Names of the key in a folder, the first one first. The second one is Let's Encrypt's.
const KEY: [&str; 2] = ["key.pem", "privkey.pem"];
/// Names of the certificate that goes with each of [`KEY`]. Let's Encrypt's cert.pem has no chain.
const CERT: [[&str; 2]; 2] = [["cert.pem", "fullchain.pem"], ["fullchain.pem", "cert.pem"]];
/// Files of CAs, as distributions name them: Debian, Fedora, openSUSE, RHEL, Alpine.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Variable that names another file of CAs, as for OpenSSL.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

pub(super) fn read(source: &CertSource) -> Result<CertTexts, Diagnostic> {
    if let CertSource::Folder(folder) = source {
        return read_folder(source, folder);
    }
    let mut places = NAMES.map(|name| source.place_of(name));
    if matches!(source, CertSource::System { .. }) {
        places[0] = Some(bundle().ok_or_else(|| no_bundle(source))?);
    }
    let [ca, cert, key] = places.map(|place| place.map_or(Ok(None), |path| read_one(&path)));
    Ok(CertTexts {
        source: source.clone(),
        ca: ca?,
        cert: cert?,
        key: key?,
    })
}

fn read_folder(source: &CertSource, folder: &Path) -> Result<CertTexts, Diagnostic> {
    let (which, key) = first(folder, KEY)?;
    let (_, cert) = first(folder, CERT[which])?;
    Ok(CertTexts {
        source: source.clone(),
        ca: read_one(&folder.join("ca.pem"))?,
        cert,
        key,
    })
}

/// The first file of a folder that exists, and which of the names it has.
fn first(folder: &Path, names: [&str; 2]) -> Result<(usize, Option<Source>), Diagnostic> {
    for (which, name) in names.iter().enumerate() {
        if let Some(source) = read_one(&folder.join(name))? {
            return Ok((which, Some(source)));
        }
    }
    Ok((0, None))
}

/// A link to a file that does not exist is an error: without its target, a CA would look as if the operator wants none.
fn read_one(path: &Path) -> Result<Option<Source>, Diagnostic> {
    let source = read_file(path, MAX_FILE, None)?;
    if source.is_none() && fs::symlink_metadata(path).is_ok() {
        let message = "the target of this link does not exist";
        return Err(Diagnostic::of_file(path, Severity::Error, message));
    }
    Ok(source)
}

fn bundle() -> Option<PathBuf> {
    let said = std::env::var_os(BUNDLE_VARIABLE).filter(|path| !path.is_empty());
    let mut known = BUNDLES.iter().map(PathBuf::from);
    said.map_or_else(
        || known.find(|path| path.is_file()),
        |path| Some(path.into()),
    )
}

fn no_bundle(source: &CertSource) -> Diagnostic {
    let message = format!(
        "missing CAs of the system: {} do not exist; install ca-certificates, or set {BUNDLE_VARIABLE}",
        BUNDLES.join(", ")
    );
    Diagnostic::of_file(source.to_string(), Severity::Error, message)
}

/// The files of a set, existing or not: what to watch.
pub fn paths(source: &CertSource) -> Vec<PathBuf> {
    match source {
        CertSource::S3 { .. } => Vec::new(),
        CertSource::Folder(folder) => {
            let names = ["ca.pem"].iter().chain(&KEY).chain(&CERT[0]);
            names.map(|name| folder.join(name)).collect()
        }
        CertSource::System { .. } => {
            let own = NAMES.iter().filter_map(|name| source.place_of(name));
            own.chain(bundle()).collect()
        }
        CertSource::Files { .. } => {
            let all = NAMES.iter().filter_map(|name| source.place_of(name));
            all.collect()
        }
    }
}

/// The files where the key of a set may be.
pub fn key_paths(source: &CertSource) -> Vec<PathBuf> {
    match source {
        CertSource::S3 { .. } => Vec::new(),
        CertSource::Folder(folder) => KEY.iter().map(|name| folder.join(name)).collect(),
        CertSource::System { .. } | CertSource::Files { .. } => {
            source.place_of("key").into_iter().collect()
        }
    }
}

/// A warning where all users of this host can read a file of a secret; `what` is the secret.
pub fn exposed(path: &Path, what: &str) -> Option<Diagnostic> {
    let real = fs::canonicalize(path).ok()?;
    let mode = fs::metadata(&real).ok()?.mode();
    // A folder that others cannot search protects the files in it.
    let can_search = |folder: &Path| fs::metadata(folder).is_ok_and(|it| it.mode() & 0o001 != 0);
    let is_exposed = mode & 0o004 != 0 && real.ancestors().skip(1).all(can_search);
    is_exposed.then(|| {
        let shown = printable(&path.to_string_lossy()).into_owned();
        let message = format!(
            "all users of this host can read {what} (mode {:04o}); run `chmod o-rwx {shown}`",
            mode & 0o7777
        );
        Diagnostic::of_file(path, Severity::Warning, message)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[track_caller]
    fn texts(folder: &Path) -> [Option<String>; 3] {
        let read = read(&CertSource::Folder(folder.to_owned())).unwrap();
        [read.ca, read.cert, read.key].map(|source| source.map(|source| source.text))
    }

    #[test]
    fn a_folder_has_the_names_of_lets_encrypt_too() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(root.path().join(name), name).unwrap();
        let text = |name: &str| Some(name.to_owned());
        assert_eq!(texts(root.path()), [None, None, None]);
        for name in ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"] {
            write(name);
        }
        let expected = [None, text("fullchain.pem"), text("privkey.pem")];
        assert_eq!(texts(root.path()), expected);
        write("key.pem");
        write("ca.pem");
        let expected = [text("ca.pem"), text("cert.pem"), text("key.pem")];
        assert_eq!(texts(root.path()), expected);
    }

    #[test]
    fn a_link_without_a_target_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        symlink("nowhere", root.path().join("ca.pem")).unwrap();
        let wrong = read(&CertSource::Folder(root.path().to_owned())).unwrap_err();
        assert!(wrong.to_string().contains("ca.pem"), "{wrong}");
        assert!(wrong.message.contains("does not exist"), "{wrong}");
    }

    #[test]
    fn a_mode_that_others_can_read_is_a_warning() {
        let root = tempfile::tempdir_in("/tmp").unwrap();
        let key = root.path().join("key.pem");
        fs::write(&key, "").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let warning = || exposed(&key, "the private key");
        for (folder, file, is_exposed) in [
            (0o755, 0o644, true),
            (0o755, 0o640, false),
            (0o700, 0o644, false),
            (0o711, 0o604, true),
        ] {
            mode(root.path(), folder);
            mode(&key, file);
            assert_eq!(warning().is_some(), is_exposed, "{folder:o} {file:o}");
        }
        let found = warning().unwrap().to_string();
        assert!(found.contains("mode 0604"), "{found}");
        assert_eq!(exposed(&root.path().join("none"), "a password"), None);
    }
}
