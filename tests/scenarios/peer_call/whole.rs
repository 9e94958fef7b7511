//! Both sides are ours: a client on one host, its pod on the other.

use super::{MOMENT, SOON, check};
use snproxy_tests::{Conn, Ended, Figure, Host, Net, Pod, eventually, print_figure};
use std::thread;

/// Hosts `a`, which has no pods, and `b`, which has this one on ports 1024 to 1026: without a header, with v1, with v2.
fn two_proxies(net: &Net, pod: Pod) -> (&Host, &Host, Pod) {
    let (a, b) = (net.host("a"), net.host("b"));
    let pod = b.pod(30000, pod);
    b.mappings("1024:30000:100:false 1025:30000:100:true 1026:30000:100:v2\n")
        .start();
    (a.start(), b, pod)
}

#[test]
fn a_pod_of_another_host_learns_who_its_client_is() {
    let net = Net::hosts(["a", "b"]);
    let (a, b, pod) = two_proxies(&net, Pod::recording());
    let heard = |port: u16, payload: &[u8]| {
        let visit = pod.accepted();
        let conn = a.open(port);
        conn.send(payload).half_close();
        assert_eq!(pod.visit(visit).wait_for_end(), Ended::Eof);
        assert_eq!(
            pod.visit(visit).peer().ip(),
            b.v4(),
            "its own proxy dialled"
        );
        (pod.visit(visit).first_bytes(), conn.local())
    };

    check(&heard(1024, b"payload").0, b"payload");
    let (got, client) = heard(1025, b"payload");
    let header = format!(
        "PROXY TCP4 10.77.0.101 10.77.0.1 {} 1025\r\npayload",
        client.port()
    );
    check(&got, header.as_bytes());
    let (got, client) = heard(1026, b"payload");
    check(&got[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    check(&got[16..24], &[10, 77, 0, 101, 10, 77, 0, 1]);
    check(&got[24..26], &client.port().to_be_bytes());
    check(&got[26..28], &1026u16.to_be_bytes());
    assert!(got.ends_with(b"payload"));

    // A client's own header in the version that it chose.
    let v1 = b"PROXY TCP4 192.0.2.7 10.77.0.1 4711 1024\r\npayload";
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0payload";
    for own in [&v1[..], v2] {
        check(&heard(1024, own).0, b"payload");
        check(&heard(1025, own).0, own);
    }
    check(&heard(1026, v2).0, v2);
    let got = heard(1026, v1).0;
    check(
        &got[16..28],
        &[192, 0, 2, 7, 10, 77, 0, 1, 0x12, 0x67, 4, 0],
    );
}

#[test]
fn bytes_and_ends_cross_two_proxies_whole() {
    let net = Net::hosts(["a", "b"]);
    let (a, b, pod) = two_proxies(&net, Pod::returning());
    b.pod(30001, Pod::resetting());
    b.pod(30002, Pod::answering_once("bye"));
    b.reloaded_after(|b| {
        b.mappings("1024:30000:100:false 1025:30001:100:true 1026:30002:100:false\n")
    });

    let sent: Vec<u8> = (0..40u32 << 18).flat_map(u32::to_le_bytes).collect();
    let conn = a.open(1024);
    let got = conn.send(&sent).half_close().read_to_end();
    assert!(got == sent, "{} bytes came back", got.len());
    assert_eq!(a.open(1025).send("x").ended(), Ended::Reset);
    let conn = a.open(1026);
    assert_eq!(conn.rest(SOON), (b"bye\n".to_vec(), Ended::Eof));
    conn.send("more").half_close();
    let conn = a.open(1024);
    conn.send("x");
    pod.visit(1).wait_for_bytes(1);
    conn.reset();
    assert_eq!(pod.visit(1).wait_for_end(), Ended::Reset);
    for host in [a, b] {
        eventually(SOON, "each end is told for what it was", || {
            let ends = ["clean", "upstream", "client"].map(|end| host.ends(end));
            ends == [2, 1, 1]
        });
    }
}

#[test]
fn a_pod_of_another_host_that_does_not_read_stops_its_client() {
    let net = Net::hosts(["a", "b"]);
    let (a, b, pod) = two_proxies(&net, Pod::silent());
    let before = [a, b].map(Host::rss);

    let conn = a.open(1024);
    let taken = conn.offer(&vec![0x5a; 256 << 20], MOMENT) as u64;
    print_figure(
        "taken of 256 MiB for a pod of another host that does not read",
        Figure::Bytes(taken),
        Figure::Bytes(64 << 20),
    );
    for (host, before) in [a, b].into_iter().zip(before) {
        print_figure(
            "memory that each proxy holds for it",
            Figure::Bytes(host.rss().saturating_sub(before)),
            Figure::Bytes(2 << 20),
        );
    }
    conn.reset();
    eventually(SOON, "it is gone", || {
        // Beside it `a` keeps a connection for its questions.
        pod.inside() == 0 && a.count("/connections/live") == 0 && b.count("/connections/live") <= 1
    });
}

#[test]
fn a_client_that_does_not_read_stops_a_pod_of_another_host() {
    let net = Net::hosts(["a", "b"]);
    let pouring = Pod::serving(|guest| {
        let chunk = vec![0x5a; 64 << 10];
        // 256 MiB, were they read.
        for _ in 0..4096 {
            if guest.send(&chunk).is_err() {
                break;
            }
        }
    });
    let (a, b, pod) = two_proxies(&net, pouring);
    let before = [a, b].map(Host::rss);

    let conns: Vec<_> = (0..4).map(|_| a.open(1024)).collect();
    eventually(SOON, "all are paired", || pod.accepted() == 4);
    thread::sleep(2 * MOMENT);
    assert_eq!(pod.inside(), 4, "none of them is done");
    for (host, before) in [a, b].into_iter().zip(before) {
        print_figure(
            "memory that each proxy holds for four that do not read",
            Figure::Bytes(host.rss().saturating_sub(before)),
            Figure::Bytes(2 << 20),
        );
    }
    let (got, ended) = conns[0].rest(SOON);
    assert_eq!((got.len(), ended), (256 << 20, Ended::Eof));
    drop(conns);
    eventually(SOON, "the pod hears of it", || pod.inside() == 0);
}

#[test]
fn many_clients_of_two_hosts_keep_their_own_bytes() {
    let net = Net::hosts(["a", "b"]);
    let (a, b, pod) = two_proxies(&net, Pod::echo());
    thread::scope(|scope| {
        for host in [a, b, a, b] {
            scope.spawn(move || {
                for round in 0..20 {
                    let conn = host.open(1024);
                    let said = format!("{} in round {round}", conn.local());
                    conn.send(&said).half_close();
                    check(&conn.read_to_end(), said.as_bytes());
                }
            });
        }
    });
    assert_eq!(pod.accepted(), 80);
}

#[test]
fn a_burst_of_clients_reaches_the_other_host_without_a_loss() {
    const CLIENTS: usize = 600;
    let net = Net::hosts(["a", "b"]);
    let (a, b, _) = two_proxies(&net, Pod::answering("pod"));
    b.reloaded_after(|b| b.mappings("1024:30000:900:false\n"));

    let to = a.port(1024);
    for _ in 0..3 {
        let conns: Vec<Conn> = net.client().run(|| {
            (0..CLIENTS)
                .map(|_| Conn::connect(to, SOON).expect("connect"))
                .collect()
        });
        for conn in &conns {
            assert_eq!(conn.greeting(), "pod");
        }
        drop(conns);
        eventually(SOON, "all are gone", || a.count("/connections/live") == 0);
    }
    assert_eq!(a.ends("clean"), 3 * CLIENTS as u64);
}

#[test]
fn a_port_that_nobody_has_sends_nobody_in_circles() {
    let net = Net::hosts(["a", "b"]);
    let (a, b, _) = two_proxies(&net, Pod::answering("pod"));
    for _ in 0..5 {
        for host in [a, b] {
            assert!(host.is_reset(2000));
        }
    }
    // Its clients, and a few of the other proxy.
    for host in [a, b] {
        let total = host.count("/connections/total");
        assert!(total <= 5 + 8, "{total} on {}", host.name());
    }
}
