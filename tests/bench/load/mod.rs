//! The load generator: clients and a pod that do little but move bytes and check every one.
//!
//! One thread, epoll, buffers made beforehand: what it costs itself would hide differences between what it measures.
//! The two run as processes of their own, so that the pod's share of a processor is nobody else's.

mod echo;
mod end;
mod flood;
mod hello;
mod latency;
mod pattern;
mod pod;
mod socket;
mod stream;
mod streams;
mod usage;

pub(crate) use end::{NAME, Tls, Version};
pub(crate) use flood::{Flood, Flooded, Modest, Served};
pub(crate) use latency::to_f64;
pub(crate) use pod::Pod;
pub(crate) use socket::CONGESTION_CONTROL;
pub(crate) use usage::Usage;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Case {
    /// Open, one request, its answer, FIN both ways; and again.
    Connect,
    /// Requests and answers, one at a time on each connection.
    Rr,
    /// As much as fits, to the pod.
    Up,
    /// As much as fits, from the pod.
    Down,
}

#[derive(Clone, clap::Args)]
pub(crate) struct Load {
    #[arg(long)]
    pub(crate) to: SocketAddr,
    #[arg(long)]
    pub(crate) case: Case,
    /// Bytes of a request, and of its answer; at least 8.
    #[arg(long, default_value_t = 64)]
    pub(crate) size: u32,
    /// At once.
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Before those that count.
    #[arg(long, default_value_t = 0.2)]
    pub(crate) warm_up: f64,
    /// Threads that the connections are spread over.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Clients speak this version of TLS.
    #[arg(long, value_name = "VERSION", requires = "certs")]
    pub(crate) tls: Option<Version>,
    /// Folder with the client's certificate.
    #[arg(long)]
    pub(crate) certs: Option<PathBuf>,
    /// Take up TLS sessions again.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Processes whose processor time is told, such as those of a proxy.
    #[arg(long, value_name = "PID")]
    pub(crate) watch: Vec<u32>,
}

/// What came of it. Whatever goes wrong is an error: there are no figures then.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Outcome {
    pub(crate) case: Case,
    pub(crate) size: u32,
    pub(crate) connections: usize,
    /// Connections, requests or bytes.
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Of an operation; 0 for streams.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Processor time of the watched processes, user and system.
    pub(crate) watched_us: u64,
    /// Processor time of the whole machine, the load generator and the kernel's own threads included.
    pub(crate) machine_us: u64,
    pub(crate) errors: u64,
    /// Share of the connections that took up a TLS session again, where that was tried.
    pub(crate) resumed: Option<f64>,
}

impl Load {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let what = || format!("{:?} to {}", self.case, self.to);
        match self.case {
            Case::Connect | Case::Rr => echo::run(self),
            Case::Up | Case::Down => streams::run(self),
        }
        .with_context(what)
    }

    fn dial(&self) -> anyhow::Result<end::Dial> {
        let tls = match (self.tls, &self.certs) {
            (Some(version), Some(certs)) => Some(version.config(certs)?),
            _ => None,
        };
        Ok(end::Dial { to: self.to, tls })
    }

    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warming(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
}

/// What all cases tell.
struct Figures {
    operations: u64,
    took: Duration,
    /// Microseconds of the watched processes and of the machine.
    cost: (u64, u64),
}

impl Figures {
    fn outcome(&self, load: &Load) -> Outcome {
        let seconds = self.took.as_secs_f64();
        Outcome {
            case: load.case,
            size: load.size,
            connections: load.connections,
            operations: self.operations,
            seconds,
            per_second: to_f64(self.operations) / seconds,
            p50_us: 0.0,
            p99_us: 0.0,
            watched_us: self.cost.0,
            machine_us: self.cost.1,
            errors: 0,
            resumed: None,
        }
    }
}
