//! Scenarios: the real snproxy in network namespaces, with real clients and pods around it.
//!
//! One file per area. `cargo xtask test` installs what they need, builds what they run, and runs them as root.

mod ambassador;
mod apps;
mod cli;
mod cluster;
mod conflict;
mod container;
mod directory;
mod drain;
mod endurance;
mod etcd;
mod fidelity;
mod fixture;
mod flood;
mod gone;
mod health;
mod hostile;
mod ipv6;
mod kernel_log;
mod limits;
mod log;
mod max_conn;
mod metrics;
mod names;
mod peer_answer;
mod peer_call;
mod peer_tls;
mod pods;
mod policies;
mod port_rate;
mod privileges;
mod programs;
mod proxy_header;
mod refusal;
mod reload;
mod s3;
mod service;
mod simplenetes;
mod soak;
mod source_ports;
mod steering;
mod system_limits;
mod timeouts;
mod tls;
mod unmapped;
