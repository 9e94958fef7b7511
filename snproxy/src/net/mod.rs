//! Sockets: the listeners that accept, the dials that connect, and the checks that ask.

pub mod check;
pub mod dial;
pub mod dns;
pub mod etcd;
pub mod gate;
pub mod listener;
pub mod own;
pub mod source_ports;
pub mod tls;
