//! What things cost and how long they last: constants of snproxy, sizes of TCP, and what was measured.

use std::time::Duration;

use bytes::BytesMut;
use snproxy::addr::ClusterPort;
use snproxy::wire::peer::{Reply, Request};

// Between hosts of one data centre: an assumption.
pub(crate) const ROUND_TRIP: Duration = Duration::from_micros(250);

// Of snproxy/src/flow/questions.rs.
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(20);
pub(crate) const MAX_CONNECTS: usize = 128;
pub(crate) const MAX_STAYS: usize = 256;
pub(crate) const MAX_WAITING: usize = 1024;
pub(crate) const MAX_BATCH: usize = 32;
// Of snproxy/src/flow/reach.rs.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_millis(250);
// Of snproxy/src/route/peers, for the paper alone: the simulation runs that code.
pub(crate) const SERVES_FOR: f64 = 30.0;
pub(crate) const STALE_SERVES: f64 = 2.0;
pub(crate) const STALE_NO: f64 = 1.0;
pub(crate) const LOOK_AGAIN: f64 = 0.1;
pub(crate) const MAX_CELLS: u64 = 1 << 18;
pub(crate) const CELL: u64 = 24;
/// What the answers of a port take beside them.
pub(crate) const ANSWERS: u64 = 100;
/// A pointer for each cluster port.
pub(crate) const SLOTS: u64 = 65_536 * 8;
// Of snproxy/src/daemon/directory.
pub(crate) const KEEP_ALIVE: f64 = 3.0;
pub(crate) const PACE: Duration = Duration::from_millis(100);

/// IPv4 and TCP with time stamps; a SYN has more options.
pub(crate) const SEGMENT: f64 = 52.0;
pub(crate) const SYN: f64 = 60.0;

/// Processor time in seconds, measured on one Intel Xeon (2 processors, Linux 6.18), 2026-11-21.
pub(crate) mod cpu {
    /// A question over a connection that stays: of who asks, and of who answers.
    pub(crate) const ASK: f64 = 16e-6;
    pub(crate) const ANSWER: f64 = 18e-6;
    /// A further one in the same segment, at either end.
    pub(crate) const FURTHER: f64 = 2.3e-6;
    /// A connection for one question, beside the question.
    pub(crate) const CONNECT: f64 = 44e-6;
    pub(crate) const ACCEPT: f64 = 41e-6;
    /// Of an etcd member, by the JSON gateway: an event told to one watcher; a put, at each of three members.
    pub(crate) const EVENT: f64 = 80e-6;
    pub(crate) const PUT: f64 = 1.4e-3;
    /// A keep-alive, at all members together; a key of a range, at the one that reads it.
    pub(crate) const KEEP_ALIVE: f64 = 2.0e-3;
    pub(crate) const KEY: f64 = 13.5e-6;
    /// Of a host that follows 1,000 others: an event that is read, and all that came being taken over. Estimated: a debug
    /// build takes 0.8 ms and 5.4 ms.
    pub(crate) const READ: f64 = 100e-6;
    pub(crate) const TAKE: f64 = 1e-3;
}

/// Sizes of etcd's JSON gateway with a key of 40 bytes and an empty value, measured on the wire with etcd 3.4.23.
pub(crate) mod etcd {
    /// One event to one watcher; of these bytes the key's 56 of base64.
    pub(crate) const EVENT: f64 = 375.0;
    /// The watcher's acknowledgement.
    pub(crate) const EVENT_ACK: f64 = 52.0;
    pub(crate) const PUT: f64 = 262.0;
    pub(crate) const PUT_ANSWER: f64 = 485.0;
    pub(crate) const KEEP_ALIVE: f64 = 259.0;
    pub(crate) const KEEP_ALIVE_ANSWER: f64 = 608.0;
    /// A key in the answer to a range.
    pub(crate) const KEY: f64 = 168.0;
    /// Memory of a member for one watcher.
    pub(crate) const WATCHER: f64 = 57.0 * 1024.0;
    /// Until a put is on the disks of two members of three.
    pub(crate) const COMMIT: f64 = 0.0025;
}

/// Bytes of a port in the value of a block: `61000 1`, with the end of the line.
pub(crate) const LINE: f64 = 8.0;
/// What it takes more where it is several adjacent ones: `-61001`.
pub(crate) const LONGER: f64 = 6.0;

/// Bytes of a value as base64.
pub(crate) fn base64(bytes: f64) -> f64 {
    bytes * 4.0 / 3.0
}

/// Length of a question and of its answer, as snproxy writes them.
pub(crate) fn lines() -> (f64, f64) {
    let (mut question, mut answer) = (BytesMut::new(), BytesMut::new());
    if let Some(cluster_port) = ClusterPort::new(61_000) {
        Request::Count { cluster_port }.encode(&mut question);
    }
    Reply::Pods(0).encode(&mut answer);
    let length = |line: BytesMut| f64::from(u32::try_from(line.len()).unwrap_or(u32::MAX));
    (length(question), length(answer))
}

#[cfg(test)]
mod tests {
    const QUESTIONS: &str = include_str!("../../../snproxy/src/flow/questions.rs");
    const REACH: &str = include_str!("../../../snproxy/src/flow/reach.rs");
    const DIRECTORY: &str = include_str!("../../../snproxy/src/daemon/directory/mod.rs");
    const PUBLISH: &str = include_str!("../../../snproxy/src/daemon/directory/publish.rs");
    const ANSWERS: &str = include_str!("../../../snproxy/src/route/peers/answers.rs");
    const PEERS: &str = include_str!("../../../snproxy/src/route/peers/mod.rs");

    #[test]
    fn the_constants_are_those_of_snproxy() {
        let lines = [
            (QUESTIONS, "IDLE_LIMIT: Duration = Duration::from_secs(20);"),
            (QUESTIONS, "MAX_CONNECTS: usize = 128;"),
            (QUESTIONS, "MAX_STAYS: usize = 256;"),
            (QUESTIONS, "MAX_WAITING: usize = 1024;"),
            (QUESTIONS, "MAX_BATCH: usize = 32;"),
            (REACH, "ANSWER_WAIT: Duration = Duration::from_millis(250);"),
            (DIRECTORY, "TTL: Duration = Duration::from_secs(10);"),
            (DIRECTORY, "PACE: Duration = Duration::from_millis(100);"),
            (PUBLISH, "BEAT: Duration = Duration::from_secs(3);"),
            (ANSWERS, "SERVES_FOR: Duration = Duration::from_secs(30);"),
            (ANSWERS, "STALE_SERVES: Duration = Duration::from_secs(2);"),
            (ANSWERS, "STALE_NO: Duration = Duration::from_secs(1);"),
            (
                ANSWERS,
                "LOOK_AGAIN: Duration = Duration::from_millis(100);",
            ),
            (PEERS, "MAX_CELLS: usize = 1 << 18;"),
            (PEERS, "remembered (24 bytes each)"),
        ];
        for (file, line) in lines {
            assert!(file.contains(line), "{line}: is another one now");
        }
    }
}
