//! A task in steps: a headline for each, the time it took, and a plain summary at the end.

use std::{
    io::{Write, stdout},
    time::{Duration, Instant},
};

#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    headline: String,
    took: Duration,
    failed: bool,
}

impl Steps {
    /// Does one step and notes how it went.
    pub(crate) fn step<T>(
        &mut self,
        headline: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        println!("\n==> {headline}");
        // Output of what we start must come after its headline.
        let _ = stdout().flush();
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        self.done.push(Step {
            headline: headline.to_owned(),
            took,
            failed: result.is_err(),
        });
        println!(
            "<== {} after {:.1} s",
            if result.is_err() { "failed" } else { "done" },
            took.as_secs_f64()
        );
        result
    }

    pub(crate) fn print_summary(&self) {
        println!("\nSummary");
        for Step {
            headline,
            took,
            failed,
        } in &self.done
        {
            let verdict = if *failed { "FAILED" } else { "ok" };
            println!("  {verdict:<6} {:>7.1} s  {headline}", took.as_secs_f64());
        }
    }
}
