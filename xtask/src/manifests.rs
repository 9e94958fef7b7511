//! `cargo xtask manifests`: the Kubernetes manifests against the schemas of Kubernetes, unknown fields refused.

use crate::{
    dist::image_name,
    python,
    root::{run as run_command, workspace},
};
use anyhow::{Context, ensure};
use std::{fs, process::Command};

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
    let programs = python::environment("manifests", REQUIREMENTS)?;
    for (file, text) in files {
        fs::write(&file, text)?;
        for version in VERSIONS {
            let mut validate = Command::new(programs.join("kubernetes-validate"));
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
