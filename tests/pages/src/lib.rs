//! What pages in docs/ are made with that a program writes: tables and plots.

pub mod plot;
pub mod table;
