//! The `sk_lookup` program, its maps and its link.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::{Counters, SteeringError};
use crate::addr::Action;

/// Which lines of the program are kept: `BPFLOG`.
pub use aya_log::Level as LogLevel;

/// The program in the kernel; dropping it detaches it.
///
/// Load, set the listener, write actions, attach: in this order no connection is refused for want
/// of a listener. All of it before other threads start, since capabilities belong to threads;
/// afterwards only the descriptors are used, and no capability is needed (see `sys::privileges`).
pub struct Ebpf {
    counters: Counters,
}

impl Ebpf {
    /// Loads program and maps: all ports pass, no listener, not attached.
    ///
    /// `listen` is the address that is ours (HOST:PORT, canonical). With `log` the kernel asks for
    /// `CAP_PERFMON` besides `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn load(listen: SocketAddr, log: Option<LogLevel>) -> Result<Self, SteeringError> {
        let _ = (listen, log);
        Err(SteeringError::Object("not built".into()))
    }

    /// Tells the kernel what becomes of each of these ports, in one call.
    ///
    /// Errors: some of `changes` may have been written; write all of them again ([`Known`](super::Known) does).
    pub fn write(&mut self, changes: &[(u16, Action)]) -> Result<(), SteeringError> {
        let _ = changes;
        Err(SteeringError::Object("not built".into()))
    }

    /// Puts a listening TCP socket into the slot, in place of the one there.
    ///
    /// The entry belongs to the socket: it ends when the last descriptor of the socket is closed.
    pub fn set_listener(&mut self, listener: &impl AsFd) -> Result<(), SteeringError> {
        let _ = listener.as_fd();
        Err(SteeringError::Object("not built".into()))
    }

    /// Attaches the program to the network namespace of the calling thread.
    pub fn attach(&mut self) -> Result<(), SteeringError> {
        Err(SteeringError::Object("not built".into()))
    }

    /// The counters, for whoever reports them.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The program's log lines, once: `None` when loaded without `log`, and at the second call.
    pub fn logger(&mut self) -> Option<KernelLog> {
        None
    }
}

/// Log lines of the program, which become events of `tracing` (target `snproxy::bpf`).
pub struct KernelLog(());

impl KernelLog {
    /// Passes lines on until dropped; ends only when the descriptor cannot be waited on.
    ///
    /// Must run on tokio. Cancel safety: yes, lines wait in the ring.
    pub async fn run(self) -> std::io::Error {
        let () = self.0;
        std::future::pending().await
    }
}
