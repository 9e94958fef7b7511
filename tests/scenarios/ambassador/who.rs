//! PROXY headers to servers and from clients, with HAProxy and nginx at the other end.

use super::fixture::Launch;
use snproxy_tests::{Ended, Net, Pod};
use std::time::Duration;

#[test]
fn nginx_learns_who_the_client_is() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let _nginx = b.nginx(6001, "proxy_protocol", "$proxy_protocol_addr");
    let client = net.client();
    for version in ["v1", "v2"] {
        let words = format!("ambassador --src :5000 --dst 10.77.0.2:6001 --send-proxy {version}");
        let _ambassador = Launch::on(a).start(&words);
        let told = client.curl(&["http://10.77.0.1:5000/"]);
        assert_eq!(told.trim(), client.v4().to_string(), "{version}");
    }
}

#[test]
fn a_client_that_must_say_who_it_is_speaks_for_others() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let _nginx = b.nginx(6001, "proxy_protocol", "$proxy_protocol_addr");
    let words = "ambassador --src :5000 --dst 10.77.0.2:6001 --send-proxy v1 --accept-proxy";
    let ambassador = Launch::on(a).start(words);
    for options in ["send-proxy", "send-proxy-v2"] {
        let _haproxy = net.client().haproxy(7000, a.port(5000), options);
        // To HAProxy from its own loopback: that is the client that nginx hears of.
        let told = net.client().curl(&["http://127.0.0.1:7000/"]);
        assert_eq!(told.trim(), "127.0.0.1", "{options}");
    }
    // Whoever does not, is turned away.
    let conn = a.open(5000);
    conn.send(b"GET / HTTP/1.0\r\n\r\n");
    assert_ne!(conn.ended(), Ended::Open);
    assert!(ambassador.log().contains("ready"));
}

#[test]
fn accept_proxy_reads_headers_of_its_networks_only() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let _nginx = b.nginx(6001, "proxy_protocol", "$proxy_protocol_addr");
    let words = |networks: &str| {
        format!("ambassador --src :5000 --dst 10.77.0.2:6001 --send-proxy v1 {networks}")
    };
    let _haproxy = net.client().haproxy(7000, a.port(5000), "send-proxy");
    let ambassador = Launch::on(a).start(&words("--accept-proxy=10.77.0.101/32"));
    let told = net.client().curl(&["http://127.0.0.1:7000/"]);
    assert_eq!(told.trim(), "127.0.0.1");
    drop(ambassador);
    let _ambassador = Launch::on(a).start(&words("--accept-proxy=192.0.2.0/24"));
    let conn = a.open(5000);
    conn.send(b"PROXY TCP4 127.0.0.1 127.0.0.1 5 6\r\n\r\n");
    let (answer, _) = conn.rest(Duration::from_secs(10));
    // The header of the client is a line of HTTP to nginx.
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("400 Bad Request"), "{answer}");
}

#[test]
fn what_looks_like_a_header_is_payload_unless_it_is_asked_for() {
    let net = Net::hosts(["a"]);
    let a = net.host("a");
    a.pod(6001, Pod::echo());
    let _ambassador = Launch::on(a).start("ambassador --src :5000 --dst 127.0.0.1:6001");
    let conn = a.open(5000);
    let line = b"PROXY TCP4 1.2.3.4 1.2.3.4 5 6\r\n";
    conn.send(line);
    assert_eq!(conn.read(line.len()), line);
}
