//! `cargo xtask test`: everything, visibly.

use crate::{
    dist, python,
    root::{as_root, build, cargo, is_root, run as run_command},
    steps::Steps,
    tools,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    thread::available_parallelism,
};

/// moto, which is a server of S3 and checks signatures, and all that it needs, at versions that work together. Twenty
/// seconds to install, where a server to be compiled takes more than a minute of two processors.
const S3_SERVER: &str = "xtask/s3.txt";

pub(crate) fn run(fast: bool, strict: bool, filter: Option<&str>) -> anyhow::Result<()> {
    let strict = strict || env::var("CI").is_ok_and(|ci| ci == "true");
    let mut steps = Steps::default();
    let mut result = steps.step("unit tests", || units(filter));
    if result.is_ok() && filter.is_none() {
        result = steps.step("examples of the library", examples);
    }
    if result.is_ok() && !fast {
        result = scenarios(&mut steps, strict, filter);
    }
    steps.print_summary();
    match &result {
        Ok(()) if fast => println!("Passed. The scenarios were left out (--fast)."),
        Ok(()) => println!("All passed."),
        Err(_) => println!("Failed in the last step above."),
    }
    result
}

fn units(filter: Option<&str>) -> anyhow::Result<()> {
    // Always the whole workspace, here and below: with fewer packages what they use would have other features, and be built
    // once more.
    let targets = [
        // All but the scenarios.
        &["--lib", "--bins", "--test", "no_allocation"][..],
        &["--doc"],
    ];
    for targets in targets {
        let words = ["test", "--locked", "--workspace"];
        run_command(cargo(&words).args(targets).args(filter))?;
    }
    Ok(())
}

/// Each one ends by itself, and panics where it does not get what it shows.
fn examples() -> anyhow::Result<()> {
    for example in ["static", "policies", "tls_pair"] {
        let words = ["build", "--workspace", "--example", example];
        let executable = build(&words, example)?;
        run_command(&mut Command::new(executable))?;
    }
    Ok(())
}

fn scenarios(steps: &mut Steps, strict: bool, filter: Option<&str>) -> anyhow::Result<()> {
    steps.step("programs that the scenarios use", || {
        tools::install_missing(tools::IMAGE)?;
        tools::install_missing(tools::SCENARIOS)?;
        python::environment("s3", S3_SERVER).map(drop)
    })?;
    // What is tested is what `cargo xtask dist` gives out. Figures of a debug build would mean nothing.
    let snproxy = steps.step("build snproxy (release, static)", dist::static_binary)?;
    let image = snproxy.with_file_name("snproxy.oci.tar");
    steps.step("build the image", || dist::image(&snproxy, &image))?;
    let scenarios = build_scenarios(steps)?;
    // Not in /tmp: root would write there what we cannot remove.
    let figures = snproxy.with_file_name(format!("figures-{}", process::id()));
    let headline = if is_root() {
        "scenarios"
    } else {
        "scenarios (built as you, run as root)"
    };
    let result = steps.step(headline, || {
        // sudo clears the environment.
        let mut command = as_root("env")?;
        command.arg(format!("SNPROXY_BIN={}", snproxy.display()));
        command.arg(format!("SNPROXY_IMAGE={}", image.display()));
        command.arg(format!("SNPROXY_FIGURES={}", figures.display()));
        command.arg(format!("SNPROXY_TEST_STRICT={}", u8::from(strict)));
        command
            .arg(scenarios)
            .arg(format!("--test-threads={}", threads()));
        run_command(command.args(filter))
    });
    print_figures(&figures);
    result
}

/// Gives the executable.
pub(crate) fn build_scenarios(steps: &mut Steps) -> anyhow::Result<PathBuf> {
    let words = ["test", "--workspace", "--test", "scenarios", "--no-run"];
    steps.step("build the scenarios", || build(&words, "scenarios"))
}

/// Scenarios mostly wait, so two on one core are fine; more than four spoil each other's figures.
fn threads() -> usize {
    available_parallelism().map_or(2, |cpus| (2 * cpus.get()).clamp(2, 4))
}

fn print_figures(file: &Path) {
    let Ok(figures) = fs::read_to_string(file) else {
        return;
    };
    println!("\nFigures");
    for line in figures.lines() {
        println!("  {line}");
    }
    let _ = fs::remove_file(file);
}
