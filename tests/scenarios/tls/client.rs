//! Clients in TLS: who is let in, who is told what.

use super::{Ground, NAME, PORT, SOON};
use snproxy_tests::{Ca, Ended, Issued, Pod, TlsConn, TlsEnded, eventually};
use std::process::Command;

#[test]
fn openssl_as_the_client_in_either_version() {
    let ground = Ground::terminating("", Pod::echo());
    ground.host().start();
    let at = ground.host().port(PORT);
    for version in ["-tls1_2", "-tls1_3"] {
        let script = format!(
            "(echo hello; sleep 1) | timeout 20 openssl s_client -connect {at} -servername {NAME} -verify_hostname {NAME} \
             -CAfile tls/ca.pem -cert tls/cert.pem -key tls/key.pem -verify_return_error -quiet -no_ign_eof {version}"
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", &script])
            .current_dir(ground.host().folder());
        let told = ground.net.client().namespace().output(&mut command);
        let text = String::from_utf8_lossy(&told.stdout);
        let error = String::from_utf8_lossy(&told.stderr);
        assert_eq!(text, "hello\n", "{version}: {error}");
    }
}

/// Whether a client is served; one that is not is counted.
pub(super) fn is_served(ground: &Ground, conn: std::io::Result<TlsConn>) -> bool {
    let Ok(conn) = conn else { return false };
    // In TLS 1.3 a client is done before it hears that its certificate is none.
    if conn.half_close().ended() == TlsEnded::Closed {
        return true;
    }
    eventually(SOON, "the end is counted", || {
        ground.host().ends("tls_client") > 0
    });
    false
}

#[test]
fn who_has_to_show_a_certificate() {
    let stranger = Ca::new("another authority");
    for (options, nameless_too, lax) in [
        ("", false, false),
        ("verify=optional", true, false),
        ("verify=none", true, true),
    ] {
        let ground = Ground::terminating(options, Pod::echo());
        ground.host().start();
        let nameless = || {
            let conn = ground.host().open(PORT);
            TlsConn::connect(conn, ground.issued.nameless_client(), NAME)
        };
        let of = |issued: Issued| ground.open(&issued.believing(&ground.ca));
        assert!(is_served(&ground, ground.open(&ground.issued)), "{options}");
        assert_eq!(is_served(&ground, nameless()), nameless_too, "{options}");
        let wrong = stranger.issue(&["a client"]);
        assert_eq!(is_served(&ground, of(wrong)), lax, "{options}");
        let expired = ground.ca.issue_expired(&["a client"]);
        assert_eq!(is_served(&ground, of(expired)), lax, "{options}");
        let log = ground.host().log();
        let is_loud = log.contains(&format!("warning: {options}: "));
        assert_eq!(is_loud, options == "verify=optional", "{log}");
    }
}

#[test]
fn who_speaks_no_tls_is_told_and_closed() {
    let ground = Ground::terminating("", Pod::echo());
    ground.host().start();
    let conn = ground.host().open(PORT);
    conn.send("GET / HTTP/1.0\r\n\r\n");
    let (told, ended) = conn.rest(SOON);
    // An alert record, and no reset that could take it back.
    assert_eq!((told.first(), ended), (Some(&21), Ended::Eof), "{told:?}");
    eventually(SOON, "the end is counted", || {
        ground.host().ends("tls_client") == 1
    });
    let log = ground.host().log();
    assert!(log.contains("TLS handshakes of clients fail"), "{log}");
}

#[test]
fn a_handshake_that_never_ends_is_ended() {
    let ground = Ground::terminating("", Pod::echo());
    ground.host().conf("TLSTIMEOUT", "300ms").start();
    let silent = ground.host().open(PORT);
    let slow = ground.host().open(PORT);
    slow.send([22, 3, 1, 2, 0, 1]);
    assert_eq!(silent.ended(), Ended::Eof);
    assert_eq!(slow.ended(), Ended::Eof);
    eventually(SOON, "both ends are counted", || {
        ground.host().ends("tls_timeout") == 2
    });
    ground.tls().send("still served").read(12);
}

#[test]
fn a_protocol_that_both_know_is_agreed_upon() {
    let ground = Ground::terminating("alpn=h2,http/1.1", Pod::echo());
    ground.host().start();
    let ask = |protocols: &[&str]| {
        let mut config = (*ground.issued.client()).clone();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        TlsConn::connect(ground.host().open(PORT), config.into(), NAME)
    };
    assert_eq!(ask(&["http/1.1"]).unwrap().protocol().unwrap(), "http/1.1");
    let both = ask(&["http/1.1", "h2"]).unwrap();
    assert_eq!(both.protocol().unwrap(), "h2");
    assert_eq!(ask(&[]).unwrap().protocol(), None);
    assert!(ask(&["redis"]).is_err());
}
