//! What a TLS connection costs that is open and does nothing.

use super::{Ground, SOON};
use snproxy_tests::{Figure, Host, Pod, TlsConn, eventually, print_figure};
use std::{thread, time::Duration};

const CONNECTIONS: usize = 600;
/// Of the worker's own things, that come once.
const FIRST: usize = 200;
/// 10 KiB were measured (2026-11-21): what a plain one costs, the session with its keys, and 4 KiB into which the library reads.
const MOST: u64 = 16 * 1024;

#[test]
fn of_a_client_in_tls() {
    let ground = Ground::terminating("", Pod::echo());
    ground.host().start();
    let open = |count: usize| -> Vec<TlsConn> {
        let conns = (0..count).map(|_| {
            let conn = ground.tls();
            assert_eq!(conn.send([7; 64]).read(64), [7; 64]);
            conn
        });
        conns.collect()
    };
    let first = open(FIRST);
    let before = settled(ground.host());
    let conns = open(CONNECTIONS);
    let each = settled(ground.host()).saturating_sub(before) / CONNECTIONS as u64;
    let name = "memory of an idle connection in TLS";
    print_figure(name, Figure::Bytes(each), Figure::Bytes(MOST));
    // No noise of the machine: it is counted, not timed.
    assert!(each <= MOST, "{name}: {each} bytes");
    drop((first, conns));
}

/// Resident memory, once it has not changed for a moment.
fn settled(host: &Host) -> u64 {
    const QUIET: Duration = Duration::from_millis(300);
    let mut last = host.rss();
    eventually(SOON, "memory stays as it is", || {
        thread::sleep(QUIET);
        let now = host.rss();
        let same = now == last;
        last = now;
        same
    });
    last
}
