//! What happens to connections that nobody has accepted yet concerns no mechanism.

use super::SOON;
use rustix::process::Signal;
use snproxy_tests::{Conn, Net, Pod, eventually};

#[test]
fn clients_that_reset_while_they_wait_to_be_accepted_harm_nothing() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("a"));
    host.mappings("1024:30000:100:false\n").start();

    host.signal(Signal::STOP);
    // The kernel takes them all; nobody accepts.
    let waiting: Vec<Conn> = (0..40).map(|_| host.open(1024)).collect();
    let (leaving, staying) = waiting
        .into_iter()
        .enumerate()
        .partition::<Vec<_>, _>(|(at, _)| at % 2 == 0);
    for (_, conn) in leaving {
        conn.reset();
    }
    host.signal(Signal::CONT);

    for (_, conn) in &staying {
        assert_eq!(conn.greeting(), "a");
    }
    assert_eq!(host.open(1024).greeting(), "a");
    drop(staying);
    eventually(SOON, "all are gone", || {
        host.count("/connections/live") == 0
    });
    assert!(pod.accepted() >= 21);
    assert!(host.ends("clean") == 21, "{:#}", host.status());
    assert!(host.count("/connections/total") >= 21);
}
