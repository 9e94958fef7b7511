//! `cargo xtask manifests`: the Kubernetes manifests against the schemas of Kubernetes, unknown fields refused.

use crate::{
    dist::image_name,
    root::{find, run as run_command, workspace},
    tools,
};
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const MANIFEST: &str = "deploy/kubernetes/snproxy.yaml";
/// The validator, which brings the schemas, and all that it needs, at versions that work together.
const REQUIREMENTS: &str = "xtask/manifests.txt";
/// The newest that the validator has schemas for, and one that is old.
const VERSIONS: &[&str] = &["1.37", "1.29"];

pub(crate) fn run() -> anyhow::Result<()> {
    let manifest = fs::read_to_string(workspace().join(MANIFEST)).context(MANIFEST)?;
    let image = format!("image: {}\n", image_name());
    ensure!(
        manifest.contains(&image),
        "{MANIFEST}: expected `{}`",
        image.trim()
    );
    let folder = workspace().join("target/manifests");
    fs::create_dir_all(&folder)?;
    let files = [
        (folder.join("snproxy.yaml"), manifest.clone()),
        (
            folder.join("snproxy-privileged.yaml"),
            privileged(&manifest)?,
        ),
    ];
    let validator = validator(&workspace().join("target/tools/manifests"))?;
    for (file, text) in files {
        fs::write(&file, text)?;
        for version in VERSIONS {
            let mut validate = Command::new(&validator);
            validate.args(["--strict", "--kubernetes-version", version]);
            run_command(validate.arg(&file))?;
        }
    }
    Ok(())
}

/// The second variant of the manifest: its lines uncommented, the first variant's left out.
///
/// Errors: the marks are not there, in order.
pub(crate) fn privileged(manifest: &str) -> anyhow::Result<String> {
    let mut marks = vec!["common"];
    let mut made = String::new();
    for line in manifest.lines() {
        if let Some(mark) = line.trim_start().strip_prefix("# variant: ") {
            marks.extend(mark.split([' ', ',']).next());
            continue;
        }
        match marks.last() {
            Some(&"least") => continue,
            Some(&"privileged") => made += &line.replacen("# ", "", 1),
            _ => made += line,
        }
        made.push('\n');
    }
    ensure!(
        marks == ["common", "least", "privileged", "end"],
        "{MANIFEST}: the marks of its variants are {marks:?}"
    );
    Ok(made)
}

/// The validator in an environment of its own, installed where it is not.
fn validator(folder: &Path) -> anyhow::Result<PathBuf> {
    let validator = folder.join("bin/kubernetes-validate");
    let requirements = workspace().join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements).context(REQUIREMENTS)?;
    // Written last: an installation that was interrupted is done again.
    let done = folder.join("installed.txt");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(validator);
    }
    let make = |python: &Path| {
        let mut venv = Command::new(python);
        run_command(venv.args(["-m", "venv", "--clear"]).arg(folder))
    };
    // Debian has the module in a package of its own.
    if find("python3").is_none_or(|python| make(&python).is_err()) {
        tools::install(&["python3", "python3-venv"])?;
        make(&find("python3").context("no python3, though it is installed")?)?;
    }
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    run_command(pip.arg(requirements))?;
    fs::write(done, wanted)?;
    Ok(validator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_variant_takes_the_place_of_the_first() {
        let manifest = "a:\n  # variant: least\n  b: 1\n  # variant: privileged, x\n  # c: 2\n  # variant: end\nd: 3\n";
        assert_eq!(privileged(manifest).unwrap(), "a:\n  c: 2\nd: 3\n");
        assert!(privileged("a:\n  # variant: privileged\n").is_err());
    }
}
