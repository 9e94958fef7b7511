//! Steering: the kernel gives the connections to our ports to the one listener.
//!
//! [`Ebpf`] is the `sk_lookup` program and its maps; [`Known`] and [`KnownRates`] are what the kernel was told, so that
//! a change is written as a difference; [`conflict`] finds the ports that other programs listen on.
//! When to steer what is for the caller to say.

pub mod conflict;
mod counts;
mod ebpf;
mod error;
mod kernel_log;
mod known;
mod rates;
pub mod socket_owner;
pub mod sockets;

pub use counts::{Counters, SteerCounts};
pub use ebpf::{Ebpf, LogLevel, object_sha256};
pub use error::{Missing, SteeringError};
pub use kernel_log::KernelLog;
pub use known::Known;
pub use rates::{KnownRates, RateLimit};

#[cfg(test)]
mod tests;
