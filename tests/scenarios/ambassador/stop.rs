//! TERM and INT: go-proxy did not hear the first.

use super::fixture::Launch;
use rustix::process::Signal;
use snproxy_tests::{Ended, Net, Pod, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn term_lets_connections_end_and_refuses_new_ones() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    a.pod(6001, Pod::echo());
    let ambassador = Launch::on(a).start("ambassador --src :5000 --dst 127.0.0.1:6001");
    let conn = a.open(5000);
    conn.send(b"before");
    assert_eq!(conn.read(6), b"before");
    ambassador.signal(Signal::TERM);
    eventually(SOON, "new clients are refused", || a.is_refused(5000));
    conn.send(b"after");
    assert_eq!(conn.read(5), b"after");
    assert_eq!(ambassador.exit_status(), None);
    drop(conn);
    assert_eq!(ambassador.wait().code(), Some(0));
}

#[test]
fn a_drain_has_a_limit_and_int_ends_it() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    a.pod(6001, Pod::echo());
    let words = "ambassador --src :5000 --dst 127.0.0.1:6001";
    let limited = Launch::on(a).start(&format!("{words} --drain-timeout 500ms"));
    let conn = a.open(5000);
    limited.signal(Signal::TERM);
    assert_eq!(conn.ended(), Ended::Reset);
    assert_eq!(limited.wait().code(), Some(0));

    let patient = Launch::on(a).start(words);
    let conn = a.open(5000);
    patient.signal(Signal::INT);
    eventually(SOON, "new clients are refused", || a.is_refused(5000));
    patient.signal(Signal::INT);
    assert_eq!(conn.ended(), Ended::Reset);
    assert_eq!(patient.wait().code(), Some(0));
}
