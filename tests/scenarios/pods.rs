//! Pods behind cluster ports: real servers and clients, what they learn of each other, and who gets how many.

use snproxy_tests::{Ended, Figure, Host, Net, Pod, eventually, print_figure};
use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn nginx_with_proxy_protocol_logs_the_true_client() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let tells = "$proxy_protocol_addr to $proxy_protocol_server_addr:$proxy_protocol_server_port from $remote_addr";
    let nginx = host.nginx(30000, "proxy_protocol", tells);
    host.mappings("1024:30000:100:true\n").start();

    let told = client.curl(&[&format!("http://{}/", host.port(1024))]);
    let expected = format!("{} to {}", client.v4(), host.port(1024));
    assert!(told.starts_with(&expected), "{told}");
    // nginx itself only met the proxy.
    assert!(told.trim().ends_with("from 10.77.0.1"), "{told}");
    nginx.wait_for_line(SOON, &expected);
    assert!(host.steered() >= 1);
}

#[test]
fn a_plain_pod_serves_curl_with_and_without_a_header() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let _plain = host.nginx(30000, "", "plain $request_method");
    let _told = host.nginx(30001, "proxy_protocol", "$proxy_protocol_addr");
    host.mappings("1024:30000:100:false\n1025:30001:100:true\n")
        .start();

    let plain = format!("http://{}/", host.port(1024));
    assert_eq!(client.curl(&[&plain]), "plain GET\n");
    // nginx would answer 400 to a header that was not taken off.
    assert_eq!(client.curl(&["--haproxy-protocol", &plain]), "plain GET\n");
    let told = format!("http://{}/", host.port(1025));
    assert_eq!(
        client.curl(&["--haproxy-protocol", &told]).trim(),
        client.v4().to_string()
    );
    assert!(host.steered() >= 3);
}

#[test]
fn headers_of_haproxy_are_forwarded_unchanged_or_stripped() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let told = host.pod(30000, Pod::recording());
    let plain = host.pod(30001, Pod::recording());
    host.mappings("1024:30000:100:true\n1025:30001:100:false\n")
        .start();

    let before = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let _haproxies = [
        client.haproxy(20000, host.port(1024), "send-proxy"),
        client.haproxy(20001, host.port(1024), "send-proxy-v2"),
        client.haproxy(20002, host.port(1025), "send-proxy"),
        client.haproxy(20003, host.port(1025), "send-proxy-v2"),
    ];
    let through = |port: u16, pod: &Pod, visit: usize| {
        let conn = client.open(before(port));
        conn.send("payload").half_close();
        assert_eq!(pod.visit(visit).wait_for_end(), Ended::Eof);
        (conn.local().port(), pod.visit(visit).first_bytes())
    };

    let (port, got) = through(20000, &told, 0);
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} 20000\r\npayload");
    assert_eq!(String::from_utf8_lossy(&got), line);

    let (port, got) = through(20001, &told, 1);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
    header.extend(port.to_be_bytes());
    header.extend(20001_u16.to_be_bytes());
    header.extend(b"payload");
    assert_eq!(got, header, "{}", got.escape_ascii());

    for (port, visit) in [(20002, 0), (20003, 1)] {
        let (_, got) = through(port, &plain, visit);
        assert_eq!(got, b"payload", "{}", got.escape_ascii());
    }
    // The servers of HAProxy are reached through the proxy alone.
    assert!(
        told.visits()
            .iter()
            .all(|visit| visit.peer().ip() == host.v4())
    );
    assert!(host.steered() >= 4);
}

#[test]
fn a_banner_first_pod_speaks_without_delay() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::banner("220 ready\r\n"));
    // Nothing may wait for PROXYWAIT here, however long it is.
    host.conf("PROXYWAIT", "10s")
        .mappings("1024:30000:100:false\n")
        .start();

    let greeted_after = |port: u16| {
        let start = Instant::now();
        assert_eq!(host.open(port).line(), "220 ready");
        start.elapsed()
    };
    let median = |port: u16| {
        let mut times: Vec<_> = (0..41).map(|_| greeted_after(port)).collect();
        times.sort();
        times[20]
    };
    let (direct, proxied) = (median(30000), median(1024));
    print_figure(
        "banner through the proxy, more than without it",
        Figure::Time(proxied.saturating_sub(direct)),
        Figure::Time(Duration::from_millis(10)),
    );
    assert!(host.steered() >= 41);
}

#[test]
fn six_thousand_connections_spread_evenly_over_three_pods() {
    spread("p2c", 6000, 280..=390);
}

#[test]
fn round_robin_and_random_spread_too() {
    spread("rr", 900, 320..=346);
    spread("random", 900, 255..=412);
}

#[test]
fn ordered_takes_the_first_pod_while_it_has_room() {
    let net = Net::one();
    let host = net.host("host");
    let pods = three_pods(host);
    host.conf("BALANCE", "ordered")
        .mappings("1024:30000:2:false\n1024:30001:1:false\n1024:30002:5:false\n")
        .start();

    for _ in 0..20 {
        assert_eq!(host.open(1024).greeting(), "0");
        eventually(SOON, "the place is free again", || {
            host.count("/connections/live") == 0
        });
    }
    let mut inside = Vec::new();
    for pod in ["0", "0", "1", "2"] {
        inside.push(host.open(1024));
        assert_eq!(inside[inside.len() - 1].greeting(), pod);
    }
    assert_eq!(pods.map(|pod| pod.accepted()), [22, 1, 1]);
    assert!(host.steered() >= 24);
}

fn three_pods(host: &Host) -> [Pod; 3] {
    [30000, 30001, 30002]
        .map(|port| host.pod(port, Pod::answering_once(&(port - 30000).to_string())))
}

/// Opens `count` connections to three pods; each must get a part, in thousandths, within `expected`.
#[track_caller]
fn spread(policy: &str, count: usize, expected: std::ops::RangeInclusive<usize>) {
    const THREADS: usize = 3;
    let net = Net::one();
    let host = net.host("host");
    let pods = three_pods(host);
    host.conf("BALANCE", policy)
        .mappings("1024:30000:9000:false 1024:30001:9000:false 1024:30002:9000:false\n")
        .start();

    let open = || {
        for _ in 0..count / THREADS {
            let conn = host.open(1024);
            assert!(["0", "1", "2"].contains(&conn.greeting().as_str()));
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(open);
        }
    });

    let got = pods.map(|pod| pod.accepted());
    assert_eq!(got.iter().sum::<usize>(), count);
    let parts = got.map(|got| got * 1000 / count);
    assert!(
        parts.iter().all(|part| expected.contains(part)),
        "{policy}: {got:?}"
    );
    assert!(
        host.steered() >= count as u64,
        "{policy}: others served some of them"
    );
    if policy == "p2c" {
        let (Some(most), Some(least)) = (got.iter().max(), got.iter().min()) else {
            return;
        };
        print_figure(
            "p2c: most less least of 6,000 connections over 3 pods",
            Figure::Count((most - least) as u64),
            Figure::Count(300),
        );
    }
}
