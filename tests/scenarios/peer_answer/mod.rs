//! What snproxy answers to other proxies on PORT, byte for byte.

mod hostile;
mod pipe;
mod strangers;

use snproxy_tests::{Conn, Ended, Host, Net, PROXY_PORT, Pod, check, eventually, request_for};
use std::{thread, time::Duration};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(500);
/// How long a line may take.
const LINE: Duration = Duration::from_secs(3);
const TRUE: &[u8] = b"SENDPROXY=true\r\n";
const FALSE: &[u8] = b"SENDPROXY=false\r\n";
/// Other proxies read up to here; we read more.
const LONGEST_LINE: usize = 107;

/// Hosts `a`, whose snproxy is asked, and `b`, which asks from where its own proxy would.
fn two_hosts() -> Net {
    Net::hosts(["a", "b"])
}

/// `a` with this pod on ports 1024 to 1026: for a pod that wants no header, v1, v2.
fn one_pod(net: &Net, pod: Pod) -> (&Host, &Host, Pod) {
    let (a, b) = (net.host("a"), net.host("b"));
    let pod = a.pod(30000, pod);
    a.mappings("1024:30000:100:false 1025:30000:100:true 1026:30000:100:v2\n");
    (a, b, pod)
}

/// All that comes back for these bytes and FIN, and how it ends.
#[track_caller]
fn answer(conn: &Conn, bytes: impl AsRef<[u8]>) -> (Vec<u8>, Ended) {
    conn.send(bytes).half_close().rest(SOON)
}

/// Closed in order, without a byte: the wire protocol's no.
fn no() -> (Vec<u8>, Ended) {
    (Vec::new(), Ended::Eof)
}

#[test]
fn a_request_is_answered_however_it_comes() {
    let net = two_hosts();
    let (a, b, pod) = one_pod(&net, Pod::returning());
    a.start();

    let ports = [(1024, FALSE), (1025, TRUE), (1026, TRUE)];
    let mut visits = 0;
    for (port, expected) in ports {
        let line = request_for(port);
        let whole = [expected, b"payload"].concat();
        let conns = [(); 4].map(|()| b.call(a));
        let [at_once, bytewise, behind, split] = &conns;
        // The answer is there before a byte of payload is.
        at_once.send(&line);
        check(&at_once.read(expected.len()), expected);
        at_once.send("payload");
        bytewise.dribble(line.clone() + "payload");
        behind.send(line.clone() + "payload");
        // The end of the line comes with the payload.
        split.send(&line[..line.len() - 1]);
        thread::sleep(MOMENT / 10);
        split.send("\npayload");
        for (conn, rest) in [
            (at_once, &b"payload"[..]),
            (bytewise, &whole),
            (behind, &whole),
            (split, &whole),
        ] {
            let (got, ended) = conn.half_close().rest(SOON);
            check(&got, rest);
            assert_eq!(ended, Ended::Eof);
        }
        for visit in visits..visits + 4 {
            assert_eq!(pod.visit(visit).first_bytes(), b"payload");
            assert_eq!(pod.visit(visit).local().port(), 30000);
        }
        visits += 4;
    }
    eventually(SOON, "twelve clean ends", || a.ends("clean") == 12);
    assert_eq!(a.steered(), 0, "PORT is reached without steering");
}

#[test]
fn only_the_port_of_a_request_matters() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::returning());
    a.start();

    let filler = |len: usize| {
        let rest = "PROXY TCP4 ".len() + " y 123 1024\r\n".len();
        format!("PROXY TCP4 {} y 123 1024\r\n", "x".repeat(len - rest)).into_bytes()
    };
    let mut lines: Vec<Vec<u8>> = [
        "PROXY TCP4 10.77.0.101 10.77.0.1 4711 1024\r\n",
        "PROXY TCP4 255.255.255.255 255.255.255.255 65535 1024\r\n",
        "PROXY TCP4 what ever else 1024\r\n",
        "PROXY TCP4 fd77::101 fd77::1 0 1024\r\n",
        "PROXY TCP4 - - -1 1024\r\n",
    ]
    .map(Vec::from)
    .into();
    lines.push(b"PROXY TCP4 \xff\xfe\0 \x7f 1e9 1024\r\n".to_vec());
    lines.push(filler(56));
    lines.push(filler(57));
    lines.push(filler(LONGEST_LINE));
    for line in lines {
        let expected = [FALSE, b"x"].concat();
        assert_eq!(
            answer(&b.call(a), [&line[..], b"x"].concat()),
            (expected, Ended::Eof),
            "{}",
            line.escape_ascii()
        );
    }

    let too_long = filler(LONGEST_LINE + 1);
    let conn = b.call(a);
    let _ = conn.send(&too_long[..LONGEST_LINE]);
    assert_eq!(conn.rest(LINE / 2), no(), "no line ends within 107 bytes");
    eventually(SOON, "a request that is none", || a.ends("request") == 1);
}

#[test]
fn what_is_no_request_is_closed_without_a_byte() {
    let net = two_hosts();
    let (a, b, pod) = one_pod(&net, Pod::answering("pod"));
    a.start();

    let port = |port: &str| format!("PROXY TCP4 1.2.3.4 1.2.3.4 123 {port}\r\n").into_bytes();
    let mut requests: Vec<Vec<u8>> = [
        "PROXY TCP6 ::1 ::1 123 1024\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN 1.2.3.4 1.2.3.4 123 1024\r\n",
        "proxy tcp4 1.2.3.4 1.2.3.4 123 1024\r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 123 1024\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1024\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 123 1024 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 123 1024 1024\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 123 1024\n\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n",
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    ]
    .map(Vec::from)
    .into();
    requests.extend(
        [
            "",
            "+5",
            "+1024",
            "-1",
            "01024",
            "65536",
            "99999999999999999999",
            "1024x",
            "0x400",
        ]
        .map(port),
    );
    // No question either: those are asked with the constants.
    requests.push(b"PROXY TCP4 10.77.0.101 10.77.0.1 1024 0\r\n".to_vec());
    requests.push((0..=255).collect());
    for request in &requests {
        let conn = b.call(a);
        conn.send(request);
        // It is told at the first impossible byte, not when a whole line's time is up; the rest may be unread then.
        let (got, ended) = conn.rest(LINE / 2);
        let shown = request.escape_ascii();
        check(&got, b"");
        assert_ne!(ended, Ended::Open, "{shown}");
    }
    // It takes one byte to know.
    let conn = b.call(a);
    assert_eq!(conn.send("G").rest(LINE / 2), no());
    let count = requests.len() as u64 + 1;
    eventually(SOON, "an end for each", || a.ends("request") == count);
    assert_eq!(pod.accepted(), 0);
    assert_eq!(a.count("/connections/live"), 0);
}

#[test]
fn a_slow_line_has_three_seconds_and_silence_has_more() {
    let net = two_hosts();
    let (a, b, _) = one_pod(&net, Pod::answering("pod"));
    a.start();

    let silent = b.call(a);
    let begun = b.call(a);
    begun.send("PROXY TCP4 1.2.3.4");
    // A byte now and then is no reason to wait for longer.
    let slow = b.call(a);
    let slow_ended = thread::scope(|scope| {
        let begun = scope.spawn(|| begun.rest(2 * LINE));
        let line = request_for(1024);
        let mut pieces = line.as_bytes().chunks(1);
        let slow_ended = loop {
            let Some(piece) = pieces.next() else {
                panic!("a line of {} bytes had time", line.len());
            };
            slow.send(piece);
            match slow.rest(LINE / 8) {
                (got, Ended::Open) => check(&got, b""),
                ended => break ended,
            }
        };
        assert_eq!(begun.join().expect("join"), no());
        slow_ended
    });
    // A byte may have crossed the close.
    assert!(slow_ended.0.is_empty(), "{slow_ended:?}");
    eventually(SOON, "two lines that were none", || a.ends("request") == 2);

    assert!(silent.stays_quiet(LINE));
    silent.send(request_for(1024));
    assert_eq!(silent.line(), "SENDPROXY=false");
    assert_eq!(silent.greeting(), "pod");
}

#[test]
fn a_full_host_says_busy_and_then_closes() {
    let net = two_hosts();
    let (a, b) = (net.host("a"), net.host("b"));
    a.pod(30000, Pod::answering("pod"));
    a.mappings("1024:30000:1:false\n1025:30000:0:true\n")
        .start();
    let busy = || (b"BUSY\r\n".to_vec(), Ended::Eof);

    assert_eq!(answer(&b.call(a), request_for(1025)), busy());
    let inside = a.open(1024);
    assert_eq!(inside.greeting(), "pod");
    assert_eq!(answer(&b.call(a), request_for(1024)), busy());
    // Bytes that nobody will read must not turn the answer into a reset.
    let conn = b.call(a);
    conn.send([request_for(1024).into_bytes(), vec![b'x'; 32 << 10]].concat());
    assert_eq!(conn.rest(SOON), busy());
    // Also without a FIN of the caller.
    let conn = b.call(a);
    assert_eq!(conn.send(request_for(1024)).rest(SOON), busy());
    eventually(SOON, "four are told", || a.ends("busy") == 4);

    // Peers and clients share the places.
    drop(inside);
    let paired = || {
        let conn = b.call(a);
        conn.send(request_for(1024));
        (conn.line() == "SENDPROXY=false").then_some(conn)
    };
    let mut peer = None;
    eventually(SOON, "the place is free again", || {
        peer = paired();
        peer.is_some()
    });
    assert!(paired().is_none());
    drop(peer);
    eventually(SOON, "and again", || paired().is_some());
}

#[test]
fn a_port_without_a_live_pod_here_is_closed_without_a_byte() {
    let net = two_hosts();
    let (a, b) = (net.host("a"), net.host("b"));
    let pod = a.pod(30000, Pod::answering("pod"));
    a.pod(30001, Pod::refusing());
    a.mappings("1024:30000:9:false\n1025:30001:9:false\n1026:30001:9:false 1026:30000:9:true\n")
        .start();

    for _ in 0..3 {
        assert_eq!(answer(&b.call(a), request_for(1025)), no());
        assert_eq!(answer(&b.call(a), request_for(2000)), no());
        // PORT itself and ports outside of CLUSTERPORTS are mapped nowhere.
        assert_eq!(answer(&b.call(a), request_for(PROXY_PORT)), no());
        assert_eq!(answer(&b.call(a), request_for(80)), no());
        // Another pod of the port lives.
        assert_eq!(
            answer(&b.call(a), request_for(1026)).0,
            [TRUE, b"pod\n"].concat()
        );
    }
    eventually(SOON, "ends of dead pods", || a.ends("no_upstream") == 3);
    assert_eq!(a.ends("not_mapped"), 9);

    pod.stop();
    eventually(SOON, "a pod that stopped is not there", || {
        answer(&b.call(a), request_for(1024)) == no()
    });
}

#[test]
fn peers_ask_over_ipv6_as_well() {
    let net = two_hosts();
    let (a, b, pod) = one_pod(&net, Pod::returning());
    a.conf("HOST", "::")
        .hosts("[fd77::1]:32767\n[fd77::2]:32767\n")
        .start();

    let conn = b.open_locally(a.port6(PROXY_PORT));
    assert_eq!(
        answer(&conn, request_for(1025) + "payload"),
        ([TRUE, b"payload"].concat(), Ended::Eof)
    );
    assert_eq!(pod.visit(0).first_bytes(), b"payload");
    // Its IPv4 address is in nobody's list.
    assert_eq!(answer(&b.call(a), request_for(1025)).0, b"");
    eventually(SOON, "a stranger", || a.ends("stranger") == 1);
}

/// Asks how many pods there are.
fn question(port: u16) -> String {
    format!("PROXY TCP4 1.2.3.4 1.2.3.4 {port} 0\r\n")
}

#[test]
fn questions_are_answered_one_after_the_other_and_a_request_may_follow() {
    let net = two_hosts();
    let (a, b) = (net.host("a"), net.host("b"));
    a.pod(30000, Pod::returning());
    a.pod(30001, Pod::returning());
    a.mappings("1024:30000:9:false\n1024:30001:9:false\n1025:30000:9:true\n")
        .start();

    let conn = b.call(a);
    for (port, pods) in [(1024, 2), (1025, 1), (2000, 0), (1024, 2)] {
        conn.send(question(port));
        assert_eq!(conn.line(), format!("PODS={pods}"));
    }
    // It is kept meanwhile, for longer than a line has time.
    assert!(conn.stays_quiet(LINE + MOMENT));
    conn.dribble(question(1025));
    assert_eq!(conn.line(), "PODS=1");
    assert_eq!(
        answer(
            &conn,
            question(1024) + &question(2000) + &request_for(1025) + "payload"
        ),
        (
            b"PODS=2\r\nPODS=0\r\nSENDPROXY=true\r\npayload".to_vec(),
            Ended::Eof
        )
    );

    // A caller that has asked and leaves has not asked for nothing.
    let conn = b.call(a);
    assert_eq!(
        answer(&conn, question(1024)),
        (b"PODS=2\r\n".to_vec(), Ended::Eof)
    );
    assert_eq!(answer(&b.call(a), ""), no());
    eventually(SOON, "one who asked for nothing", || a.ends("unused") >= 1);
    assert_eq!(a.count("/connections/live"), 0);
}
