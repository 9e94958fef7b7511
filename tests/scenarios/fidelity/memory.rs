//! What a connection costs that is open and does nothing.

use super::{Place, SOON, Way};
use snproxy_tests::{Conn, Figure, Host, Pod, eventually, print_figure};
use std::{thread, time::Duration};

const CONNECTIONS: usize = 3000;
/// Of the worker's own things, that come once.
const FIRST: usize = 300;
/// 2,450 were measured (2026-11-21): a future that is kept and could be freed is a kilobyte or two.
const MOST: u64 = 3200;

#[test]
fn of_one_host() {
    measure(Place::OneHost);
}

#[test]
fn of_the_calling_and_of_the_answering_host() {
    measure(Place::TwoHosts);
}

fn measure(place: Place) {
    let way = Way {
        pump: "adaptive",
        place,
    };
    let ground = way.with(Pod::echo());
    let open = |count: usize| -> Vec<Conn> {
        let conns = (0..count).map(|_| {
            let conn = ground.open();
            assert_eq!(conn.send([7; 64]).read(64), [7; 64]);
            conn
        });
        conns.collect()
    };
    let mut conns = open(FIRST);
    let before = settled(ground.proxies());
    conns.extend(open(CONNECTIONS));
    let with = settled(ground.proxies());
    for ((host, before), with) in ground.proxies().iter().zip(before).zip(with) {
        let each = with.saturating_sub(before) / CONNECTIONS as u64;
        let name = format!(
            "memory of an idle connection, {} of {}",
            host.name(),
            ground.proxies().len()
        );
        print_figure(&name, Figure::Bytes(each), Figure::Bytes(MOST));
        // No noise of the machine: it is counted, not timed.
        assert!(each <= MOST, "{name}: {each} bytes");
    }
    assert_eq!(super::held(ground.home()), (FIRST + CONNECTIONS) as u64);
}

/// Resident memory of each, once it has not changed for a moment.
fn settled(hosts: &[Host]) -> Vec<u64> {
    const QUIET: Duration = Duration::from_millis(300);
    let memory = || -> Vec<u64> { hosts.iter().map(Host::rss).collect() };
    let mut last = memory();
    eventually(SOON, "memory stays as it is", || {
        thread::sleep(QUIET);
        let now = memory();
        let same = now == last;
        last = now;
        same
    });
    last
}
