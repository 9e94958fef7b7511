//! A host that ends as planned, as the other hosts see it.

use super::{PORT, SOON, greeted_at, serve, start_all};
use rustix::process::Signal;
use snproxy_tests::{Conn, Ended, Ending, Net, eventually};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, sleep},
    time::Duration,
};

#[test]
fn draining_host_is_announced_and_loses_no_connection() {
    let net = Net::hosts(["a", "b", "c"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let _pods = [serve(b, 1), serve(net.host("c"), 1)];
    start_all(&net);
    let at = a.port(PORT);
    let names = |count: usize| -> Vec<String> {
        let greeted = || net.client().run(|| greeted_at(at));
        (0..count).map(|_| greeted()).collect()
    };
    let serves = |name: &str| names(10).iter().any(|by| by == name);
    eventually(SOON, "both hosts serve", || serves("b") && serves("c"));
    // It keeps host b alive through its drain.
    let held = || {
        (0..20)
            .map(|_| a.open(PORT))
            .find(|it| it.greeting() == "b")
    };
    let held: Conn = held().expect("a connection to b");

    let over = AtomicBool::new(false);
    let load = || {
        let mut count = 0;
        while !over.load(Relaxed) {
            count += names(1).len();
            sleep(Duration::from_millis(3));
        }
        count
    };
    let count: usize = thread::scope(|scope| {
        let ending = Ending(&over);
        let loads = [(), ()].map(|()| scope.spawn(load));
        sleep(Duration::from_millis(300));
        b.signal(Signal::TERM);
        eventually(SOON, "a knows of the drain", || {
            a.count("/hosts/draining") == 1
        });
        assert!(names(20).iter().all(|by| by == "c"));
        let routes = a.run(&["routes"]);
        let routes = String::from_utf8_lossy(&routes.stdout);
        assert!(
            routes.contains("drains, gets no new connections"),
            "{routes}"
        );
        let explain = a.run(&["explain", "1024"]);
        let explain = String::from_utf8_lossy(&explain.stdout);
        assert!(explain.contains("it drains"), "{explain}");
        assert!(held.stays_quiet(Duration::from_millis(100)), "it is alive");
        sleep(Duration::from_millis(300));
        drop(ending);
        loads.map(|load| load.join().expect("a load")).iter().sum()
    });
    assert!(count > 50, "only {count} connections");
    let log = b.log();
    assert!(
        log.contains("other hosts know of the drain hosts=2"),
        "{log}"
    );

    held.half_close();
    assert_eq!(held.ended(), Ended::Eof);
    assert_eq!(b.snproxy().wait(SOON).code(), Some(0));
    let log = a.log();
    let (_, since) = log.split_once("host drains, it gets").expect("the drain");
    assert!(!since.contains("host is down"), "{log}");

    b.start();
    eventually(SOON, "b serves again", || serves("b"));
    assert_eq!(a.count("/hosts/up"), 2);
}

/// A program of a host that is no proxy sends the notice: the host is probed, and is well.
#[test]
fn notice_that_a_host_does_not_confirm_changes_nothing() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let _pod = serve(b, 1);
    start_all(&net);
    let proxy_port = a.port(super::PROXY_PORT);
    let notice = b.namespace().run(|| {
        let conn = Conn::connect(proxy_port, SOON).expect("a connection");
        conn.send("PROXY TCP4 1.2.3.4 0.0.0.0 32767 0\r\n").line()
    });
    assert_eq!(notice.trim_end(), "DRAINS");
    assert_eq!(a.count("/hosts/draining"), 0);
    assert_eq!(a.open(PORT).greeting(), "b");
}
