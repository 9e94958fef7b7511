//! HEALTH: who is found to be down, by what, and how they come back.

mod checks;
mod faults;
mod on_demand;
mod silence;

use serde_json::Value;
use snproxy_tests::Host;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

/// The pod of `status` at this host port.
#[track_caller]
fn pod(host: &Host, port: u16) -> Value {
    let status = host.status();
    let pods = status["pods"].as_array().expect("pods");
    pods.iter()
        .find(|pod| pod["host_port"] == port)
        .unwrap_or_else(|| panic!("no pod at {port} in {status:#}"))
        .clone()
}

fn is_up(host: &Host, port: u16) -> bool {
    pod(host, port)["up"] == true
}

fn count_in(text: &str, part: &str) -> usize {
    text.matches(part).count()
}
