//! Programs written in Python, each with all that it needs in an environment of its own.

use crate::{
    root::{find, run as run_command, workspace},
    tools,
};
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The folder of the programs of the environment `name` under `target/tools`, installed where it is not as the file
/// `requirements` says.
pub(crate) fn environment(name: &str, requirements: &str) -> anyhow::Result<PathBuf> {
    let folder = workspace().join("target/tools").join(name);
    let programs = folder.join("bin");
    let wanted = fs::read_to_string(workspace().join(requirements));
    let wanted = wanted.with_context(|| requirements.to_owned())?;
    // Written last: an installation that was interrupted is done again.
    let done = folder.join("installed.txt");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(programs);
    }
    let make = |python: &Path| {
        let mut venv = Command::new(python);
        run_command(venv.args(["-m", "venv", "--clear"]).arg(&folder))
    };
    // Debian has the module in a package of its own.
    if find("python3").is_none_or(|python| make(&python).is_err()) {
        tools::install(&["python3", "python3-venv"])?;
        make(&find("python3").context("no python3, though it is installed")?)?;
    }
    let mut pip = Command::new(programs.join("pip"));
    pip.args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ]);
    run_command(pip.arg(workspace().join(requirements)))?;
    fs::write(done, wanted)?;
    Ok(programs)
}
