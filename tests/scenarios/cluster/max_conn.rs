//! maxConn with other hosts around: exact on each, and a full host sends callers on.

use super::{PORT, SOON, map, serve, start_all};
use crate::max_conn::{LIMIT, crowd};
use snproxy_tests::{Net, Pod, eventually};

#[test]
fn fifty_clients_never_overfill_seven_places_on_each_of_two_hosts() {
    const RELOADS: u16 = 10;
    let net = Net::hosts(["a", "b", "c"]);
    let mapping = format!("{PORT}:30000:{LIMIT}:false\n");
    let pods = ["a", "b"].map(|name| {
        let host = net.host(name).mappings(&mapping);
        host.pod(30000, Pod::answering("in").expecting_at_most(LIMIT))
    });
    start_all(&net);

    // c serves nothing and takes its clients to the others.
    let to: Vec<_> = net.all_hosts().iter().map(|host| host.port(PORT)).collect();
    let (served, refused) = crowd(net.client(), &to, || {
        for reload in 0..RELOADS {
            for name in ["a", "b"] {
                net.host(name).reloaded_after(|host| {
                    host.mappings(&format!("{mapping}{}:30000:1:false\n", 2000 + reload));
                });
            }
        }
    });
    let came: usize = pods.iter().map(Pod::accepted).sum();
    assert_eq!(came, served, "whoever reached a pod was served");
    for pod in &pods {
        assert_eq!(pod.most_inside(), LIMIT, "full, and never more");
    }
    eventually(SOON, "all are out", || {
        pods.iter().all(|pod| pod.inside() == 0)
    });
    assert!(refused > 0);
    // A caller whose host has no place is sent on once; only the last says so to the client.
    let busy: u64 = net.all_hosts().iter().map(|host| host.ends("busy")).sum();
    assert!(busy >= refused, "{busy} ends, {refused} clients refused");
}

#[test]
fn a_full_host_is_passed_over() {
    let net = Net::hosts(["a", "b", "c"]);
    let a = net.host("a");
    let pods: Vec<_> = ["b", "c"].map(|name| serve(net.host(name), 1)).concat();
    for name in ["b", "c"] {
        map(net.host(name), 1, 1);
    }
    start_all(&net);

    let held = [a.open(PORT), a.open(PORT)];
    let mut names = held.each_ref().map(|conn| conn.greeting());
    names.sort();
    assert_eq!(names, ["b", "c"]);
    for _ in 0..3 {
        assert!(a.is_reset(PORT));
    }
    eventually(SOON, "three were told", || a.ends("busy") == 3);

    drop(held);
    eventually(SOON, "both have left", || {
        pods.iter().all(|pod| pod.inside() == 0)
    });
    // A busy host is asked again within about a second.
    eventually(SOON, "there is room again", || {
        let conn = a.attempt(PORT).connected();
        conn.is_some_and(|conn| matches!(conn.stream().peek(&mut [0]), Ok(1)))
    });
}
