//! Does operations of snproxy between marks, so that callgrind counts their instructions: `cargo xtask instructions`.
//!
//! The proxy's part is this process: the real listener, flow and pump on one current-thread runtime. Clients and pods are
//! another one (`ends.rs`), which callgrind does not follow.
#![expect(clippy::print_stdout, reason = "says what was done between two marks")]

mod ends;
mod parts;
mod proxied;
mod table;

use std::hint::black_box;

fn main() {
    match std::env::args().nth(1).as_deref() {
        None => {
            parts::run();
            proxied::run();
        }
        Some("ends") => ends::run(),
        Some(other) => panic!("unknown word {other}"),
    }
}

/// Where callgrind puts down what it counted so far.
///
/// Never inlined, and not alone in its body: the compiler must not take two calls for one.
#[inline(never)]
pub(crate) fn mark() {
    black_box(());
}

/// Tells the reader of callgrind's figures what lay between the last two marks.
pub(crate) fn done(name: &str, operations: u32) {
    println!("{operations}\t{name}");
}
