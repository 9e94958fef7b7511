//! Processor time, as the kernel counts it.

use anyhow::Context;
use std::{
    fs,
    num::NonZero,
    thread::{self, available_parallelism},
    time::Duration,
};

/// `sysconf(_SC_CLK_TCK)` of every Linux.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    watched: Duration,
    machine: Duration,
}

impl Usage {
    /// Errors: a process that is no more.
    pub(super) fn now(watched: &[u32]) -> anyhow::Result<Self> {
        let times = watched.iter().map(|pid| {
            let path = format!("/proc/{pid}/stat");
            let text = fs::read_to_string(&path).with_context(|| path.clone())?;
            of_process(&text).context(path)
        });
        let machine = fs::read_to_string("/proc/stat")?;
        Ok(Self {
            watched: times.sum::<anyhow::Result<Duration>>()?,
            machine: of_machine(&machine).context("/proc/stat")?,
        })
    }

    /// The share of the machine's processors that is in use, over this time.
    pub(crate) fn of_others(time: Duration) -> anyhow::Result<f64> {
        let before = Self::now(&[])?;
        thread::sleep(time);
        let used = Self::now(&[])?.machine.saturating_sub(before.machine);
        let cpus = u32::try_from(available_parallelism().map_or(1, NonZero::get))?;
        Ok(used.as_secs_f64() / (time * cpus).as_secs_f64())
    }

    /// Microseconds since then: of the watched, of the machine.
    pub(super) fn since(self, before: Self) -> (u64, u64) {
        let us = |now: Duration, then: Duration| {
            u64::try_from(now.saturating_sub(then).as_micros()).unwrap_or(u64::MAX)
        };
        (
            us(self.watched, before.watched),
            us(self.machine, before.machine),
        )
    }
}

/// utime and stime of all threads: fields 14 and 15.
fn of_process(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold blanks.
    let (_, fields) = stat.rsplit_once(')')?;
    ticks(fields.split_whitespace().skip(11).take(2))
}

/// user, nice, system, irq and softirq; not idle, iowait, and what the hypervisor took.
fn of_machine(stat: &str) -> Option<Duration> {
    let fields: Vec<_> = stat.lines().next()?.split_whitespace().skip(1).collect();
    let busy = fields.get(..3)?.iter().chain(fields.get(5..7)?);
    ticks(busy.copied())
}

fn ticks<'t>(fields: impl Iterator<Item = &'t str>) -> Option<Duration> {
    let mut sum = 0;
    for field in fields {
        sum += field.parse::<u32>().ok()?;
    }
    Some(TICK * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_proc_5() {
        let process = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 1 0 5 6 7";
        assert_eq!(of_process(process), Some(Duration::from_millis(1750)));
        let machine = "cpu  100 20 3 9999 888 4 5 777 0 0\ncpu0 1 2 3";
        assert_eq!(of_machine(machine), Some(Duration::from_millis(1320)));
        assert_eq!(of_machine("cpu"), None);
    }
}
