//! Samples in shares: kernel and user, and what is largest in each.

use anyhow::Context;
use std::{collections::BTreeMap, fmt};

/// How many of the largest are told.
const TOLD: usize = 12;
/// What marks a function of the kernel.
const KERNEL: &str = "_[k]";

/// Samples by function; what a function called counts for itself only.
#[derive(Debug, Default)]
pub(super) struct Shares {
    total: u64,
    kernel: u64,
    /// With all they called.
    system_calls: BTreeMap<String, u64>,
    kernel_functions: BTreeMap<String, u64>,
    user_functions: BTreeMap<String, u64>,
}

impl Shares {
    /// Shape: lines `thread;outermost;...;innermost samples`.
    pub(super) fn of(folded: &str) -> anyhow::Result<Self> {
        let mut shares = Self::default();
        for line in folded.lines() {
            shares.add(line).with_context(|| line.to_owned())?;
        }
        Ok(shares)
    }

    fn add(&mut self, line: &str) -> anyhow::Result<()> {
        let (stack, samples) = line.rsplit_once(' ').context("no number")?;
        let samples: u64 = samples.parse()?;
        let innermost = stack.rsplit(';').next().unwrap_or_default();
        self.total += samples;
        let Some(function) = innermost.strip_suffix(KERNEL) else {
            count(&mut self.user_functions, innermost, samples);
            return Ok(());
        };
        self.kernel += samples;
        count(&mut self.kernel_functions, function, samples);
        let call = stack
            .split(';')
            .filter_map(|name| name.strip_suffix(KERNEL)?.strip_prefix("__"))
            .find_map(|name| name.split_once("_sys_"));
        // Interrupts, and the way in and out of system calls.
        let call = call.map_or("(none)", |(_, call)| call);
        count(&mut self.system_calls, call, samples);
        Ok(())
    }
}

fn count(functions: &mut BTreeMap<String, u64>, function: &str, samples: u64) {
    *functions.entry(function.to_owned()).or_default() += samples;
}

impl fmt::Display for Shares {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |samples: u64| (samples * 1000).checked_div(self.total).unwrap_or_default();
        let share = |samples| format!("{:>3}.{} %", tenths(samples) / 10, tenths(samples) % 10);
        writeln!(
            out,
            "  kernel {}, user {} of {} samples",
            share(self.kernel),
            share(self.total - self.kernel),
            self.total
        )?;
        for (title, functions) in [
            ("kernel, by system call", &self.system_calls),
            ("kernel, by function", &self.kernel_functions),
            ("user, by function", &self.user_functions),
        ] {
            writeln!(out, "  {title}")?;
            let mut largest: Vec<_> = functions.iter().collect();
            largest.sort_by_key(|&(_, samples)| u64::MAX - samples);
            for (function, samples) in largest.into_iter().take(TOLD) {
                writeln!(out, "    {} {function}", share(*samples))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_innermost_functions_and_the_system_calls_around_them() {
        let folded = "worker;main;send;entry_[k];__x64_sys_sendto_[k];tcp_ack_[k] 6\n\
                      worker;main;send 1\n\
                      worker;main;send;entry_[k] 1\n\
                      worker;main;pump 2\n";
        let shown = Shares::of(folded).unwrap().to_string();
        let lines: Vec<_> = shown.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "kernel  70.0 %, user  30.0 % of 10 samples",
                "kernel, by system call",
                "60.0 % sendto",
                "10.0 % (none)",
                "kernel, by function",
                "60.0 % tcp_ack",
                "10.0 % entry",
                "user, by function",
                "20.0 % pump",
                "10.0 % send",
            ]
        );
    }
}
