//! Scenarios: the real snproxy in network namespaces, with real clients and pods around it.
//!
//! One file per area. `cargo xtask test` installs what they need, builds what they run, and runs them as root.

mod cli;
mod drain;
mod fidelity;
mod fixture;
mod hostile;
mod max_conn;
mod pods;
mod proxy_header;
mod reload;
