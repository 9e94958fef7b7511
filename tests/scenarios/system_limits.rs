//! Limits of the system: threads, memory of a control group, descriptors.

use snproxy_tests::{Cgroup, Net, Pod};
use std::{thread::sleep, time::Duration};

/// Longer than tokio keeps a thread that may block without work.
const PAUSE: Duration = Duration::from_secs(11);
const WHILE: Duration = Duration::from_secs(3);

#[test]
fn reload_needs_no_new_thread() {
    let net = Net::one();
    let host = net.host("host");
    let _pods = [30000, 30001].map(|port| host.pod(port, Pod::answering("pod")));
    let cgroup = Cgroup::new("pids");
    host.binary(&cgroup.binary(host))
        .mappings("1024:30000:9:false\n")
        .start();
    assert!(cgroup.holds(&host.snproxy()));
    let threads = cgroup.threads();
    host.snproxy().freeze();
    sleep(PAUSE);
    // A thread that ends now cannot be replaced.
    cgroup.limit_threads(threads - 1);
    host.snproxy().thaw();
    sleep(WHILE);
    host.reloaded_after(|host| {
        host.mappings("1024:30000:9:false\n1025:30001:9:false\n");
    });
    assert_eq!(host.open(1025).greeting(), "pod");
    assert!(!host.log().contains("panicked"), "{}", host.log());
    assert_eq!(host.stop().code(), Some(0));
}
