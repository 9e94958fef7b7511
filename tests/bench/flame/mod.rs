//! Where the time goes under load: perf's samples, as flame graphs and in shares.

mod shares;

use crate::{
    allowed::Allowed,
    cases::{self, Work},
    contestants::Contestant,
    results::{HAPROXY, SNPROXY},
    rounds::{Pace, World},
};
use anyhow::{Context, ensure};
use inferno::{
    collapse::{Collapse, perf},
    flamegraph::{
        self,
        color::{MultiPalette, Palette},
    },
};
use shares::Shares;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

/// Files and what is drawn in them.
const DRAWN: &[(&str, &str)] = &[
    ("connections.svg", "connect-one-host"),
    ("requests.svg", "rr-64-c64-one-host"),
];
const SECONDS: f64 = 5.0;
/// From the start of the load to the first sample.
const WARM_UP: f64 = 0.5;
/// Per second and processor; no round number, so as not to beat with what happens a thousand times a second.
const FREQUENCY: u32 = 4999;
const MOST_BYTES: usize = 400_000;

#[derive(clap::Args)]
pub(crate) struct Flame {
    #[arg(long)]
    snproxy: PathBuf,
    /// Where the graphs go.
    #[arg(long)]
    folder: PathBuf,
}

impl Flame {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let hidden = fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap_or_default();
        ensure!(
            hidden.trim() != "2",
            "kernel.kptr_restrict=2 hides the names of the kernel's functions"
        );
        fs::create_dir_all(&self.folder)?;
        let interrupted = super::interrupted()?;
        let _allowed = Allowed::new()?;
        let works = cases::all();
        let contestants = Contestant::all(&self.snproxy, &[]);
        for (file, case) in DRAWN {
            let work = works.iter().find(|work| work.name() == *case);
            let work = work.with_context(|| format!("no case {case}"))?;
            for name in [SNPROXY, HAPROXY[0]] {
                let contestant = contestants.iter().find(|one| one.name == name);
                let contestant = contestant.with_context(|| format!("no contestant {name}"))?;
                let (folded, per_second) = sample(work, contestant, &interrupted)?;
                println!(
                    "\n{case}, {name}: {per_second:.0} {} while sampled\n{}",
                    work.unit(),
                    Shares::of(&folded)?
                );
                if name == SNPROXY {
                    let path = self.folder.join(file);
                    let svg = draw(&folded, work, per_second)?;
                    fs::write(&path, &svg).with_context(|| path.display().to_string())?;
                    println!("written: {} ({} bytes)", path.display(), svg.len());
                }
            }
        }
        Ok(())
    }
}

/// Stacks of the contestant under load, one line each with the number of samples, and how much it did per second.
fn sample(
    work: &Work,
    contestant: &Contestant,
    interrupted: &Arc<AtomicBool>,
) -> anyhow::Result<(String, f64)> {
    let world = World::new(work.topology, contestant);
    let pace = Pace {
        rounds: 1,
        seconds: SECONDS + WARM_UP,
        warm_up: WARM_UP,
        keep_going: false,
        interrupted: Arc::clone(interrupted),
    };
    let scratch = tempfile::tempdir()?;
    let data = scratch.path().join("perf.data");
    let outcome = thread::scope(|scope| {
        let load = scope.spawn(|| world.measure(work, &pace));
        thread::sleep(Duration::from_secs_f64(2.0 * WARM_UP));
        let recorded = record(&data);
        let outcome = load.join().expect("the load's thread");
        recorded.and(outcome)
    })?;
    let pids: Vec<_> = world.pids().iter().map(ToString::to_string).collect();
    let mut script = Command::new("perf");
    script.args(["script", "--force", "--pid", &pids.join(",")]);
    // Without the period: a sample counts as one.
    script.args(["--fields", "comm,pid,tid,time,event,ip,sym,dso"]);
    let output = script.arg("--input").arg(&data).output();
    let output = output.context("perf script")?;
    ensure!(
        output.status.success(),
        "perf script: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut options = perf::Options::default();
    // Kernel functions end in `_[k]`.
    options.annotate_kernel = true;
    let mut folded = Vec::new();
    perf::Folder::from(options).collapse(&output.stdout[..], &mut folded)?;
    let folded = String::from_utf8(folded).context("names of functions")?;
    ensure!(!folded.is_empty(), "perf saw nothing of {pids:?}");
    Ok((folded, outcome.per_second))
}

/// Samples the whole machine: sampling one process, the timer is set anew at each change of tasks, and the samples
/// crowd there.
fn record(data: &Path) -> anyhow::Result<()> {
    // Machines without counters of their own, most virtual ones, have the clock.
    let has_counters = Path::new("/sys/bus/event_source/devices/cpu").exists();
    let event = if has_counters { "cycles" } else { "cpu-clock" };
    let output = Command::new("perf")
        .args(["record", "--quiet", "--all-cpus", "--event", event])
        .args(["--freq", &FREQUENCY.to_string(), "--call-graph", "fp"])
        .arg("--output")
        .arg(data)
        .args(["--", "sleep", &(SECONDS - 2.0 * WARM_UP).to_string()])
        .output()
        .context("perf record")?;
    ensure!(
        output.status.success(),
        "perf record: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The graph, without what is too narrow to be seen.
fn draw(folded: &str, work: &Work, per_second: f64) -> anyhow::Result<Vec<u8>> {
    // In per cent of the width.
    let mut narrowest = 0.1;
    loop {
        let mut options = flamegraph::Options::default();
        options.title = format!("snproxy: {}", work.name());
        options.subtitle = Some(format!(
            "{per_second:.0} {}; orange: kernel; narrower than {narrowest:.1} % left out",
            work.unit()
        ));
        options.colors = Palette::Multi(MultiPalette::Rust);
        // The same function has the same colour, and the same samples the same file.
        options.hash = true;
        options.min_width = narrowest;
        let mut svg = Vec::new();
        flamegraph::from_lines(&mut options, folded.lines(), &mut svg)?;
        if svg.len() <= MOST_BYTES {
            return Ok(svg);
        }
        narrowest *= 1.5;
    }
}
