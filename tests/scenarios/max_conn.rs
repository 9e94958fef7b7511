//! maxConn: never one connection more, whatever happens around it.

use snproxy_tests::{Attempt, Client, Conn, Ending, Net, Pod, eventually};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const CLIENTS: usize = 50;
pub(crate) const LIMIT: usize = 7;
const RELOADS: usize = 10;

/// How long a client stays inside: longer than a pod takes to believe that there is one too many.
const STAY: Duration = Duration::from_millis(100);
/// How long a refused one keeps away.
const AWAY: Duration = Duration::from_millis(40);

/// What came of asking for a place.
fn ask(client: &Client, to: SocketAddr) -> Option<Conn> {
    let Attempt::Connected(conn) = client.attempt(to) else {
        return None;
    };
    // The pod greets who is inside; nobody else hears a byte.
    let mut first = [0];
    match conn.stream().peek(&mut first) {
        Ok(1) => Some(conn),
        Ok(_) => panic!("{conn:?} was ended in order without an answer"),
        Err(_) => None,
    }
}

/// A crowd that wants in at these addresses, each client at one after the other: everybody twice before `meanwhile`,
/// again and again during it, and twice after. Gives how many were let in, and how often somebody was not.
pub(crate) fn crowd(client: &Client, to: &[SocketAddr], meanwhile: impl FnOnce()) -> (usize, u64) {
    let (served, refused, rounds) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    let get_in = |turn: &mut usize| {
        let start = Instant::now();
        loop {
            *turn += 1;
            if let Some(conn) = ask(client, to[*turn % to.len()]) {
                conn.greeting();
                sleep(STAY);
                served.fetch_add(1, Relaxed);
                return;
            }
            refused.fetch_add(1, Relaxed);
            assert!(start.elapsed() < 6 * SOON, "never let in");
            sleep(AWAY);
        }
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ending = Ending(&is_over);
        for mut turn in 0..CLIENTS {
            let (get_in, rounds, is_over) = (&get_in, &rounds, &is_over);
            scope.spawn(move || {
                get_in(&mut turn);
                get_in(&mut turn);
                rounds.fetch_add(1, Relaxed);
                while !is_over.load(Relaxed) {
                    get_in(&mut turn);
                }
                get_in(&mut turn);
                get_in(&mut turn);
            });
        }
        eventually(6 * SOON, "all were in twice", || {
            rounds.load(Relaxed) == CLIENTS
        });
        assert!(refused.load(Relaxed) > 0, "there was no crowd");
        let before = served.load(Relaxed);
        meanwhile();
        assert!(
            served.load(Relaxed) > before,
            "nobody came during the reloads"
        );
        drop(ending);
    });
    (served.into_inner(), refused.into_inner())
}

#[test]
fn fifty_clients_never_overfill_two_pods_of_seven() {
    let net = Net::one();
    let (host, client) = (net.host("host"), net.client());
    let pods =
        [30000, 30001].map(|port| host.pod(port, Pod::answering("a").expecting_at_most(LIMIT)));
    let mappings = format!("1024:30000:{LIMIT}:false\n1024:30001:{LIMIT}:false\n");
    host.mappings(&mappings).start();

    let (served, refused) = crowd(client, &[host.port(1024)], || {
        for reload in 0..RELOADS {
            host.reloaded_after(|host| {
                host.mappings(&format!("{mappings}{}:30000:1:false\n", 2000 + reload));
            });
        }
    });
    assert_eq!(pods.iter().map(Pod::accepted).sum::<usize>(), served);
    for pod in &pods {
        assert_eq!(pod.most_inside(), LIMIT, "full, and never more");
    }
    eventually(SOON, "all are out", || host.count("/connections/live") == 0);
    assert_eq!(host.ends("busy"), refused);
    assert_eq!(host.ends("clean"), served as u64);
    assert!(host.steered() >= served as u64 + refused);
}

#[test]
fn a_refused_client_is_reset_and_a_mapping_of_zero_is_always_busy() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("a"));
    let none = host.pod(30001, Pod::answering("b"));
    host.mappings("1024:30000:1:false\n1025:30001:0:false\n")
        .start();

    assert!(
        host.log()
            .contains("portmappings.conf:2:1: warning: maxConn 0"),
        "{}",
        host.log()
    );
    let inside = host.open(1024);
    assert_eq!(inside.greeting(), "a");
    for port in [1024, 1025, 1025] {
        assert!(host.is_reset(port), "port {port}");
    }
    eventually(SOON, "three ends", || host.ends("busy") == 3);
    let closed = "end=busy";
    assert_eq!(
        host.log()
            .lines()
            .filter(|line| line.contains(closed))
            .count(),
        3,
        "{}",
        host.log()
    );
    assert_eq!((pod.accepted(), none.accepted()), (1, 0));
}

#[test]
fn places_stay_taken_across_reloads_and_a_mapping_that_went_and_came_back() {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering("a"));
    host.mappings("1024:30000:2:false\n").start();

    let mut inside = vec![host.open(1024), host.open(1024)];
    assert!(inside.iter().all(|conn| conn.greeting() == "a"));
    for other in 2000..2005 {
        host.reloaded_after(|host| {
            host.mappings(&format!("1024:30000:2:false\n{other}:30000:1:false\n"));
        });
        assert!(host.is_reset(1024), "after the reload with {other}");
    }

    host.reloaded_after(|host| host.mappings(""));
    assert!(host.is_refused(1024));
    host.reloaded_after(|host| host.mappings("1024:30000:2:false\n"));
    assert!(host.is_reset(1024), "those who were inside still are");

    // More places count at once, fewer when people leave.
    host.reloaded_after(|host| host.mappings("1024:30000:3:false\n"));
    inside.push(host.open(1024));
    assert_eq!(inside[2].greeting(), "a");
    host.reloaded_after(|host| host.mappings("1024:30000:1:false\n"));
    for left in [2, 1] {
        assert!(host.is_reset(1024));
        drop(inside.pop());
        eventually(SOON, "one is out", || {
            host.count("/connections/live") == left
        });
    }
    assert!(host.is_reset(1024));
    drop(inside);
    eventually(SOON, "all are out", || host.count("/connections/live") == 0);
    assert_eq!(host.open(1024).greeting(), "a");
    assert_eq!(pod.accepted(), 4);
}
