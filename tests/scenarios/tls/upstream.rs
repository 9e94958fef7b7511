//! Upstreams in TLS: who is believed, and who is next.

use super::{Ground, NAME, POD, PORT, SOON, greeting};
use snproxy_tests::{Ca, Ended, Pod, eventually};
use std::{process::Command, time::Duration};

#[test]
fn openssl_as_the_server_in_either_version() {
    let ground = Ground::securing("");
    ground.host().start();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut server = Command::new("openssl");
        server
            .args(["s_server", "-accept", "30000", "-rev", "-quiet", version])
            .args(["-cert", "tls/cert.pem", "-key", "tls/key.pem"])
            .args(["-CAfile", "tls/ca.pem", "-Verify", "1"])
            .current_dir(ground.host().folder());
        let server = ground
            .host()
            .namespace()
            .server("s_server", &mut server, POD);
        let conn = ground.host().open(PORT);
        assert_eq!(conn.send("abc\n").read(4), b"cba\n", "{version}");
        drop(conn);
        server.kill();
    }
}

#[test]
fn who_is_not_who_was_asked_for_gets_nothing() {
    let stranger = Ca::new("another authority");
    let ground = Ground::securing("");
    let issued = &ground.issued;
    let wrong_ca = stranger.issue(&[NAME]).believing(&ground.ca);
    let wrong_name = ground.ca.issue(&["other.example"]);
    let expired = ground.ca.issue_expired(&[NAME]);
    // Down, it would be refused by the kernel.
    ground.host().conf("HEALTH", "passive fails=1000").start();
    for (other, why) in [
        (wrong_ca, "is not signed by a trusted CA"),
        (wrong_name, "not valid for name"),
        (expired, "expired"),
    ] {
        let pod = ground.host().pod(POD, greeting(&other, "not to be heard"));
        let (heard, ended) = ground.host().open(PORT).rest(SOON);
        assert_eq!((heard.as_slice(), ended), (&b""[..], Ended::Reset), "{why}");
        eventually(SOON, why, || {
            let health = ground.host().status()["pods"][0]["health"].to_string();
            let log = ground.host().log();
            health.contains(why) || log.contains(why)
        });
        pod.stop();
        let good = ground.host().pod(POD, greeting(issued, "good"));
        eventually(SOON, "the pod is up again", || {
            let conn = ground.host().attempt(PORT).connected();
            conn.is_some_and(|conn| conn.rest(Duration::from_secs(1)).0 == b"good")
        });
        good.stop();
    }
    assert!(ground.host().ends("no_upstream") >= 3);
}

#[test]
fn with_verify_none_anybody_will_do() {
    let ground = Ground::securing("verify=none");
    let expired = Ca::new("another authority").issue_expired(&["other.example"]);
    let pod = greeting(&expired.believing(&ground.ca), "anybody");
    ground.host().pod(POD, pod);
    ground.host().start();
    let conn = ground.host().open(PORT);
    assert_eq!(conn.read(7), b"anybody");
}

#[test]
fn a_pod_whose_handshake_fails_is_followed_by_the_next_one() {
    let ground = Ground::securing("");
    let expired = ground.ca.issue_expired(&[NAME]);
    ground.host().mappings(
        "1024:30000:900:false\n1024:30001:900:false\n1024:30002:900:false\n1024:30003:900:false\n",
    );
    ground.host().conf("BALANCE", "ordered");
    ground.host().conf("HEALTH", "passive fails=1000");
    ground.host().conf("TLSTIMEOUT", "500ms");
    ground.host().pod(30000, greeting(&expired, "expired"));
    // It takes the connection, and never answers the first record.
    ground.host().pod(30001, Pod::silent());
    // It speaks, but no TLS.
    ground.host().pod(30002, Pod::answering("plain"));
    ground.host().pod(30003, greeting(&ground.issued, "good"));
    ground.host().start();
    for _ in 0..3 {
        assert_eq!(ground.host().open(PORT).read(4), b"good");
    }
}

#[test]
fn a_check_of_a_pod_in_tls_shakes_hands() {
    let ground = Ground::securing("");
    let expired = ground.ca.issue_expired(&[NAME]);
    let bad = ground.host().pod(POD, greeting(&expired, "expired"));
    ground.host().conf("HEALTH", "tcp/200ms").start();
    let is_up = || ground.host().status()["pods"][0]["up"] == true;
    eventually(SOON, "a pod with an expired certificate is down", || {
        !is_up()
    });
    bad.stop();
    ground.host().pod(POD, greeting(&ground.issued, "good"));
    eventually(SOON, "one with a good certificate is up", is_up);
    assert_eq!(ground.host().open(PORT).read(4), b"good");
}
