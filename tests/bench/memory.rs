//! How much memory processes and the kernel hold, and how many descriptors they may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

/// Memory is given back late: snproxy looks around every half second, and the kernel takes its time.
const SETTLE: Duration = Duration::from_millis(1200);

/// Resident memory of these processes in KiB. Pages that they share with the greatest of them, as a worker does with the
/// process it was forked from, count once.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    let mut processes: Vec<_> = pids.iter().map(|&pid| rollup(pid)).collect();
    processes.sort_unstable();
    let greatest = processes.pop().map_or(0, |(rss, _)| rss);
    greatest + processes.iter().map(|(_, private)| private).sum::<u64>()
}

/// Resident memory of a process, and the part of it that is nobody else's. One that has ended has none.
fn rollup(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let private = kib(&text, "Private_Clean:") + kib(&text, "Private_Dirty:");
    (kib(&text, "Rss:"), private)
}

/// Memory of the kernel in KiB: slab of the whole machine (sockets, files), and the page tables and BPF maps of these processes.
pub(crate) fn kernel(pids: &[u32]) -> i64 {
    let sum = slab()
        + pids
            .iter()
            .map(|&pid| page_tables(pid) + bpf(pid))
            .sum::<u64>();
    i64::try_from(sum).expect("less than memory can be")
}

fn page_tables(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    kib(&status.unwrap_or_default(), "VmPTE:")
}

/// BPF maps and programs that a process holds.
fn bpf(pid: u32) -> u64 {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let locked = |text: String| {
        let bytes = text
            .lines()
            .find_map(|line| line.strip_prefix("memlock:"))?;
        bytes.trim().parse::<u64>().ok()
    };
    let all = descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| locked(fs::read_to_string(entry.path()).ok()?));
    all.sum::<u64>() >> 10
}

/// Slab of the whole machine in KiB.
pub(crate) fn slab() -> u64 {
    kib(
        &fs::read_to_string("/proc/meminfo").expect("/proc/meminfo"),
        "Slab:",
    )
}

/// Waits until what was freed has been given back.
pub(crate) fn settle() {
    sleep(SETTLE);
}

/// Waits until these processes have at most `most` KiB, no longer than `limit`.
pub(crate) fn wait_for_return(pids: &[u32], most: u64, limit: Duration) {
    let start = Instant::now();
    while resident(pids) > most && start.elapsed() < limit {
        sleep(Duration::from_millis(250));
    }
}

/// As many descriptors as the hard limit allows, for this process and those it starts; `None`: any number.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("raise the limit of descriptors");
    limit.maximum
}

fn kib(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "SReclaimable: 7 kB\nSlab:     12 kB\n";
        assert_eq!(kib(text, "Slab:"), 12);
        assert_eq!(kib(text, "Percpu:"), 0);
    }

    #[test]
    fn our_own_memory_is_seen() {
        let own = std::process::id();
        assert!(resident(&[own]) > 0);
        assert_eq!(resident(&[]), 0);
        assert!(kernel(&[]) > 0);
        assert!(page_tables(own) > 0);
        assert_eq!(bpf(own), 0);
    }
}
