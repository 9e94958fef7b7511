//! `cargo xtask dist`: all that a host or a cluster needs, in one folder and one archive.

use crate::{
    root::{as_root, build_with, cargo, find, run as run_command, workspace},
    steps::Steps,
    tools,
};
use anyhow::{Context, ensure};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Copied as they are, files and folders: from, to.
const COPIED: &[(&str, &str)] = &[
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE", "LICENSE"),
    ("deploy/systemd", "systemd"),
    ("deploy/kubernetes", "kubernetes"),
    ("deploy/simplenetes", "simplenetes"),
];
/// The same bytes of the same files: no times, no users.
const TAR: &[&str] = &[
    "--sort=name",
    "--owner=0",
    "--group=0",
    "--numeric-owner",
    "--mtime=@0",
    "--gzip",
];

pub(crate) fn run() -> anyhow::Result<()> {
    let mut steps = Steps::default();
    let result = make(&mut steps);
    steps.print_summary();
    let archive = result?;
    println!("{}", archive.display());
    Ok(())
}

fn make(steps: &mut Steps) -> anyhow::Result<PathBuf> {
    let snproxy = steps.step("build snproxy (release, static)", static_binary)?;
    let name = format!("snproxy-{VERSION}-{}", env::consts::ARCH);
    let dist = workspace().join("dist");
    let folder = dist.join(&name);
    steps.step("files", || {
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder)?;
        for (from, to) in COPIED {
            copy(&workspace().join(from), &folder.join(to))?;
        }
        copy(&snproxy, &folder.join("snproxy"))?;
        copy(
            &snproxy,
            &folder.join("simplenetes/config/executable/proxy"),
        )?;
        let manifest = folder.join("kubernetes/snproxy.yaml");
        let privileged = super::manifests::privileged(&fs::read_to_string(manifest)?)?;
        fs::write(
            folder.join("kubernetes/snproxy-privileged.yaml"),
            privileged,
        )
        .context("the manifest's second variant")
    })?;
    steps.step("image", || {
        tools::install_missing(tools::IMAGE)?;
        image(&snproxy, &folder.join("snproxy.oci.tar"))
    })?;
    let archive = dist.join(format!("{name}.tar.gz"));
    steps.step("archive", || {
        let mut tar = Command::new("tar");
        tar.args(TAR).arg("--file").arg(&archive).arg("--create");
        run_command(tar.arg("--directory").arg(&dist).arg(&name))
    })?;
    Ok(archive)
}

/// An executable that needs nothing of the system but its kernel.
pub(crate) fn static_binary() -> anyhow::Result<PathBuf> {
    let snproxy = build_static("snproxy", "snproxy")?;
    ensure!(
        is_static(&fs::read(&snproxy)?),
        "{} needs a loader: it is not static",
        snproxy.display()
    );
    Ok(snproxy)
}

/// Builds an executable of a package with the flags of what is given out.
pub(crate) fn build_static(package: &str, executable: &str) -> anyhow::Result<PathBuf> {
    build_with(static_build(package, ""), executable)
}

/// The command that builds a package with the flags of what is given out, and more.
pub(crate) fn static_build(package: &str, more: &str) -> Command {
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    // With a target of its own, the flags are not for proc-macros, which cannot be static.
    let mut command = cargo(&["build", "--release", "--package", package, "--target"]);
    let flags = format!("-C target-feature=+crt-static -C strip=debuginfo {more}");
    command.arg(target).env("RUSTFLAGS", flags.trim_end());
    command
}

/// Whether the kernel starts it without a loader (no `PT_INTERP`).
fn is_static(executable: &[u8]) -> bool {
    use object::{
        Endianness,
        elf::{FileHeader64, PT_INTERP},
        read::elf::{FileHeader as _, ProgramHeader as _},
    };
    let segments = FileHeader64::<Endianness>::parse(executable).and_then(|header| {
        let endian = header.endian()?;
        let segments = header.program_headers(endian, executable)?;
        Ok(segments
            .iter()
            .any(|segment| segment.p_type(endian) == PT_INTERP))
    });
    segments.is_ok_and(|has_loader| !has_loader)
}

/// Name of the image in manifests and archives.
pub(crate) fn image_name() -> String {
    format!("localhost/snproxy:{VERSION}")
}

/// Builds the image of deploy/container/Containerfile around this executable and writes it as an OCI archive.
pub(crate) fn image(snproxy: &Path, archive: &Path) -> anyhow::Result<()> {
    let work = workspace().join(format!("target/image-{}", process::id()));
    let context = work.join("context");
    fs::create_dir_all(&context)?;
    copy(snproxy, &context.join("snproxy"))?;
    let _ = fs::remove_file(archive);
    // Storage of its own: nothing of the user's images is touched, and any file system will do.
    let buildah = || -> anyhow::Result<Command> {
        let mut buildah =
            as_root(find("buildah").context("no buildah: Debian has it in `buildah`")?)?;
        buildah.args(["--storage-driver", "vfs", "--root"]);
        buildah
            .arg(work.join("store"))
            .arg("--runroot")
            .arg(work.join("run"));
        Ok(buildah)
    };
    let name = image_name();
    let made = (|| {
        let mut build = buildah()?;
        build.args([
            "build",
            "--quiet",
            "--timestamp",
            "0",
            "--tag",
            &name,
            "--file",
        ]);
        build.arg(workspace().join("deploy/container/Containerfile"));
        run_command(build.arg(&context))?;
        let to = format!("oci-archive:{}:{name}", archive.display());
        run_command(buildah()?.args(["push", "--quiet", &name, &to]))
    })();
    // What root made, root removes.
    run_command(as_root("rm")?.arg("-rf").arg(&work))?;
    made
}

/// Copies a file, or a folder with all that is in it; modes are kept.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let what = || format!("copy {} to {}", from.display(), to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(what)?;
    }
    if !from.is_dir() {
        return fs::copy(from, to).map(drop).with_context(what);
    }
    fs::create_dir_all(to).with_context(what)?;
    let mode = fs::metadata(from).with_context(what)?.permissions().mode();
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(what)?;
    for entry in fs::read_dir(from).with_context(what)? {
        let entry = entry.with_context(what)?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_has_a_loader_and_text_is_no_executable() {
        assert!(!is_static(&fs::read(env::current_exe().unwrap()).unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
    }
}
