//! On what it was measured.

use crate::{
    contestants::version,
    ground::SYSCTLS,
    load::CONGESTION_CONTROL,
    results::{Machine, Versions},
};
use std::{fs, num::NonZero, path::Path, process::Command, thread::available_parallelism};

pub(crate) fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim_start_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_default()
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: u64 = (memory.split(' ').next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default();
    let named =
        |&(key, value): &(&str, &str)| (format!("net/{key}").replace('/', "."), value.to_owned());
    Machine {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cpus: available_parallelism().map_or(1, NonZero::get),
        memory_mib: kib >> 10,
        congestion_control: CONGESTION_CONTROL.to_owned(),
        sysctls: SYSCTLS.iter().map(named).collect(),
    }
}

pub(crate) fn versions(snproxy: &Path) -> Versions {
    Versions {
        snproxy: version(Command::new(snproxy).arg("--version")),
        haproxy: version(Command::new("haproxy").arg("-v")),
        nginx: version(Command::new("nginx").arg("-v")),
    }
}

/// Shape: `2026-11-21T12:00:00Z`.
pub(crate) fn date() -> String {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    let output = output.expect("date, of coreutils");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
