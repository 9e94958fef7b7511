//! A cluster that learns TLS host by host, while it is used.

use super::{POD, PORT, secure, serve, set};
use snproxy_tests::{Ca, Conn, Host, Net, PROXY_PORT, Peer, Pod, eventually, request_for};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(15);
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Each host has a port of its own, which only it serves.
const OF_HOST: [u16; 3] = [PORT, PORT + 1, PORT + 2];

/// Opens connections to ports of other hosts until it is told to stop; how many there were.
fn load(from: SocketAddr, ports: &[u16], stop: &AtomicBool, made: &AtomicU64) {
    for number in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let to = SocketAddr::new(from.ip(), ports[number % ports.len()]);
        let conn = Conn::connect(to, SOON).unwrap_or_else(|error| panic!("{to}: {error}"));
        let word = format!("{to} {number}");
        assert_eq!(conn.send(format!("{word}\n")).line(), word);
        made.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_cluster_changes_to_tls_and_back_without_a_lost_connection() {
    let net = Net::hosts(NAMES);
    let hosts: Vec<&Host> = NAMES.map(|name| net.host(name)).into();
    for (host, port) in hosts.iter().zip(OF_HOST) {
        host.pod(POD, Pod::echo());
        host.mappings(&format!("{port}:{POD}:10000:false\n"))
            .start();
    }
    eventually(SOON, "all of them know each other", || {
        hosts.iter().all(|host| host.count("/hosts/up") == 2)
    });
    let old: Vec<Conn> = OF_HOST[1..]
        .iter()
        .map(|port| hosts[0].open(*port))
        .collect();
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let ca = Ca::new("proxies");
    thread::scope(|scope| {
        let loads = hosts.iter().zip(OF_HOST).map(|(host, own)| {
            let ports: Vec<u16> = OF_HOST.into_iter().filter(|port| *port != own).collect();
            let (stop, made, from) = (&stop, &made, host.port(own));
            let client = net.client();
            scope.spawn(move || client.run(|| load(from, &ports, stop, made)))
        });
        let loads: Vec<_> = loads.collect();
        let change = |host: &Host, change: &dyn Fn(&Host)| {
            host.reloaded_after(change);
            // Some of them with each mixture.
            let before = made.load(Relaxed);
            while made.load(Relaxed) < before + 30
                && !loads.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                thread::sleep(Duration::from_millis(5));
            }
        };
        for host in &hosts {
            change(host, &|host| secure(host, &ca, "optional"));
        }
        for host in &hosts {
            change(host, &|host| set(host, ""));
        }
        let talks_plain = |host: &Host| {
            let conn = hosts[0].open_locally(host.port(PROXY_PORT));
            !conn.send(request_for(PORT)).rest(SOON).0.is_empty()
        };
        assert!(
            !hosts.iter().any(|host| talks_plain(host)),
            "all are strict"
        );
        for host in hosts.iter().rev() {
            change(host, &|host| set(host, "optional"));
        }
        for host in &hosts {
            change(host, &|host| {
                host.conf("PEERTLS", "none");
            });
        }
        stop.store(true, Relaxed);
        for load in loads {
            load.join().expect("no connection is lost");
        }
    });
    println!(
        "{} connections while the cluster changed",
        made.load(Relaxed)
    );
    for conn in old {
        assert_eq!(conn.send("still here\n").line(), "still here");
    }
    for host in hosts {
        assert_eq!(
            host.ends("no_upstream") + host.ends("not_mapped"),
            0,
            "{:#}",
            host.status()
        );
    }
}

#[test]
fn an_optional_host_serves_and_calls_those_without_tls() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    serve(b);
    secure(a, &Ca::new("proxies"), "optional");
    for host in [a, b] {
        host.start();
    }
    assert!(a.log().contains("optional"), "it is said at the start");
    eventually(SOON, "b is found", || a.count("/hosts/up") == 1);
    for _ in 0..10 {
        assert_eq!(a.open(PORT).greeting(), "b");
    }
    a.reloaded_after(|a| {
        a.pod(POD, Pod::answering("a"));
        a.mappings(&format!("{}:{POD}:100:false\n", PORT + 1))
    });
    for _ in 0..10 {
        assert_eq!(b.open(PORT + 1).greeting(), "a");
    }
}

#[test]
fn the_no_of_a_host_without_tls_is_believed() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    b.peer(Peer::scripted(|port, guest| {
        if port == PORT + 1 {
            let _ = guest.send(b"SENDPROXY=false\r\nb\n");
        }
    }));
    secure(a, &Ca::new("proxies"), "optional");
    a.start();
    for _ in 0..5 {
        assert_eq!(a.open(PORT + 1).greeting(), "b");
        assert!(a.is_reset(PORT), "b said no");
    }
    eventually(SOON, "they have ended", || {
        a.ends("not_mapped") + a.ends("no_upstream") == 5
    });
    assert_eq!(a.ends("not_mapped"), 5, "{}", a.log());
    assert!(!a.log().contains("may not speak TLS"), "{}", a.log());
}
