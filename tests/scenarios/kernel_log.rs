//! What the steering program has to say.

use snproxy_tests::{Net, Pod};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_program_logs_that_nobody_is_there_to_steer_to() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:9:false\n")
        .conf("BPFLOG", "error")
        .start();
    assert_eq!(host.open(1024).greeting(), "pod");

    let listener = host.map_id("LISTENER");
    let emptied = host.bpftool(&format!("map delete id {listener} key 0 0 0 0"));
    assert!(emptied.is_some(), "the slot is empty now");

    // Ours all the same: whoever else may listen there does not get it.
    assert!(host.is_refused(1024));
    host.snproxy()
        .wait_for_line(SOON, "listener not assigned: port 1024 family 2 errno 2");
    assert!(host.count("/kernel/no_listener") >= 1);
    host.assert_steered(1);
}

#[test]
fn without_bpflog_the_program_counts_and_keeps_silent() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:9:false\n").start();

    let listener = host.map_id("LISTENER");
    assert!(
        host.bpftool(&format!("map delete id {listener} key 0 0 0 0"))
            .is_some()
    );
    assert!(host.is_refused(1024));
    assert!(host.count("/kernel/no_listener") >= 1);
    assert!(
        !host.log().contains("listener not assigned"),
        "{}",
        host.log()
    );
}
