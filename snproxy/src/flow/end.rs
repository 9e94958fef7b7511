//! Why connections end: a closed set, counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::route::search::Over;

/// Why a connection ended. Closed set: each name is a log field, a status row and a metrics label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Both sides sent FIN and all bytes were delivered.
    Clean,
    /// The client reset.
    Client,
    /// The upstream reset.
    Upstream,
    /// No byte moved for the idle limit.
    Idle,
    /// The client sent nothing for its idle limit.
    ClientIdle,
    /// The upstream sent nothing for its idle limit.
    UpstreamIdle,
    /// The client asked, and the upstream did not begin to answer in time.
    FirstByte,
    /// One side ended, and the other one did not in time.
    Linger,
    /// It grew as old as connections may.
    Lifetime,
    /// Its upstream was taken out of the files, and ONREMOVE ends it.
    Removed,
    /// Its upstream went down, and ONDOWN ends it.
    Down,
    /// Cut by the drain deadline.
    Drain,
    /// No pod of the port is mapped here any more.
    NotMapped,
    /// No pod took the connection.
    NoUpstream,
    /// All source ports of this host towards its pod, target or host were taken.
    SourcePorts,
    /// Its pod or target is a port that this proxy serves.
    Loop,
    /// Every pod has `maxConn` connections.
    Busy,
    /// MAXCONN or PORTMAXCONN was reached, and there is no queue.
    Limit,
    /// Its source has what SOURCEMAXCONN or SOURCERATE allows.
    Source,
    /// As many wait as may.
    QueueFull,
    /// No place came free in QUEUETIMEOUT.
    QueueTimeout,
    /// More new connections than PORTRATE allows, where the kernel does not refuse them.
    Rate,
    /// The client had to send a PROXY header and did not.
    Header,
    /// The client's TLS handshake failed.
    TlsClient,
    /// The client's TLS handshake was not done in TLSTIMEOUT.
    TlsTimeout,
    /// PEERS does not allow the source to use PORT.
    Stranger,
    /// A peer asked for nothing that we understand, or not in time.
    Request,
    /// A peer asked for no port, and closed, or waited too long, or made room for others.
    Unused,
}

impl End {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 28] = [
        Self::Clean,
        Self::Client,
        Self::Upstream,
        Self::Idle,
        Self::ClientIdle,
        Self::UpstreamIdle,
        Self::FirstByte,
        Self::Linger,
        Self::Lifetime,
        Self::Removed,
        Self::Down,
        Self::Drain,
        Self::NotMapped,
        Self::NoUpstream,
        Self::SourcePorts,
        Self::Loop,
        Self::Busy,
        Self::Limit,
        Self::Source,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Rate,
        Self::Header,
        Self::TlsClient,
        Self::TlsTimeout,
        Self::Stranger,
        Self::Request,
        Self::Unused,
    ];

    /// Whether there was no place for it, which OVERLIMIT is about.
    pub fn is_over_limit(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Limit | Self::Source | Self::QueueFull | Self::QueueTimeout
        )
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Idle => "idle",
            Self::ClientIdle => "client_idle",
            Self::UpstreamIdle => "upstream_idle",
            Self::FirstByte => "first_byte",
            Self::Linger => "linger",
            Self::Lifetime => "lifetime",
            Self::Removed => "removed",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::NotMapped => "not_mapped",
            Self::NoUpstream => "no_upstream",
            Self::SourcePorts => "source_ports",
            Self::Loop => "loop",
            Self::Busy => "busy",
            Self::Limit => "limit",
            Self::Source => "source",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Rate => "rate",
            Self::Header => "header",
            Self::TlsClient => "tls_client",
            Self::TlsTimeout => "tls_timeout",
            Self::Stranger => "stranger",
            Self::Request => "request",
            Self::Unused => "unused",
        }
    }
}

impl From<Over> for End {
    fn from(over: Over) -> Self {
        match over {
            Over::NotMapped => Self::NotMapped,
            Over::NoUpstream => Self::NoUpstream,
            Over::SourcePorts => Self::SourcePorts,
            Over::Loop => Self::Loop,
            Over::Busy => Self::Busy,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many connections ended in each way since the start.
#[derive(Debug, Default)]
pub struct Ends([AtomicU64; End::ALL.len()]);

impl Ends {
    pub fn count(&self, end: End) {
        self.0[end as usize].fetch_add(1, Relaxed);
    }

    pub fn all(&self) -> impl Iterator<Item = (End, u64)> + '_ {
        End::ALL
            .into_iter()
            .zip(self.0.iter().map(|count| count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_own_counter_and_name() {
        let ends = Ends::default();
        for (at, end) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, at, "{end} stands at its own place");
            ends.count(end);
        }
        assert!(ends.all().all(|(_, count)| count == 1));
        let names: std::collections::HashSet<_> = End::ALL.map(End::name).into();
        assert_eq!(names.len(), End::ALL.len());
    }
}
