//! Bytes, ends and limits through a pair of proxies: plain, TLS, plain.

use super::{Ground, NAME, POD, PORT, SOON, tls_pod};
use snproxy_tests::{Conn, Ended, Issued, Net, Noise, Pod, Process, TlsConn, TlsEnded, eventually};
use std::{process::Command, sync::atomic::AtomicU64, thread};

/// Where the way begins, on host a.
const ENTRY: u16 = 5001;

/// Host a speaks TLS to host b, where it ends; the pod is b's.
struct Pair {
    ground: Ground,
}

impl Pair {
    fn new(pod: Option<Pod>, keys: &[(&str, &str)]) -> Self {
        let ground = Ground::on(Net::hosts(["a", "b"]));
        let (a, b) = (ground.net.host("a"), ground.net.host("b"));
        for host in [a, b] {
            ground.issued.write_folder(&host.folder().join("tls"));
            host.hosts(&format!("{}:32767\n", host.v4()));
            for (key, value) in keys {
                host.conf(key, value);
            }
        }
        if let Some(pod) = pod {
            b.pod(POD, pod);
        }
        b.mappings("1024:30000:900:false\n");
        b.conf("CLIENTTLS", "1024 tls");
        a.mappings("");
        a.replace(
            "config.json",
            &format!(
                r#"{{"Apps":[{{"Name":"pair","Ports":[{ENTRY}],"UpstreamTls":"tls name={NAME}","Targets":["{}"]}}]}}"#,
                b.port(PORT)
            ),
        );
        a.conf("APPSCONF", "config.json");
        b.start();
        a.start();
        Self { ground }
    }

    fn open(&self) -> Conn {
        self.ground.net.host("a").open(ENTRY)
    }
}

#[test]
fn bulk_both_ways_is_the_same_at_the_other_end() {
    const BULK: u64 = 64 << 20;

    let pair = Pair::new(Some(Pod::echo()), &[]);
    let conn = pair.open();
    let (sent, heard) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            Noise::new(7)
                .pour(conn.stream(), BULK, &sent)
                .expect("pour");
            conn.half_close();
        });
        Noise::new(7)
            .hear(conn.stream(), BULK + 1, &heard)
            .is_whole(BULK);
    });
}

#[test]
fn either_end_may_be_first() {
    let pair = Pair::new(Some(Pod::returning()), &[]);
    let conn = pair.open();
    assert_eq!(
        conn.send("all of it").half_close().read_to_end(),
        b"all of it"
    );
    for host in pair.ground.net.all_hosts() {
        eventually(SOON, "a clean end", || host.ends("clean") == 1);
    }

    let pod = Pod::answering_once("bye");
    let pair = Pair::new(Some(pod.clone()), &[]);
    let conn = pair.open();
    // Nobody spoke before the pod did.
    assert_eq!(conn.read_to_end(), b"bye\n");
    conn.send("and yet").half_close();
    assert_eq!(pod.last_visit().wait_for_bytes(7), b"and yet");
    assert_eq!(pod.last_visit().wait_for_end(), Ended::Eof);
}

#[test]
fn a_reset_is_a_reset_at_the_other_end() {
    let pod = Pod::recording();
    let pair = Pair::new(Some(pod.clone()), &[]);
    let conn = pair.open();
    conn.send("before");
    pod.last_visit().wait_for_bytes(6);
    conn.reset();
    assert_eq!(pod.last_visit().wait_for_end(), Ended::Reset);

    let resets = Pod::serving(|guest| {
        let _ = guest.send(b"first");
        guest.read(&mut [0]).ok();
        guest.reset_on_close();
    });
    let pair = Pair::new(Some(resets), &[]);
    let conn = pair.open();
    assert_eq!(conn.read(5), b"first");
    conn.send("x");
    assert_eq!(conn.ended(), Ended::Reset);
}

#[test]
fn a_fin_without_a_word_is_a_reset() {
    let pod = Pod::recording();
    let ground = Ground::terminating("", pod.clone());
    ground.host().start();
    let tls = ground.tls();
    tls.send("half of it");
    tls.conn().half_close();
    assert_eq!(pod.last_visit().wait_for_bytes(10), b"half of it");
    assert_eq!(pod.last_visit().wait_for_end(), Ended::Reset);
    eventually(SOON, "the client's end", || {
        ground.host().ends("client") == 1
    });

    let ground = Ground::securing("");
    let cut = |issued: &Issued| {
        tls_pod(issued, |tls: &TlsConn| {
            tls.send("half of it");
            tls.conn().half_close();
            tls.ended();
        })
    };
    ground.host().pod(POD, cut(&ground.issued));
    ground.host().start();
    let (heard, ended) = ground.host().open(PORT).rest(SOON);
    assert_eq!(
        (heard.as_slice(), ended),
        (&b"half of it"[..], Ended::Reset)
    );
    eventually(SOON, "the upstream's end", || {
        ground.host().ends("upstream") == 1
    });
}

#[test]
fn what_a_pod_ends_is_said_in_tls() {
    let ground = Ground::terminating("", Pod::answering_once("bye"));
    ground.host().start();
    let tls = ground.tls();
    assert_eq!(tls.rest(SOON), (b"bye\n".to_vec(), TlsEnded::Closed));
    tls.half_close();
    eventually(SOON, "a clean end", || ground.host().ends("clean") == 1);
}

#[test]
fn limits_on_time_hold() {
    let pair = Pair::new(Some(Pod::echo()), &[("IDLETIMEOUT", "500ms")]);
    let conn = pair.open();
    assert_eq!(conn.send("hello").read(5), b"hello");
    assert_eq!(conn.ended(), Ended::Reset);
    let idle = || {
        pair.ground
            .net
            .all_hosts()
            .iter()
            .map(|host| host.ends("idle"))
            .sum::<u64>()
    };
    eventually(SOON, "an idle end", || idle() >= 1);
}

#[test]
fn a_silent_pod_is_noticed_where_its_client_talks_while_it_reads() {
    const BULK: usize = 16 << 20;
    const AT_ONCE: usize = 4;

    let ground = Ground::terminating(
        "",
        Pod::serving(|guest| {
            let _ = guest.send(&vec![7; BULK]);
            guest.read_all();
        }),
    );
    let host = ground.host();
    // Most of it waits in the proxy.
    host.namespace()
        .sysctl("ipv4/tcp_wmem", "4096 16384 262144");
    host.conf("UPSTREAMIDLETIMEOUT", "1s").start();
    let conns: Vec<_> = (0..AT_ONCE).map(|_| ground.tls()).collect();
    thread::scope(|scope| {
        for conn in conns {
            scope.spawn(move || {
                for _ in 0..BULK >> 14 {
                    conn.read(1 << 14);
                    conn.send("x");
                }
                assert_eq!(conn.ended(), TlsEnded::Reset);
            });
        }
    });
    assert_eq!(host.ends("upstream_idle"), AT_ONCE as u64);
}

#[test]
fn a_drain_lets_connections_end_and_cuts_the_rest() {
    let pair = Pair::new(Some(Pod::echo()), &[("DRAINTIMEOUT", "2s")]);
    let (ending, staying) = (pair.open(), pair.open());
    for conn in [&ending, &staying] {
        assert_eq!(conn.send("hello").read(5), b"hello");
    }
    let b = pair.ground.net.host("b");
    let process = b.snproxy();
    process.signal(rustix::process::Signal::TERM);
    process.wait_for_line(SOON, "draining");
    assert_eq!(ending.send("still").read(5), b"still");
    assert_eq!(ending.half_close().read_to_end(), b"");
    assert_eq!(staying.ended(), Ended::Reset);
    assert!(process.wait(SOON).success());
}

/// redis-server on host b.
fn redis(ground: &Ground) -> Process {
    let mut command = Command::new("redis-server");
    command
        .args(["--port", "30000", "--save", "", "--protected-mode", "no"])
        .current_dir(ground.net.host("b").folder());
    ground
        .net
        .host("b")
        .namespace()
        .server("redis-server", &mut command, POD)
}

#[test]
fn redis_is_served_through_the_pair() {
    let pair = Pair::new(None, &[]);
    let _redis = redis(&pair.ground);
    let a = pair.ground.net.host("a").v4().to_string();
    let entry = ENTRY.to_string();
    let mut command = Command::new("redis-benchmark");
    command.args([
        "-h",
        &a,
        "-p",
        &entry,
        "-q",
        "-n",
        "2000",
        "-c",
        "20",
        "-t",
        "ping,set,get",
    ]);
    let told = pair.ground.net.client().namespace().output(&mut command);
    let text = String::from_utf8_lossy(&told.stdout);
    let error = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{text}{error}");
    for test in ["PING_MBULK", "SET", "GET"] {
        assert!(text.contains(&format!("{test}: ")), "{text}{error}");
    }
    assert!(
        !text.contains("Error") && !error.contains("Error"),
        "{text}{error}"
    );
}
