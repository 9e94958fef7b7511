//! The same on paper: closed formulas, which docs/simulation.md prints.

use crate::costs::{
    self, ANSWERS, CELL, KEEP_ALIVE, LINE, LONGER, LOOK_AGAIN, MAX_CELLS, MAX_STAYS, PACE,
    ROUND_TRIP, SEGMENT, SERVES_FOR, SLOTS, STALE_NO, STALE_SERVES, SYN, base64, cpu, etcd,
};
use crate::directory::Cluster;
use crate::probing::Load;

/// Probing: what one host does a second. As many questions as it asks it answers, for all hosts are alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) questions: f64,
    pub(crate) connects: f64,
}

/// Time from an answer to the next look that may ask again.
fn next_look(rate: f64) -> f64 {
    // Looks are renewals: a pause, then the next connection.
    let mean = LOOK_AGAIN + 1.0 / rate;
    (mean * mean + 1.0 / (rate * rate)) / (2.0 * mean)
}

/// Questions and connections for them; right as long as all answers are remembered.
pub(crate) fn asked(load: Load) -> Asked {
    let others = f64::from(load.hosts - 1);
    let pods = f64::from(load.pods).min(others);
    let pause = ROUND_TRIP.as_secs_f64() + next_look(load.rate);
    let of_one = (others - pods) / (STALE_NO + pause) + pods / (STALE_SERVES + pause);
    let questions = f64::from(load.ports) * of_one;
    // Hosts beyond those whose connections stay get one for each question that finds none under way.
    let staying = others.min(MAX_STAYS as f64);
    let to_one = questions / others;
    let idles = (-costs::IDLE_LIMIT.as_secs_f64() * to_one).exp();
    let alone = 1.0 / (1.0 + to_one * 2.0 * ROUND_TRIP.as_secs_f64());
    Asked {
        questions,
        connects: (others - staying) * to_one * alone + staying * to_one * idles,
    }
}

/// Mean time until a host is asked again of which it was wrong just now: a change falls in somewhere between two questions.
pub(crate) fn rest(rate: f64) -> f64 {
    let mean = STALE_NO + 1.0 / rate;
    (mean * mean + 1.0 / (rate * rate)) / (2.0 * mean)
}

/// Part of the connections that find nothing remembered: of a port not used for as long as an answer is true.
pub(crate) fn waits(load: Load) -> f64 {
    (-SERVES_FOR * load.rate).exp()
}

/// What a host's questions and those of the others to it cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) packets: f64,
    pub(crate) bytes: f64,
    /// Seconds of a processor, a second.
    pub(crate) cpu: f64,
}

/// Of so many questions in so many segments over so many new connections, asked and answered alike.
pub(crate) fn cost(questions: f64, batches: f64, connects: f64) -> Cost {
    let (question, answer) = costs::lines();
    // SYN, SYN and ACK, ACK; an ACK of the first line; FIN, FIN, ACK. A line is a segment, an answer, and an ACK.
    let of_one = 3.0 * batches + 7.0 * connects;
    let bytes = 3.0 * SEGMENT * batches
        + (question + answer) * questions
        + (2.0 * SYN + 5.0 * SEGMENT) * connects;
    let further = (questions - batches) * 2.0 * cpu::FURTHER;
    Cost {
        packets: 2.0 * of_one,
        bytes: 2.0 * bytes,
        cpu: batches * (cpu::ASK + cpu::ANSWER) + further + connects * (cpu::CONNECT + cpu::ACCEPT),
    }
}

/// Bytes that a host remembers answers in.
pub(crate) fn memory(load: Load) -> f64 {
    let others = u64::from(load.hosts - 1);
    let ports = u64::from(load.ports).min(MAX_CELLS / others);
    (SLOTS + ports * (others * CELL + ANSWERS)) as f64
}

/// The directory: what it is like and what it costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Of one host, its own key among them.
    pub(crate) keys: f64,
    /// Bytes of an event.
    pub(crate) event: f64,
    /// Messages and bytes of one host a second: events, puts and keep-alives, with acknowledgements.
    pub(crate) packets: f64,
    pub(crate) bytes: f64,
    pub(crate) host_cpu: f64,
    /// Processors that a member of three is busy with, and what it sends.
    pub(crate) member_cpu: f64,
    pub(crate) member_bytes: f64,
    pub(crate) member_memory: f64,
    /// Mean time until the last host knows of a change; none: never.
    pub(crate) known: Option<f64>,
    /// Bytes that a host reads when it starts.
    pub(crate) start_bytes: f64,
    /// Bytes of a host's memory.
    pub(crate) memory: f64,
}

pub(crate) fn kept(cluster: Cluster) -> Kept {
    let hosts = f64::from(cluster.hosts);
    let changes = cluster.changes;
    let served = f64::from(cluster.ports) * f64::from(cluster.pods.min(cluster.hosts)) / hosts;
    let blocks = f64::from(cluster.ports.div_ceil(cluster.block));
    let used = blocks * (1.0 - (-served / blocks).exp());
    // The version, and a line for each port; the block that changes is met by one of its ports.
    let density = served / f64::from(cluster.ports);
    let line = (1.0 - density) * (LINE + density * LONGER);
    let value = 2.0 + line * served / used;
    let written = 2.0 + line * (0.5 + (served - 1.0).max(0.0) / blocks);
    let event = etcd::EVENT + base64(written);
    let put = etcd::PUT + etcd::PUT_ANSWER + base64(written);
    let alive = (etcd::KEEP_ALIVE + etcd::KEEP_ALIVE_ANSWER) / KEEP_ALIVE;
    let watchers = hosts / f64::from(cluster.members);
    let members = f64::from(cluster.members);
    let alive_cpu = hosts / KEEP_ALIVE * cpu::KEEP_ALIVE / members;
    let fan_out = watchers * cpu::EVENT / cluster.speed(alive_cpu);
    let at_once = fan_out + cpu::PUT / cluster.speed(alive_cpu);
    let busy = changes * at_once;
    let queued = busy * at_once / (2.0 * (1.0 - busy));
    // What comes within a pause waits for its end, where the next pause begins; after an empty one a change does not wait.
    let pace = PACE.as_secs_f64();
    let empty = (-changes * pace).exp();
    let paced = changes * pace * pace / 2.0 / (changes * pace + empty);
    Kept {
        keys: 1.0 + used,
        event,
        packets: 2.0 * changes + 2.0 * changes / hosts + 4.3 / KEEP_ALIVE,
        bytes: changes * (event + etcd::EVENT_ACK) + changes / hosts * put + alive,
        host_cpu: changes * cpu::READ + cpu::TAKE / (pace + empty / changes),
        member_cpu: changes * (watchers * cpu::EVENT + cpu::PUT) + alive_cpu,
        member_bytes: changes * watchers * event,
        member_memory: watchers * etcd::WATCHER,
        known: (busy < 1.0)
            .then(|| etcd::COMMIT + ROUND_TRIP.as_secs_f64() + queued + at_once + paced),
        start_bytes: hosts * (1.0 + used) * etcd::KEY + hosts * used * base64(value),
        memory: SLOTS as f64 + hosts * (1000.0 + used * 130.0 + served * 8.0),
    }
}
