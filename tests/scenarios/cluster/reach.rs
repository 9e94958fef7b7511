//! Which ports are served with other hosts present, and who is asked.

use super::{PORT, SOON, greeted, serve, start_all};
use snproxy_tests::{Net, Pod, eventually};

#[test]
fn a_port_that_one_host_serves_is_reached_from_all() {
    let net = Net::hosts(["a", "b", "c"]);
    let pods = serve(net.host("c"), 1);
    start_all(&net);

    for host in net.all_hosts() {
        for _ in 0..10 {
            assert_eq!(greeted(host).0, "c");
        }
        host.assert_steered(10);
    }
    // From the hosts themselves, through their own proxy and that of another.
    for host in net.all_hosts() {
        for other in net.all_hosts() {
            assert_eq!(host.open_locally(other.port(PORT)).greeting(), "c");
        }
    }
    assert_eq!(pods[0].accepted(), 39);
    // A pod is dialled by the proxy of its own host, never from elsewhere.
    let c = net.host("c").v4();
    for visit in pods[0].visits() {
        assert_eq!(visit.peer().ip(), c);
    }
}

#[test]
fn bytes_arrive_whole_and_in_order_both_ways() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    b.pod(30000, Pod::returning());
    b.mappings("1024:30000:9:false\n");
    start_all(&net);

    let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let conn = a.open(PORT);
    conn.send(&sent).half_close();
    assert!(conn.read_to_end() == sent, "other bytes came back");
    eventually(SOON, "both ends are clean", || {
        a.ends("clean") == 1 && b.ends("clean") == 1
    });
}

#[test]
fn keys_say_whether_what_another_host_serves_is_reached() {
    let net = Net::hosts(["a", "b"]);
    let a = net.host("a");
    serve(net.host("b"), 1);
    start_all(&net);
    assert_eq!(greeted(a).0, "b");
    assert!(a.is_reset(2000), "nobody serves it, and b was asked");
    eventually(SOON, "its end is counted", || a.ends("not_mapped") == 1);

    for (key, value) in [("UNMAPPED", "refuse"), ("LOCALITY", "only")] {
        a.reloaded_after(|a| a.conf(key, value));
        assert!(a.is_refused(PORT), "{key} {value}");
        a.reloaded_after(|a| a.without(key));
        assert_eq!(greeted(a).0, "b");
    }
}

#[test]
fn a_port_whose_own_pods_are_dead_is_taken_to_another_host() {
    let net = Net::hosts(["a", "b"]);
    let a = net.host("a");
    let own = serve(a, 1);
    let others = serve(net.host("b"), 1);
    start_all(&net);

    own[0].stop();
    for _ in 0..20 {
        assert_eq!(greeted(a).0, "b");
    }
    eventually(SOON, "the pod is known to be down", || {
        a.status()["pods"][0]["up"] == false
    });
    assert_eq!(a.action(PORT), "steer");
    assert_eq!(greeted(a).0, "b");
    a.assert_refused(0);

    // On neither host: accepted, since another host might, and reset when it has said no.
    others[0].stop();
    assert!(a.is_reset(PORT));
    eventually(SOON, "its end is counted", || {
        a.ends("no_upstream") + a.ends("not_mapped") == 1
    });
}

#[test]
fn what_each_host_answered_is_told() {
    let net = Net::hosts(["a", "b", "c"]);
    let (a, b) = (net.host("a"), net.host("b"));
    serve(b, 2);
    start_all(&net);

    assert_eq!(greeted(a).0, "b");
    assert!(a.is_reset(2000));
    let routes = a.routes();
    let names = ["10.77.0.2:32767", "10.77.0.3:32767"];
    for (host, address) in routes["hosts"].as_array().expect("hosts").iter().zip(names) {
        assert_eq!(host["address"], address, "{routes:#}");
        assert_eq!(
            (&host["up"], &host["counts_pods"]),
            (&true.into(), &true.into())
        );
    }
    let answers: Vec<_> = routes["routes"]
        .as_array()
        .expect("routes")
        .iter()
        .map(|route| format!("{} {} {}", route["port"], route["answer"], route["pods"]))
        .collect();
    let expected = [
        r#"1024 "serves" 2"#,
        r#"1024 "not here" 0"#,
        r#"2000 "not here" 0"#,
        r#"2000 "not here" 0"#,
    ];
    assert_eq!(answers, expected, "{routes:#}");
}
