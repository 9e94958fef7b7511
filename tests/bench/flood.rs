//! A port that is flooded, and what the clients of another port of the same proxy feel of it.

use crate::{
    contestants::{Contestant, Service},
    ground::{Ground, POD_PORT, PORT},
    load::{Flooded, Served, to_f64},
    machine,
    results::{DIRECT, FloodRound, FloodRow, FloodTable, HAPROXY, SNPROXY, Topology},
    rounds::{Pace, warn_if_busy},
};
use anyhow::{Context, bail};
use std::{
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

/// What is flooded, and what is opened meanwhile at a modest pace. A pod each: the flooded one's is busy.
const FLOODED: Service = Service {
    port: PORT,
    pod: POD_PORT,
};
const OTHER: Service = Service {
    port: PORT + 1,
    pod: POD_PORT + 1,
};
pub(crate) const CLIENTS: usize = 8;
pub(crate) const PER_SECOND: u32 = 200;
const SECONDS: f64 = 4.0;
/// The flood begins before what is measured and ends after it.
const LEAD: Duration = Duration::from_millis(700);

/// Each contestant in turn, with everything made anew for each round: the last one's backlog is nobody's burden.
pub(crate) fn measure(contestants: &[Contestant], pace: &Pace) -> anyhow::Result<FloodTable> {
    let is_here = |one: &&Contestant| {
        [DIRECT, SNPROXY, HAPROXY[0]].contains(&one.name.as_str()) || one.is_further()
    };
    let here: Vec<_> = contestants.iter().filter(is_here).collect();
    let mut rows: Vec<_> = here
        .iter()
        .map(|one| FloodRow {
            contestant: one.name.clone(),
            rounds: Vec::new(),
        })
        .collect();
    let others = warn_if_busy()?;
    for round in 1..=pace.rounds {
        for turn in 0..here.len() {
            // Another one is first each time.
            let index = (turn + round) % here.len();
            pace.go_on()?;
            let contestant = here[index];
            println!(
                "flood, round {round} of {}, {}",
                pace.rounds, contestant.name
            );
            let figures = flood(contestant).with_context(|| contestant.name.clone())?;
            println!(
                "  connect p50 {:.0} us p99 {:.0} us, answer p50 {:.0} us p99 {:.0} us, {} failed; \
                 without a flood {:.0} and {:.0} us; flood {:.0}/s",
                figures.connect_p50_us,
                figures.connect_p99_us,
                figures.answer_p50_us,
                figures.answer_p99_us,
                figures.failed,
                figures.quiet_answer_p50_us,
                figures.quiet_answer_p99_us,
                figures.flood_per_second
            );
            rows[index].rounds.push(figures);
        }
    }
    Ok(FloodTable {
        date: machine::date(),
        others,
        rows,
    })
}

fn flood(contestant: &Contestant) -> anyhow::Result<FloodRound> {
    let ground = Ground::new(Topology::OneHost, &format!("{}-flood", contestant.name));
    let host = ground.first();
    let pods = [FLOODED, OTHER].map(|service| {
        let mut command = host.own("pod");
        let at = format!("{}:{}", host.address, service.pod);
        host.server(
            "pod",
            command.args(["--rough", "--listen", &at]),
            service.pod,
        )
    });
    let running = contestant.start_serving(&ground, &[FLOODED, OTHER]);
    let ports = if running.pids().is_empty() {
        [FLOODED.pod, OTHER.pod]
    } else {
        [FLOODED.port, OTHER.port]
    };
    let [flooded, other] = ports.map(|port| format!("{}:{port}", host.address));
    let logs = || [running.logs(), pods[0].log(), pods[1].log()].concat();

    let modest = |seconds: f64| -> anyhow::Result<Served> {
        let mut command = host.own("modest");
        command
            .args(["--to", &other])
            .args(["--per-second", &PER_SECOND.to_string()])
            .args(["--seconds", &seconds.to_string()]);
        read(&command.output()?).with_context(logs)
    };
    let quiet = modest(SECONDS / 4.0)?;

    let lasts = SECONDS + 2.0 * LEAD.as_secs_f64();
    let mut command: Command = host.own("flood");
    command
        .args(["--to", &flooded])
        .args(["--clients", &CLIENTS.to_string()])
        .args(["--seconds", &lasts.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let flood = command.spawn()?;
    sleep(LEAD);
    let served = modest(SECONDS)?;
    let flooded: Flooded = read(&flood.wait_with_output()?).with_context(logs)?;
    Ok(FloodRound {
        connect_p50_us: served.connect_p50_us,
        connect_p99_us: served.connect_p99_us,
        answer_p50_us: served.answer_p50_us,
        answer_p99_us: served.answer_p99_us,
        answered: served.answered,
        failed: served.failed,
        quiet_answer_p50_us: quiet.answer_p50_us,
        quiet_answer_p99_us: quiet.answer_p99_us,
        flood_per_second: to_f64(flooded.opened) / lasts,
        flood_failed: flooded.failed,
    })
}

fn read<T: serde::de::DeserializeOwned>(output: &Output) -> anyhow::Result<T> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ({})", said.trim(), output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
