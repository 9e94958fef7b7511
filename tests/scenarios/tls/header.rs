//! PROXY headers beside TLS: they come and go in plain, ahead of the handshake.

use super::{Ground, NAME, POD, PORT, SOON, greeting};
use snproxy_tests::{Conn, Ended, Net, PROXY_PORT, Pod, TlsConn, eventually};
use std::{sync::mpsc, time::Duration};

#[test]
fn a_header_ahead_of_a_clients_tls_reaches_the_pod() {
    let ground = Ground::terminating("", Pod::echo());
    ground
        .host()
        .conf("CLIENTPROXY", "detect 10.77.0.101")
        .mappings("1024:30000:900:true\n")
        .start();
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1111 1024\r\n";
    let conn = ground.host().open(PORT);
    conn.send(header);
    let tls = TlsConn::connect(conn, ground.issued.client(), NAME).expect("a handshake");
    let said = format!("{header}hello");
    assert_eq!(tls.send("hello").read(said.len()), said.as_bytes());
    // Without one it is made.
    let tls = ground.tls();
    let port = tls.conn().local().port();
    let client = ground.net.client().v4();
    let said = format!(
        "PROXY TCP4 {client} {} {port} 1024\r\nhello",
        ground.host().v4()
    );
    assert_eq!(tls.send("hello").read(said.len()), said.as_bytes());
}

#[test]
fn header_of_an_unlisted_client_ahead_of_tls_is_not_read() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.mappings("1024:30000:900:true\n").start();
    for (turn, sources) in ["private", "private,10.77.0.102"].into_iter().enumerate() {
        if turn > 0 {
            let value = format!("detect {sources}");
            host.reloaded_after(|host| host.conf("CLIENTPROXY", &value));
        }
        let conn = host.open(PORT);
        conn.send("PROXY TCP4 127.0.0.1 192.0.2.2 1111 1024\r\n");
        // The line is no TLS, whoever holds which certificate.
        assert!(TlsConn::connect(conn, ground.issued.client(), NAME).is_err());
        eventually(SOON, "it ended so", || {
            host.ends("tls_client") == turn as u64 + 1
        });
        let tls = ground.tls();
        let (client, port) = (ground.net.client().v4(), tls.conn().local().port());
        let said = format!("PROXY TCP4 {client} {} {port} 1024\r\nhello", host.v4());
        assert_eq!(tls.send("hello").read(said.len()), said.as_bytes());
    }
    // A word that requires a header must say of whom.
    host.conf("CLIENTPROXY", "require private");
    let checked = host.run(&["check"]);
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success());
    assert!(
        error.contains("CLIENTPROXY require needs networks"),
        "{error}"
    );
}

/// A pod that tells what it heard before TLS.
fn telling(ground: &Ground) -> (Pod, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let config = ground.issued.server();
    let pod = Pod::serving(move |guest| {
        let Ok(conn) = guest.stream().try_clone().and_then(Conn::new) else {
            return;
        };
        let mut line = Vec::new();
        // A connection that comes to nothing says nothing.
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            match guest.read(&mut byte) {
                Ok(1) => line.push(byte[0]),
                _ => return,
            }
        }
        let Ok(tls) = TlsConn::accept(conn, config.clone()) else {
            return;
        };
        let _ = tell.send(String::from_utf8_lossy(&line).into_owned());
        tls.send("after it");
        tls.ended();
        tls.half_close();
    });
    (pod, told)
}

#[test]
fn a_header_goes_out_ahead_of_the_tls_of_a_pod() {
    let ground = Ground::securing("");
    let (pod, told) = telling(&ground);
    ground.host().pod(POD, pod);
    ground.host().mappings("1024:30000:900:true\n");
    ground
        .host()
        .conf("PROXYWAIT", "200ms")
        .conf("HEALTH", "passive");
    ground.host().start();
    let client = ground.net.client().v4();
    // A silent one has its header made after PROXYWAIT.
    let conn = ground.host().open(PORT);
    assert_eq!(conn.read(8), b"after it");
    let port = conn.local().port();
    let made = format!("PROXY TCP4 {client} {} {port} 1024\r\n", ground.host().v4());
    assert_eq!(told.recv_timeout(SOON).unwrap(), made);
    // One of the client's own goes on as it is.
    let conn = ground.host().open(PORT);
    let own = "PROXY TCP4 192.0.2.1 192.0.2.2 1111 1024\r\n";
    assert_eq!(conn.send(own).read(8), b"after it");
    assert_eq!(told.recv_timeout(SOON).unwrap(), own);
}

#[test]
fn a_pod_of_another_host_hears_of_the_client_ahead_of_tls() {
    let net = Net::hosts(["a", "b"]);
    let ground = Ground::on(net);
    let (a, b) = (ground.net.host("a"), ground.net.host("b"));
    let (pod, told) = telling(&ground);
    b.pod(POD, pod);
    b.mappings("1024:30000:900:true\n");
    ground.issued.write_folder(&b.folder().join("tls"));
    b.conf("UPSTREAMTLS", &format!("tls name={NAME}"));
    b.conf("HEALTH", "passive");
    b.start();
    a.start();
    let conn = a.open(PORT);
    assert_eq!(conn.read(8), b"after it");
    let (client, port) = (ground.net.client().v4(), conn.local().port());
    let made = format!("PROXY TCP4 {client} {} {port} 1024\r\n", a.v4());
    assert_eq!(told.recv_timeout(SOON).unwrap(), made);
    let log = b.log();
    assert!(
        log.contains("a header that the client sent is not passed on"),
        "{log}"
    );
    assert!(told.recv_timeout(Duration::from_millis(100)).is_err());
}

#[test]
fn header_for_an_unknown_client_has_the_ends_of_the_connection() {
    let ground = Ground::securing("");
    let (pod, told) = telling(&ground);
    let host = ground.host();
    let pod = host.pod(POD, pod);
    host.mappings("1024:30000:900:true\n")
        .conf("HEALTH", "passive")
        .conf("PEERS", "any")
        .start();
    // As the first proxies call, who name no client.
    let conn = host.open(PROXY_PORT);
    conn.send("PROXY TCP4 1.2.3.4 1.2.3.4 123 1024\r\n");
    // The header goes out ahead of TLS, not through the peer's payload.
    assert_eq!(conn.line(), "SENDPROXY=false");
    assert_eq!(conn.read(8), b"after it");
    let visit = pod.visit(0);
    let (from, to) = (visit.peer(), visit.local());
    let (from_ip, to_ip) = (from.ip(), to.ip());
    let own = format!("PROXY TCP4 {from_ip} {to_ip} {} {POD}\r\n", from.port());
    assert_eq!(told.recv_timeout(SOON).unwrap(), own);
}

#[test]
fn the_client_in_its_own_header_is_told_to_other_hosts() {
    let net = Net::hosts(["a", "b"]);
    let ground = Ground::on(net);
    let (a, b) = (ground.net.host("a"), ground.net.host("b"));
    let (pod, told) = telling(&ground);
    b.pod(POD, pod);
    a.mappings("").conf("CLIENTPROXY", "require");
    b.mappings("1024:30000:900:true\n");
    ground.issued.write_folder(&b.folder().join("tls"));
    for host in [b, a] {
        host.conf("UPSTREAMTLS", &format!("tls name={NAME}"))
            .conf("HEALTH", "passive")
            .start();
    }
    let own = "PROXY TCP4 192.0.2.1 192.0.2.2 1111 1024\r\n";
    let conn = a.open(PORT);
    assert_eq!(conn.send(own).read(8), b"after it");
    assert_eq!(told.recv_timeout(SOON).unwrap(), own);
    // One that names nobody stands for the connection itself.
    let conn = a.open(PORT);
    assert_eq!(conn.send("PROXY UNKNOWN\r\n").read(8), b"after it");
    let (client, port) = (ground.net.client().v4(), conn.local().port());
    let made = format!("PROXY TCP4 {client} {} {port} 1024\r\n", a.v4());
    assert_eq!(told.recv_timeout(SOON).unwrap(), made);
}

#[test]
fn who_waits_is_not_given_to_a_pod_that_wants_a_header_by_now() {
    let ground = Ground::securing("");
    let host = ground.host();
    host.pod(POD, greeting(&ground.issued, "hello"));
    let (tell, told) = mpsc::channel();
    let wants_one = Pod::serving(move |guest| {
        let mut byte = [0];
        if let Ok(1) = guest.read(&mut byte) {
            let _ = tell.send(byte);
        }
    });
    host.pod(POD + 1, wants_one);
    host.mappings("1024:30000:1:false\n")
        .conf("QUEUE", "5")
        .conf("HEALTH", "passive")
        .start();
    let first = host.open(PORT);
    assert_eq!(first.read(5), b"hello");
    let second = host.open(PORT);
    eventually(SOON, "it waits", || {
        host.status()["queues"].to_string().contains("client")
    });
    host.reloaded_after(|host| {
        host.mappings("1024:30001:1:true\n");
    });
    assert_ne!(second.rest(SOON).1, Ended::Open);
    assert!(told.recv_timeout(Duration::from_millis(200)).is_err());
}
