//! The configuration of a host, and the ways in which people and daemons replace files.

use super::Host;
use crate::process::locked;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

impl Host {
    /// Folder of proxy.conf, portmappings.conf and hosts.conf.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn conf_file(&self) -> PathBuf {
        self.folder().join("proxy.conf")
    }

    /// Sets a key of proxy.conf; at the start there are HOST and ADMIN.
    pub fn conf(&self, key: &str, value: &str) -> &Self {
        locked(&self.keys).insert(key.to_owned(), value.to_owned());
        self.write_keys();
        self
    }

    /// Takes a key out of proxy.conf.
    pub fn without(&self, key: &str) -> &Self {
        locked(&self.keys).remove(key);
        self.write_keys();
        self
    }

    /// Replaces portmappings.conf by rename, as the Simplenetes daemon does.
    pub fn mappings(&self, text: &str) -> &Self {
        self.replace("portmappings.conf", text)
    }

    /// Replaces hosts.conf by rename; at the start it names all hosts of the net.
    pub fn hosts(&self, text: &str) -> &Self {
        self.replace("hosts.conf", text)
    }

    /// Replaces a file of the folder by rename: readers see the old one or the new one.
    pub fn replace(&self, file: &str, text: &str) -> &Self {
        let draft = self.folder().join(format!(".{file}.new"));
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, self.folder().join(file)))
            .expect("replace a file");
        self
    }

    /// Writes a file of the folder in place: readers may see a half of it.
    pub fn overwrite(&self, file: &str, text: &str) -> &Self {
        fs::write(self.folder().join(file), text).expect("overwrite a file");
        self
    }

    /// Makes a file of the folder a link through `..data` to a fresh folder, as a `ConfigMap` volume does.
    pub fn swap(&self, file: &str, text: &str) -> &Self {
        let version = tempfile::Builder::new()
            .prefix("..version-")
            .tempdir_in(self.folder())
            .expect("version folder");
        let version = version.keep();
        fs::set_permissions(&version, fs::Permissions::from_mode(0o755))
            .expect("mode of the version folder");
        fs::write(version.join(file), text).expect("file of the version");
        let place = |target: &Path, name: &str| {
            let draft = self.folder().join("..draft");
            symlink(target, &draft)
                .and_then(|()| fs::rename(&draft, self.folder().join(name)))
                .expect("swap a link");
        };
        place(
            Path::new(version.file_name().expect("a named folder")),
            "..data",
        );
        let link = self.folder().join(file);
        if !link.is_symlink() {
            place(&Path::new("..data").join(file), file);
        }
        self
    }

    pub(super) fn write_keys(&self) {
        let keys = locked(&self.keys);
        let lines: Vec<_> = keys
            .iter()
            .map(|(key, value)| format!("{key} {value}\n"))
            .collect();
        self.replace("proxy.conf", &lines.concat());
    }
}
