//! What the service manager is told, where there is one: `sd_notify(3)`.
//!
//! A service manager that does not listen is no reason not to serve.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

/// What the service manager may allow on top of what we ask for: a busy machine is slow to end a process.
const MARGIN: Duration = Duration::from_secs(5);
/// Longest wait for a service manager whose queue is full.
const LIMIT: Duration = Duration::from_secs(1);

/// Whom to tell; nobody, where snproxy is a part of another program.
pub struct Manager(Option<OsString>);

impl Manager {
    pub fn none() -> Self {
        Self(None)
    }

    /// The one that started this process, if one did.
    pub fn of_environment() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET"))
    }

    /// Serving; after [`reloading`](Self::reloading) also: done with that.
    pub(super) fn ready(&self, summary: &str) {
        self.tell(&format!("READY=1\nSTATUS={summary}\n"));
    }

    /// Asked to read the files; [`ready`](Self::ready) follows.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        // The time is for `Type=notify-reload`.
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    /// Draining, which may take this long: no setting of the service need know DRAINTIMEOUT.
    pub(super) fn stopping(&self, limit: Duration, connections: u64) {
        let micros = (limit + MARGIN).as_micros();
        self.tell(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=draining {connections} connections\n"
        ));
    }

    fn tell(&self, states: &str) {
        let Some(name) = &self.0 else {
            return;
        };
        if let Err(error) = send(name, states) {
            warn!(%error, "tell the service manager");
        }
    }
}

fn send(name: &OsStr, states: &str) -> io::Result<()> {
    let addr = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }?;
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(LIMIT))?;
    // A datagram goes whole or not at all.
    socket.send_to_addr(states.as_bytes(), &addr).map(drop)
}
