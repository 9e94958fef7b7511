//! Scenarios: the real snproxy in network namespaces, with real clients and pods around it.
//!
//! One file per area. `cargo xtask test` installs what they need, builds what they run, and runs them as root.

mod conflict;
mod fixture;
mod ipv6;
mod kernel_log;
mod privileges;
mod refusal;
mod steering;
