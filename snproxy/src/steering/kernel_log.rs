//! The program's log lines.

use std::io;

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

use crate::sys;

/// Log lines of the program, which become events of `tracing` (target `snproxy::bpf`).
pub struct KernelLog(EbpfLogger<ToTracing>);

impl KernelLog {
    pub(super) fn new(logger: EbpfLogger<ToTracing>) -> Self {
        Self(logger)
    }

    /// Passes lines on until dropped; gives the error that made it stop.
    ///
    /// Cancel safety: yes, lines wait in the kernel's ring, and are lost once it is full.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn run(self) -> io::Error {
        let mut ring = match sys::bpf::wait_for(self.0) {
            Ok(ring) => ring,
            Err(error) => return error,
        };
        loop {
            match ring.readable_mut().await {
                Ok(mut ready) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                Err(error) => return error,
            }
        }
    }
}

/// aya speaks to `log`.
pub(super) struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args();
        match record.level() {
            log::Level::Error => tracing::error!(target: "snproxy::bpf", "{line}"),
            log::Level::Warn => tracing::warn!(target: "snproxy::bpf", "{line}"),
            log::Level::Info => tracing::info!(target: "snproxy::bpf", "{line}"),
            log::Level::Debug => tracing::debug!(target: "snproxy::bpf", "{line}"),
            log::Level::Trace => tracing::trace!(target: "snproxy::bpf", "{line}"),
        }
    }

    fn flush(&self) {}
}
