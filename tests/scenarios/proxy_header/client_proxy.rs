//! CLIENTPROXY: which clients are believed, and what becomes of the others.

use super::{NONE, SOON, V1, check, headers, heard, three_pods, v1_for};
use snproxy_tests::{Ended, Net, eventually};
use std::time::{Duration, Instant};

#[test]
fn a_client_that_must_send_a_header_and_does_not_is_reset() {
    let net = Net::one();
    let host = net.host("host");
    let [told, plain, _] = three_pods(host);
    host.conf("CLIENTPROXY", "require")
        .conf("PROXYWAIT", "500ms")
        .start();

    let header = &headers()[0];
    let whole = [&header[..], b"payload"].concat();
    check(&heard(host, V1, &told, &[&whole]).0, &whole);
    check(&heard(host, NONE, &plain, &[&whole]).0, b"payload");
    assert_eq!(host.ends("header"), 0);

    // Other bytes, half a header and FIN, silence.
    for (index, port) in [V1, NONE].into_iter().enumerate() {
        let before = 3 * index as u64;
        assert_eq!(
            host.open(port).send("GET / HTTP/1.0\r\n\r\n").ended(),
            Ended::Reset
        );
        assert_eq!(
            host.open(port).send("PRO").half_close().ended(),
            Ended::Reset
        );
        assert_eq!(host.open(port).ended(), Ended::Reset);
        eventually(SOON, "three more ends", || {
            host.ends("header") == before + 3
        });
    }
    let visits = [told.visits(), plain.visits()].concat();
    assert_eq!(visits.len(), 2, "no pod hears of a client that was refused");
    let bytes: u64 = visits.iter().map(|visit| visit.received()).sum();
    assert_eq!(
        bytes,
        (whole.len() + 7) as u64,
        "nothing of a refused client reached a pod"
    );
}

#[test]
fn a_client_that_is_never_believed_sends_payload_only() {
    let net = Net::one();
    let host = net.host("host");
    let [told, plain, _] = three_pods(host);
    host.conf("CLIENTPROXY", "never").start();

    for header in headers() {
        let (got, conn) = heard(host, V1, &told, &[&header]);
        check(&got, &[v1_for(&conn), header.clone()].concat());
        check(&heard(host, NONE, &plain, &[&header]).0, &header);
    }
    // There is nothing to wait for.
    let conn = host.open(V1);
    let start = Instant::now();
    let header = v1_for(&conn);
    check(
        &told
            .visit(headers().len())
            .wait_for_bytes(header.len() as u64),
        &header,
    );
    let after = start.elapsed();
    assert!(after < Duration::from_secs(3), "after {after:?}");
}

#[test]
fn clients_of_other_networks_are_not_believed() {
    let net = Net::new(&["host"], 2);
    let host = net.host("host");
    let [_, plain, _] = three_pods(host);
    host.conf("CLIENTPROXY", "detect 10.77.0.102/32,192.0.2.0/24")
        .start();

    let header = &headers()[0];
    for (index, expected) in [&header[..], b""].into_iter().enumerate() {
        let conn = net.nth_client(index).open(host.port(NONE));
        conn.send(header).half_close();
        assert_eq!(plain.visit(index).wait_for_end(), Ended::Eof);
        check(&plain.visit(index).first_bytes(), expected);
    }
}
