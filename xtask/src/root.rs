//! Where the workspace is, who we are, and commands that need root.

use anyhow::{Context, bail};
use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A command that runs as root: itself, or through sudo.
///
/// Errors: an ordinary user without sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let shown = program.as_ref().display();
    if find("sudo").is_none() {
        bail!("{shown} needs root: run this as root, or install sudo");
    }
    println!("  (as root, through sudo: {shown})");
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}

/// Where a program is, also in the folders of root that users often lack in their PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders =
        env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let is_executable = |file: &PathBuf| {
        fs::metadata(file)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    folders
        .map(|folder| folder.join(program))
        .find(is_executable)
}

/// The cargo that runs us.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(words).current_dir(workspace());
    cargo
}

/// Runs a command to its end; what it prints is seen.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| shown(command))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// Builds with cargo and gives the path of the executable of this target; what cargo prints is seen.
pub(crate) fn build(words: &[&str], target: &str) -> anyhow::Result<PathBuf> {
    build_with(cargo(words), target)
}

/// The same with a command that says more than words.
pub(crate) fn build_with(mut command: Command, target: &str) -> anyhow::Result<PathBuf> {
    command.args(["--locked", "--message-format=json-render-diagnostics"]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| shown(&command))?;
    if !output.status.success() {
        bail!("{}: {}", shown(&command), output.status);
    }
    let messages = String::from_utf8(output.stdout).context("messages of cargo")?;
    executable(&messages, target)
        .with_context(|| format!("{} built no `{target}`", shown(&command)))
}

/// The executable that cargo's JSON messages name for this target.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let name = format!("\"name\":\"{target}\"");
    let mut artifacts = messages
        .lines()
        .filter(|line| line.contains("\"compiler-artifact\"") && line.contains(&name));
    artifacts.find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(rest.split_once('"')?.0.into())
    })
}

fn shown(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_the_messages_of_cargo() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"snproxy"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"snproxy"},"executable":"/t/release/snproxy"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(
            executable(messages, "snproxy"),
            Some(PathBuf::from("/t/release/snproxy"))
        );
        assert_eq!(executable(messages, "xtask"), None);
    }
}
