//! Who is not believed is not served, and counts as away; both sides say why.

use super::{PORT, SOON, folder, secure, serve, set};
use snproxy_tests::{Ca, Ended, Host, Net, TlsConn, eventually, request_for};
use std::{thread, time::Duration};

/// Hosts that are up, as another one sees them.
fn up(host: &Host) -> u64 {
    host.count("/hosts/up")
}

#[test]
fn a_proxy_without_tls_is_turned_away_without_a_byte() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    serve(b);
    secure(b, &Ca::new("proxies"), "");
    b.start();
    let conn = a.call(b);
    assert_eq!(
        conn.send(request_for(PORT)).rest(SOON),
        (Vec::new(), Ended::Eof)
    );
    b.snproxy().wait_for_line(SOON, "refused on PORT: no TLS");
    eventually(SOON, "it is counted", || b.ends("request") == 1);
    // Its own clients are none of this.
    assert_eq!(b.open(PORT).greeting(), "b");

    a.start();
    assert!(a.is_reset(PORT) || a.is_refused(PORT));
    b.reloaded_after(|b| set(b, "optional"));
    eventually(SOON, "a is served", || {
        a.attempt(PORT)
            .connected()
            .is_some_and(|conn| conn.rest(SOON / 5).0 == b"b\n")
    });
}

#[test]
fn a_host_with_a_certificate_of_others_counts_as_away() {
    let net = Net::hosts(["a", "b", "c"]);
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    let (ours, others) = (Ca::new("proxies"), Ca::new("others"));
    for host in [a, c] {
        secure(host, &ours, "");
    }
    secure(b, &others, "");
    for host in [b, c] {
        serve(host);
    }
    for host in [b, c, a] {
        host.start();
    }
    for _ in 0..20 {
        assert_eq!(a.open(PORT).greeting(), "c");
    }
    eventually(SOON, "b is away", || up(a) == 1);
    a.snproxy()
        .wait_for_line(SOON, "TLS with another host's proxy failed");
    assert!(
        a.log().contains("is not signed by a trusted CA"),
        "{}",
        a.log()
    );
    // a hangs up: what b is told is why.
    b.snproxy()
        .wait_for_line(SOON, "refused on PORT: TLS handshake");

    b.reloaded_after(|b| secure(b, &ours, ""));
    eventually(SOON * 3, "b is back", || up(a) == 2);
    eventually(SOON, "b serves", || a.open(PORT).greeting() == "b");
}

#[test]
fn a_caller_with_a_certificate_of_others_is_told() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let (ours, others) = (Ca::new("proxies"), Ca::new("others"));
    serve(b);
    secure(b, &ours, "");
    // It believes b, which does not believe it.
    let of_others = others.issue(&["10.77.0.1"]).believing(&ours);
    of_others.write_folder(&folder(a));
    set(a, "");
    for host in [a, b] {
        host.start();
    }
    assert!(a.is_reset(PORT) || a.is_refused(PORT));
    eventually(SOON, "b is away", || up(a) == 0);
    a.snproxy()
        .wait_for_line(SOON, "TLS with another host's proxy failed");
    b.snproxy()
        .wait_for_line(SOON, "refused on PORT: TLS handshake");
    assert!(b.log().contains("10.77.0.1"), "{}", b.log());
}

#[test]
fn the_name_of_a_host_is_verified_where_that_is_asked_for() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let ca = Ca::new("proxies");
    serve(b);
    ca.issue(&["elsewhere.example"]).write_folder(&folder(b));
    set(b, "");
    secure(a, &ca, "");
    for host in [a, b] {
        host.start();
    }
    eventually(SOON, "b is found", || up(a) == 1);
    // Of the CA: one of the cluster.
    assert_eq!(a.open(PORT).greeting(), "b");
    a.reloaded_after(|a| set(a, "verify=host"));
    assert!(a.is_reset(PORT) || a.is_refused(PORT));
    a.snproxy()
        .wait_for_line(SOON, "TLS with another host's proxy failed");
    b.reloaded_after(|b| secure(b, &ca, ""));
    eventually(SOON * 3, "it has its name now", || {
        a.attempt(PORT)
            .connected()
            .is_some_and(|conn| conn.rest(SOON / 5).0 == b"b\n")
    });
}

#[test]
fn who_is_not_believed_hears_why_though_it_goes_on_talking() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let (ours, others) = (Ca::new("proxies"), Ca::new("others"));
    secure(b, &ours, "");
    b.conf("PEERS", "any").start();
    let strange = others.issue(&["10.77.0.1"]).believing(&ours);
    for _ in 0..5 {
        let name = b.v4().to_string();
        let tls = TlsConn::connect(a.call(b), strange.client(), &name).expect("its half of it");
        for _ in 0..3 {
            tls.send([7; 1000]);
            thread::sleep(Duration::from_millis(30));
        }
        let (alert, ended) = tls.conn().rest(SOON);
        assert_eq!((alert.is_empty(), ended), (false, Ended::Eof));
    }
    eventually(SOON, "they are counted", || b.ends("tls_client") == 5);
}
