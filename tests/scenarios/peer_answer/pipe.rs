//! Once the line is answered: a blind pipe.

use super::{FALSE, LINE, MOMENT, SOON, TRUE, answer, check, no, one_pod, two_hosts};
use snproxy_tests::{Ended, Guest, Pod, eventually, request_for};

#[test]
fn what_follows_the_line_reaches_the_pod_as_it_came() {
    let net = two_hosts();
    let (a, b, pod) = one_pod(&net, Pod::recording());
    // What is believed of clients is not asked of peers.
    a.conf("CLIENTPROXY", "require").start();

    let header = b"PROXY TCP4 192.0.2.7 10.77.0.2 4711 1024\r\n".to_vec();
    let payloads = [
        [&header[..], b"payload"].concat(),
        header.clone(),
        [header.clone(), header.clone()].concat(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PRO".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0payload".to_vec(),
        request_for(1025).into_bytes(),
        (0..=255).collect(),
        Vec::new(),
    ];
    for payload in &payloads {
        for port in [1024, 1025] {
            for behind in [true, false] {
                let visit = pod.accepted();
                let conn = b.call(a);
                conn.send(request_for(port));
                if !behind {
                    conn.line();
                    conn.dribble(payload);
                } else if !payload.is_empty() {
                    conn.send(payload);
                }
                conn.half_close();
                assert_eq!(pod.visit(visit).wait_for_end(), Ended::Eof);
                check(&pod.visit(visit).first_bytes(), payload);
            }
        }
    }

    // A caller of the original's kind that begins what may be a header and waits is not waited for.
    for port in [1024, 1025] {
        let visit = pod.accepted();
        let conn = b.call(a);
        conn.send(request_for(port) + "PRO");
        check(&pod.visit(visit).wait_for_bytes(3), b"PRO");
    }
}

#[test]
fn a_pod_that_wants_v2_gets_it_for_the_v1_of_a_peer() {
    let net = two_hosts();
    let (a, b, pod) = one_pod(&net, Pod::recording());
    a.start();
    let heard = |payload: &[u8]| {
        let visit = pod.accepted();
        let conn = b.call(a);
        conn.send([request_for(1026).as_bytes(), payload].concat());
        conn.half_close();
        assert_eq!(pod.visit(visit).wait_for_end(), Ended::Eof);
        pod.visit(visit).first_bytes()
    };

    let got = heard(b"PROXY TCP4 192.0.2.7 10.77.0.2 4711 1026\r\npayload");
    assert!(got.len() > 28, "{}", got.escape_ascii());
    check(&got[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    check(
        &got[16..28],
        &[192, 0, 2, 7, 10, 77, 0, 2, 0x12, 0x67, 4, 2],
    );
    assert!(got.ends_with(b"payload"), "{}", got.escape_ascii());
    let got = heard(b"PROXY TCP6 2001:db8::7 fd77::2 4711 1026\r\npayload");
    check(&got[12..14], b"\x21\x21");
    assert!(got.ends_with(b"payload"), "{}", got.escape_ascii());

    for payload in [
        &b"GET / HTTP/1.0\r\n\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0payload",
        b"PROXY TCP5 192.0.2.7 10.77.0.2 4711 1026\r\npayload",
        b"PRO",
        b"",
    ] {
        check(&heard(payload), payload);
    }
}

#[test]
fn ends_of_both_kinds_pass_both_ways() {
    let net = two_hosts();
    let (a, b, returning) = one_pod(&net, Pod::returning());
    a.pod(30001, Pod::answering_once("bye"));
    a.pod(30002, Pod::resetting());
    a.mappings("1024:30000:9:false\n1025:30001:9:true\n1026:30002:9:false\n")
        .start();
    let paired = |port| {
        let conn = b.call(a);
        conn.send(request_for(port));
        assert!(conn.line().starts_with("SENDPROXY="));
        conn
    };

    // The caller's FIN leaves the way back open, the pod's the way there.
    let conn = paired(1024);
    conn.send(vec![7; 1 << 20]).half_close();
    assert_eq!(conn.read_to_end().len(), 1 << 20);
    let conn = paired(1025);
    assert_eq!(conn.rest(SOON), (b"bye\n".to_vec(), Ended::Eof));
    conn.send("more").half_close();
    eventually(SOON, "two clean ends", || a.ends("clean") == 2);

    assert_eq!(paired(1026).send("x").ended(), Ended::Reset);
    let conn = paired(1024);
    conn.send("x");
    returning.visit(1).wait_for_bytes(1);
    conn.reset();
    assert_eq!(returning.visit(1).wait_for_end(), Ended::Reset);
    eventually(SOON, "two resets", || {
        (a.ends("upstream"), a.ends("client")) == (1, 1)
    });
}

#[test]
fn a_banner_follows_the_answer_and_a_silent_pod_is_paired_all_the_same() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::banner("220 ready\r\n"));
    a.pod(30001, Pod::silent());
    a.mappings("1024:30000:9:false\n1025:30000:9:true\n1026:30001:9:true\n")
        .start();

    for (port, expected) in [(1024, FALSE), (1025, TRUE)] {
        let conn = b.call(a);
        conn.send(request_for(port));
        let whole = [expected, b"220 ready\r\n"].concat();
        check(&conn.read(whole.len()), &whole);
        assert!(conn.stays_quiet(MOMENT));
    }
    let conn = b.call(a);
    conn.send(request_for(1026));
    check(&conn.read(TRUE.len()), TRUE);
    assert!(conn.stays_quiet(MOMENT));
}

#[test]
fn a_pod_is_told_nothing_of_the_peer_and_dialled_at_once() {
    let net = two_hosts();
    let (a, b) = (net.host("a"), net.host("b"));
    // It ends when a connection has said anything at all: here the line says nothing to it.
    let pod = a.pod(
        30000,
        Pod::serving(|guest: &Guest| drop(guest.read(&mut [0; 64]))),
    );
    a.mappings("1024:30000:9:true\n").start();

    let conn = b.call(a);
    conn.send(request_for(1024));
    check(&conn.read(TRUE.len()), TRUE);
    assert!(conn.stays_quiet(LINE + MOMENT), "no header is made here");
    assert_eq!(pod.visit(0).received(), 0);
    assert_eq!(answer(&conn, "x"), no());
    check(&pod.visit(0).first_bytes(), b"x");
}
