//! What other hosts claim to have, and how much of it counts.

use super::{FALSE, SOON};
use snproxy_tests::{Figure, Net, Peer, Pod, eventually, print_figure};

/// A proxy that has so many pods of every port, by its own word, and greets by this name.
fn claiming(name: &str, pods: u16) -> Peer {
    let count = format!("PODS={pods}\r\n");
    let greeting = [FALSE, name.as_bytes(), b"\n"].concat();
    Peer::answering(greeting).questioned(move |guest| drop(guest.send(count.as_bytes())))
}

#[test]
fn a_host_that_claims_65535_pods_gets_a_bounded_share() {
    const CONNECTIONS: u64 = 300;

    let net = Net::hosts(["a", "b", "c"]);
    let [a, b, c] = ["a", "b", "c"].map(|name| net.host(name));
    let liar = b.peer(claiming("liar", 65_535));
    let honest = c.peer(claiming("honest", 4));
    let pods = [30000, 30001, 30002, 30003].map(|port| a.pod(port, Pod::answering("pod")));
    let mappings = (30000..30004).map(|port| format!("1024:{port}:99:false\n"));
    let mappings: String = mappings.collect();
    a.hosts("10.77.0.1:32767\n10.77.0.2:32767\n10.77.0.3:32767\n")
        .mappings(&mappings)
        .start();
    eventually(SOON, "both hosts have said what they have", || {
        drop(a.open(1024).greeting());
        let routes = a.routes()["routes"].to_string();
        routes.contains("65535") && routes.contains("\"pods\":4")
    });

    let before = liar.calls_for(1024).len();
    for _ in 0..CONNECTIONS {
        a.open(1024).greeting();
    }
    let drawn = u64::try_from(liar.calls_for(1024).len() - before).expect("a number");
    // 32 of 40 count: 240 of 300, and five standard deviations.
    print_figure(
        "connections of 300 drawn by PODS=65535 beside 8 pods",
        Figure::Count(drawn),
        Figure::Count(275),
    );
    assert!(drawn <= 275, "{drawn}");
    assert!(honest.calls_for(1024).len() > 3);
    assert!(pods.iter().map(Pod::accepted).sum::<usize>() > 3);

    a.snproxy().wait_for_line(
        SOON,
        "a peer claims more than 8 times the pods of the others",
    );
    let routes = a.routes();
    let routes = routes["routes"].as_array().expect("a list");
    let of = |pods: u16| {
        let route = routes.iter().find(|route| route["pods"] == pods);
        route.unwrap_or_else(|| panic!("{routes:?}"))
    };
    assert_eq!(of(65_535)["pods_counted"], 32);
    assert!(of(4)["pods_counted"].is_null());
    let text = String::from_utf8(a.run(&["routes"]).stdout).expect("text");
    assert!(text.contains("65535 pods, 32 count"), "{text}");
}
