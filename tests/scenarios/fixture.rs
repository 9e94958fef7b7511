//! The ground the other scenarios stand on, without snproxy: what a word promises, it does.

use snproxy_tests::{
    Attempt, Conn, Ended, Namespace, Net, PROXY_PORT, Peer, Pod, eventually, request_for,
};
use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(300);

#[test]
fn a_pod_is_reached_from_the_client_over_both_families() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let pod = host.pod(30000, Pod::answering("a"));

    for (at, from) in [
        (host.port(30000), client.v4()),
        (host.port6(30000), client.v6()),
    ] {
        let conn = client.open(at);
        assert_eq!(conn.greeting(), "a");
        assert_eq!(pod.last_visit().peer(), conn.local());
        assert_eq!(pod.last_visit().peer().ip(), from);
    }
    assert_eq!(pod.accepted(), 2);
}

#[test]
fn hosts_reach_each_other_and_nets_do_not_meet() {
    let one = Net::hosts(["a", "b", "c"]);
    let other = Net::hosts(["a"]);
    let pods = ["a", "b", "c"].map(|name| one.host(name).pod(30000, Pod::answering(name)));

    for name in ["a", "b", "c"] {
        let from_b = one.host("b").open_locally(one.host(name).port(30000));
        assert_eq!(from_b.greeting(), name);
    }
    // The same address, but in the other net nobody listens there.
    assert_eq!(other.host("a").port(30000), one.host("a").port(30000));
    assert!(other.host("a").is_refused(30000));
    assert_eq!(pods.map(|pod| pod.accepted()), [1, 1, 1]);
}

#[test]
fn refused_and_unanswered_are_told_apart() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30001, Pod::refusing());
    host.pod(30002, Pod::clogged());

    assert!(host.is_refused(30000), "nobody has this port");
    assert!(host.is_refused(30001), "held by a pod that does not listen");
    let unanswered = net.client().attempt_within(host.port(30002), MOMENT);
    assert!(matches!(unanswered, Attempt::TimedOut), "{unanswered:?}");
}

#[test]
fn a_reset_is_told_from_a_fin() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering_once("bye"));
    host.pod(30001, Pod::resetting());
    let recording = host.pod(30002, Pod::recording());

    let ended = host.open(30000).rest(SOON);
    assert_eq!(ended, (b"bye\n".to_vec(), Ended::Eof));
    assert_eq!(host.open(30001).send("x").ended(), Ended::Reset);

    host.open(30002).send("in order").half_close();
    assert_eq!(recording.visit(0).wait_for_end(), Ended::Eof);
    let conn = host.open(30002);
    conn.send("abort");
    assert_eq!(recording.visit(1).wait_for_bytes(5), b"abort");
    conn.reset();
    assert_eq!(recording.visit(1).wait_for_end(), Ended::Reset);
}

#[test]
fn a_half_close_leaves_the_way_back_open() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::returning());

    let conn = host.open(30000);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    conn.send(&sent);
    assert!(conn.stays_quiet(MOMENT), "it answers only after the FIN");
    assert!(conn.half_close().read_to_end() == sent);
    assert_eq!(pod.last_visit().received(), 1_000_000);
    assert_eq!(pod.last_visit().first_bytes(), sent[..4096]);
}

#[test]
fn an_echo_and_a_silent_pod() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::echo());
    let silent = host.pod(30001, Pod::silent());

    let conn = host.open(30000);
    assert_eq!(conn.send("there and back\n").line(), "there and back");
    assert_eq!(conn.half_close().ended(), Ended::Eof);

    let conn = host.open(30001);
    let offered = vec![0; 64 << 20];
    let taken = conn.offer(&offered, MOMENT);
    assert!(
        taken < offered.len(),
        "a pod that does not read stops the sender, here after {taken} bytes"
    );
    assert_eq!(silent.inside(), 1);
    // A FIN would wait behind the bytes that nobody takes.
    conn.reset();
    eventually(SOON, "the visitor left", || silent.inside() == 0);
}

#[test]
fn a_pod_counts_who_is_inside_at_once() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("a").expecting_at_most(1));

    // One after the other, each closed before the next opens: never two at once.
    for _ in 0..200 {
        assert_eq!(host.open(30000).greeting(), "a");
    }
    assert_eq!((pod.accepted(), pod.most_inside()), (200, 1));

    let open: Vec<Conn> = (0..20).map(|_| host.open(30000)).collect();
    eventually(SOON, "all are in", || pod.most_inside() == 20);
    assert_eq!(pod.inside(), 20);
    drop(open);
    eventually(SOON, "all are out", || pod.inside() == 0);
}

#[test]
fn a_pod_stops_and_comes_back() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("a"));
    let conn = host.open(30000);
    assert_eq!(conn.greeting(), "a");

    pod.stop();
    assert_eq!(conn.ended(), Ended::Eof);
    assert!(host.is_refused(30000));

    host.pod(30000, pod.clone());
    assert_eq!(host.open(30000).greeting(), "a");
    assert_eq!(pod.accepted(), 2);
}

#[test]
fn nginx_logs_what_a_proxy_header_said() {
    let net = Net::one();
    let host = net.host("host");
    let nginx = host.nginx(
        30000,
        "proxy_protocol",
        "$proxy_protocol_addr:$proxy_protocol_port",
    );

    let conn = host.open(30000);
    conn.send("PROXY TCP4 192.0.2.7 10.77.0.1 4711 1024\r\nGET / HTTP/1.0\r\n\r\n");
    let answer = String::from_utf8(conn.read_to_end()).expect("text");
    assert!(answer.ends_with("192.0.2.7:4711\n"), "{answer}");
    nginx.wait_for_line(SOON, "192.0.2.7:4711");
}

#[test]
fn nginx_carries_streams_as_well() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("behind"));
    let to = host.port(30000);
    let _nginx = host.namespace().nginx(
        30001,
        &format!("stream {{ server {{ listen 30001; proxy_pass {to}; }} }}"),
    );

    assert_eq!(host.open(30001).greeting(), "behind");
}

#[test]
fn haproxy_and_curl_send_proxy_headers() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let pod = host.pod(30000, Pod::recording());
    let nginx = host.nginx(30001, "proxy_protocol", "$proxy_protocol_addr");
    let port = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));

    let _v2 = client.haproxy(20000, host.port(30000), "send-proxy-v2");
    client.open(port(20000)).send("payload").half_close();
    assert_eq!(pod.visit(0).wait_for_end(), Ended::Eof);
    let first = pod.visit(0).first_bytes();
    assert_eq!(first[..12], *b"\r\n\r\n\0\r\nQUIT\n");
    assert!(first.ends_with(b"payload"));

    let _v1 = client.haproxy(20001, host.port(30000), "send-proxy");
    client.open(port(20001)).send("payload").half_close();
    assert_eq!(pod.visit(1).wait_for_end(), Ended::Eof);
    assert!(
        pod.last_visit()
            .first_bytes()
            .starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")
    );

    let url = format!("http://{}/", host.port(30001));
    assert_eq!(
        client.curl(&["--haproxy-protocol", &url]).trim(),
        client.v4().to_string()
    );
    nginx.wait_for_line(SOON, &client.v4().to_string());
}

#[test]
fn a_client_chooses_its_address_and_port() {
    let net = Net::new(&["host"], 2);
    let (host, client) = (net.host("host"), net.nth_client(1));
    client.add_address("10.77.0.200/24");
    let pod = host.pod(30000, Pod::answering("a"));

    let from = SocketAddr::from(([10, 77, 0, 200], 4000));
    let conn = client
        .attempt_from(from, host.port(30000))
        .connected()
        .expect("connected");
    assert_eq!(conn.greeting(), "a");
    assert_eq!(pod.last_visit().peer(), from);
}

#[test]
fn files_are_replaced_in_three_ways() {
    let net = Net::one();
    let host = net.host("host");
    let read = |file: &str| fs::read_to_string(host.folder().join(file)).expect(file);

    assert_eq!(read("hosts.conf"), "10.77.0.1:32767\n");
    assert!(read("proxy.conf").contains("HOST 10.77.0.1\n"));
    host.conf("CLUSTERPORTS", "1024-2000").without("ADMIN");
    assert_eq!(
        read("proxy.conf"),
        "CLUSTERPORTS 1024-2000\nHOST 10.77.0.1\n"
    );

    let file = "portmappings.conf";
    host.mappings("1024:30000:1:false\n");
    assert_eq!(read(file), "1024:30000:1:false\n");
    host.overwrite(file, "1025:30000:1:false\n");
    assert_eq!(read(file), "1025:30000:1:false\n");
    for text in ["1026:30000:1:false\n", "1027:30000:1:false\n"] {
        host.swap(file, text);
        assert_eq!(read(file), text);
        assert_eq!(
            fs::read_link(host.folder().join(file)).expect("a link"),
            Path::new("..data").join(file)
        );
    }
}

#[test]
fn a_program_is_heard_signalled_and_ended() {
    let net = Net::one();
    let namespace = net.host("host").namespace();
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "trap 'echo term; exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.05; done",
    ]);
    let process = snproxy_tests::Process::spawn(namespace, "sh", &mut shell);

    process.wait_for_line(SOON, "out");
    process.wait_for_line(SOON, "err");
    assert_eq!(process.exit_status(), None);
    assert!(process.rss() > 0 && process.descriptors() >= 3);
    assert_eq!(process.stop(SOON).code(), Some(3));
    assert!(process.log().contains("term\n"));
}

#[test]
fn nothing_is_left_behind_by_a_panic() {
    let mut left = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let net = Net::one();
        let host = net.host("host");
        let nginx = host.nginx(30000, "", "here");
        let name = |namespace: &Namespace| Path::new("/run/netns").join(namespace.name());
        let paths: [PathBuf; 4] = [
            name(host.namespace()),
            name(net.client().namespace()),
            host.folder().to_owned(),
            Path::new("/proc").join(nginx.pid().to_string()),
        ];
        assert!(paths.iter().all(|path| path.exists()), "{paths:?}");
        left = Some(paths);
        panic!("this panic is part of the test");
    }));
    assert!(panicked.is_err());
    for path in left.expect("it came as far as the panic") {
        assert!(!path.exists(), "{} is still there", path.display());
    }
}

#[test]
fn a_namespace_tells_who_listens_without_a_connect() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod_at(host.port(30000), Pod::echo());

    assert!(host.namespace().listens(30000));
    assert!(!host.namespace().listens(30001));
    assert!(!net.client().namespace().listens(30000));
    assert_eq!(pod.accepted(), 0);
}

/// Stands in for snproxy where the words that start and ask it are tried.
const STAND_IN: &str = r#"#!/bin/sh
case "$1" in
status) echo '{"kernel": {"steered": 7}, "conf": "'$3'"}';;
ports) echo '{"ranges": [{"first": 1024, "last": 1024, "action": "steer"}, {"first": 1025, "last": 2000, "action": "refuse"}]}';;
reload) echo "portmappings.conf:1:1: error: no" >&2; exit 1;;
*)
    trap 'echo drained >&2; exit 0' TERM
    cat /proc/self/status >&2
    echo "nofile $(ulimit -n), mark $MARK" >&2
    echo "2026-01-01 INFO snproxy ready: 1 port" >&2
    while :; do sleep 0.05; done;;
esac
"#;

#[test]
fn a_host_starts_asks_and_stops_its_proxy() {
    let net = Net::one();
    let host = net.host("host");
    host.replace("stand-in", STAND_IN)
        .binary(&host.folder().join("stand-in"));
    let executable = Permissions::from_mode(0o755);
    fs::set_permissions(host.folder().join("stand-in"), executable).expect("mode of the stand-in");

    host.limit_nofile(64).env("MARK", "here").start();
    assert!(
        host.log().contains("nofile 64, mark here"),
        "{}",
        host.log()
    );
    assert!(host.ready_after() < SOON && host.rss() > 0);
    assert_eq!(host.steered(), 7);
    assert_eq!(
        [1023, 1024, 1500].map(|port| host.action(port)),
        ["", "steer", "refuse"]
    );
    let reload = host.reload();
    assert_eq!(reload.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&reload.stderr).contains("portmappings.conf:1:1"));
    let snproxy = host.snproxy();
    assert_eq!(host.stop().code(), Some(0));
    assert!(snproxy.log().ends_with("drained\n"), "{}", snproxy.log());

    host.as_user(1000, &["net_admin", "bpf"]).start();
    let log = host.log();
    let value = |key: &str| {
        log.lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    assert!(value("Uid:").starts_with("1000"), "{log}");
    // CAP_NET_ADMIN is 12, CAP_BPF is 39.
    assert_eq!(
        u64::from_str_radix(&value("CapEff:"), 16),
        Ok(1 << 12 | 1 << 39),
        "{log}"
    );
    host.crash();
    host.as_user(1000, &[]).start();
    assert!(
        host.log().contains("CapEff:\t0000000000000000"),
        "{}",
        host.log()
    );
}

#[test]
fn thousands_of_connections_at_once() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("a"));
    let to = host.port(30000);

    let conns: Vec<Conn> = thread::scope(|scope| {
        let open = || {
            net.client().run(|| {
                (0..1000)
                    .map(|_| Conn::connect(to, SOON).expect("connect"))
                    .collect()
            })
        };
        let opening: Vec<_> = (0..2).map(|_| scope.spawn(open)).collect();
        opening
            .into_iter()
            .flat_map(|thread| -> Vec<Conn> { thread.join().expect("join") })
            .collect()
    });
    eventually(SOON, "all are in", || pod.most_inside() == 2000);
    assert_eq!(pod.inside(), 2000);
    assert!(conns.iter().all(|conn| conn.greeting() == "a"));
    drop(conns);
    eventually(SOON, "all are out", || pod.inside() == 0);
}

#[test]
fn a_scripted_peer_reads_a_line_answers_and_remembers() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let peer = b.peer(Peer::scripted(|port, guest| {
        if port == 1024 {
            guest.dribble(b"SENDPROXY=false\r\n");
            guest.read_all();
        }
    }));

    let conn = a.call(b);
    conn.send(request_for(1024) + "early");
    assert_eq!(conn.line(), "SENDPROXY=false");
    conn.send(" and late");
    let call = peer.call_for(1024);
    assert_eq!(call.wait_for_payload(14), b"early and late");
    conn.reset();
    assert_eq!(call.line(), b"PROXY TCP4 1.2.3.4 1.2.3.4 123 1024\r\n");
    assert_eq!((call.reads(), call.from().ip()), (1, a.v4()));
    assert_eq!(call.wait_for_end(), Ended::Reset);

    for no in [&request_for(1025), "PROXY TCP4 1.2.3.4 1.2.3.4 1024 0\r\n"] {
        let conn = a.call(b);
        assert_eq!(conn.send(no).rest(SOON), (Vec::new(), Ended::Eof));
    }
    assert_eq!((peer.calls().len(), peer.questions()), (2, 1));
    // A line in pieces, from elsewhere.
    let conn = net.client().open(b.port(PROXY_PORT));
    conn.dribble(request_for(1024));
    assert!(peer.call(2).reads() > 1);
    assert_eq!(peer.call(2).from(), conn.local());
}
