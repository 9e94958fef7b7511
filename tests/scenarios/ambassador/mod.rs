//! Ambassadors: go-proxy's commands, and what they can beside.

mod discovered;
mod fixture;
mod messages;
mod order;
mod ports;
mod readme;
mod stop;
mod tls;
mod who;
