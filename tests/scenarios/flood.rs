//! One accept queue for all ports: who fills it does not keep the clients of other ports waiting.

use snproxy_tests::{Attempt, Conn, Ended, Ending, Figure, Net, Pod, eventually, print_figure};
use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const FLOODED: u16 = 1024;
const OTHER: u16 = 1025;
/// Connections at the other port while it lasts.
const OPENED: usize = 150;
/// A SYN that the kernel dropped comes again after a second.
const DROPPED: Duration = Duration::from_millis(950);

fn is_set_aside(net: &Net) -> bool {
    net.host("host").log().contains("accept queue of their own")
}

#[test]
fn a_flooded_port_gets_an_accept_queue_of_its_own_until_it_is_calm() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering_once("a"));
    host.pod(30001, Pod::answering_once("b"));
    // A queue that is full in no time.
    host.namespace().sysctl("core/somaxconn", "512");
    host.mappings("1024:30000:9000:false\n1025:30001:900:false\n")
        .start();

    let is_over = AtomicBool::new(false);
    let mut connects = Vec::new();
    thread::scope(|scope| {
        let ending = Ending(&is_over);
        for _ in 0..8 {
            scope.spawn(|| {
                net.client().run(|| {
                    while !is_over.load(Relaxed) {
                        // Who finds the queue full asks no longer than that.
                        if let Ok(conn) = Conn::connect(host.port(FLOODED), SOON / 10) {
                            drop(conn);
                        }
                    }
                });
            });
        }
        eventually(3 * SOON, "the flooded port is set aside", || {
            is_set_aside(&net)
        });
        net.client().run(|| {
            for turn in 0..OPENED {
                let start = Instant::now();
                let conn = Attempt::made(Conn::connect(host.port(OTHER), SOON));
                connects.push(start.elapsed());
                let conn = conn.connected().unwrap_or_else(|| panic!("turn {turn}"));
                assert_eq!(conn.rest(SOON), (b"b\n".to_vec(), Ended::Eof));
                sleep(Duration::from_millis(5));
            }
        });
        drop(ending);
    });
    connects.sort_unstable();
    print_figure(
        "99th percentile of connects at another port during a flood",
        Figure::Time(connects[OPENED * 99 / 100]),
        Figure::Time(Duration::from_millis(20)),
    );
    let dropped = connects.iter().filter(|took| **took >= DROPPED).count();
    assert!(dropped <= 1, "{dropped} of {OPENED} SYNs were dropped");

    // The flood is over: one queue for all, and nothing else is open.
    eventually(2 * SOON, "the port is with the others again", || {
        host.log().contains("calm again")
    });
    let listeners = || {
        let mut ss = Command::new("ss");
        ss.args(["--no-header", "--listening", "--tcp", "--processes"]);
        let listening = host.namespace().output(&mut ss);
        let listening = String::from_utf8_lossy(&listening.stdout).into_owned();
        let pid = format!("pid={},", host.snproxy().pid());
        listening.lines().filter(|line| line.contains(&pid)).count()
    };
    eventually(2 * SOON, "its queue is closed", || listeners() == 1);
    for (port, tells) in [(FLOODED, "a"), (OTHER, "b")] {
        assert_eq!(host.open(port).greeting(), tells);
    }
    eventually(SOON, "all have ended", || {
        host.count("/connections/live") == 0
    });
    assert_eq!(host.count("/kernel/no_listener"), 0);
    assert_eq!(host.count("/kernel/failed"), 0);
    assert_eq!(host.ends("no_upstream") + host.ends("busy"), 0);
}
