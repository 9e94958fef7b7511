//! Apps beside the files of Simplenetes.

use super::fixture::{SOON, echoes};
use snproxy_tests::{Net, Pod, eventually};

const FILE: &str = r#"{"Apps":[
  {"Name":"echo","Ports":[5001,"5300-5301"],"IdleTimeout":"1s","Targets":["10.77.0.3:6001"]},
  {"Name":"away","Ports":[5002],"Targets":["10.77.0.3:6002"]}
]}"#;

#[test]
fn apps_stand_beside_mappings_and_no_other_host_is_asked_for_them() {
    let net = Net::hosts(["a", "b", "echo"]);
    let [a, b, echo] = ["a", "b", "echo"].map(|name| net.host(name));
    let _echoes = echoes(echo, &[6001]);
    a.pod(30000, Pod::answering("pod of a"));
    b.pod(30000, Pod::answering("pod of b"));
    a.mappings("2000:30000:9:false\n")
        .conf("APPSCONF", "config.json")
        .conf("CLUSTERPORTS", "2000-2999")
        .replace("config.json", FILE);
    // The same port is an app here and a cluster port there.
    b.mappings("2001:30000:9:false\n5001:30000:9:false\n5002:30000:9:false\n");
    a.start();
    b.start();

    assert_eq!(a.open(2000).greeting(), "pod of a");
    assert_eq!(a.open(2001).greeting(), "pod of b");
    for port in [5001, 5300, 5301] {
        for _ in 0..4 {
            assert_eq!(a.open(port).greeting(), "echo 6001");
        }
    }
    assert_eq!(a.port_range(5300)["reason"], "app");
    assert_eq!(a.port_range(5300)["app"], "echo");
    // Its target is dead, and no other host is asked. The target may be back at any time, so that
    // clients have it dialed.
    assert!(a.is_reset(5002));
    eventually(SOON, "all upstreams of the port are down", || {
        a.port_range(5002)["reason"] == "all pods are down"
    });
    assert!(a.is_reset(5002));
    // Nor is this host's app given to others.
    b.reloaded_after(|b| b.mappings("2001:30000:9:false\n"));
    assert!(b.is_reset(5001), "only the other host has it");
    // A field of the app is a key of its ports.
    let idle = a.open(5001);
    assert_eq!(idle.greeting(), "echo 6001");
    idle.rest(SOON);
    eventually(SOON, "it is counted", || a.ends("idle") == 1);

    // A pod that is mapped to the port of an app is no good configuration.
    a.mappings("2000:30000:9:false\n5300:30000:9:false\n");
    let says = "port 5300 is claimed twice: a pod is mapped to it at";
    let found = || a.status()["reload"]["diagnostics"].to_string();
    eventually(SOON, says, || found().contains(says));
    assert_eq!(a.open(5300).greeting(), "echo 6001");
    // Out of the files, out of the kernel.
    a.mappings("2000:30000:9:false\n").without("APPSCONF");
    eventually(SOON, "the apps are gone", || a.is_refused(5001));
    assert_eq!(a.open(2000).greeting(), "pod of a");
}
