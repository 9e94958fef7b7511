//! Sockets: the listeners that accept and the dials that connect.

pub mod dial;
pub mod dns;
pub mod gate;
pub mod listener;
pub mod own;
