//! Hosts that are cut off, killed or frozen: what a client notices, and for how long.

use super::{PORT, PROXY_PORT, SOON, greeted, greeted_at, serve, start_all};
use snproxy_tests::{Ending, Figure, Host, Net, Pod, eventually, print_figure};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

const CLIENTS: usize = 4;

/// Hosts a, b and c, of which b and c serve, and a knows of both.
fn cluster() -> Net {
    let net = Net::hosts(["a", "b", "c"]);
    for name in ["b", "c"] {
        serve(net.host(name), 1);
    }
    start_all(&net);
    let a = net.host("a");
    for name in ["b", "c"] {
        eventually(SOON, "both are known", || greeted(a).0 == name);
    }
    net
}

/// Sixty clients in a row, who all reach the one host; the longest time and the one after.
fn worst_two(host: &Host, reached: &str) -> [Duration; 2] {
    let mut times: Vec<_> = (0..60)
        .map(|_| {
            let (name, time) = greeted(host);
            assert_eq!(name, reached);
            time
        })
        .collect();
    times.sort_by(|one, other| other.cmp(one));
    [times[0], times[1]]
}

#[track_caller]
fn print_worst(what: &str, worst: [Duration; 2], once: Duration) {
    let figure = |name, value, limit| {
        print_figure(
            &format!("{what}: {name} of 60 clients"),
            Figure::Time(value),
            Figure::Time(limit),
        );
    };
    figure("slowest", worst[0], once + Duration::from_millis(50));
    // Ten times this is less than waiting once more.
    figure("second slowest", worst[1], Duration::from_millis(20));
}

#[track_caller]
fn print_return(what: &str, host: &Host, name: &str) {
    let after = eventually(4 * SOON, &format!("{name} serves again"), || {
        greeted(host).0 == name
    });
    print_figure(
        &format!("{what}: serves again after"),
        Figure::Time(after),
        Figure::Time(Duration::from_secs(5)),
    );
}

#[test]
fn a_host_that_is_cut_off_costs_one_client_one_staggered_connect() {
    let net = cluster();
    let a = net.host("a");
    net.unplug("b");
    print_worst("cut off", worst_two(a, "c"), Duration::from_millis(250));
    net.plug("b");
    print_return("cut off", a, "b");
}

#[test]
fn a_frozen_proxy_costs_one_client_one_silence() {
    let net = cluster();
    let (a, b) = (net.host("a"), net.host("b"));
    b.snproxy().freeze();
    print_worst("frozen", worst_two(a, "c"), Duration::from_millis(750));
    b.snproxy().thaw();
    print_return("frozen", a, "b");
}

#[test]
fn a_killed_proxy_is_noticed_by_nobody_who_comes_after() {
    let net = cluster();
    let (a, c) = (net.host("a"), net.host("c"));
    let over = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    let killed = Mutex::new(None::<Instant>);
    let come = || {
        net.client().run(|| {
            while !over.load(Relaxed) {
                let start = Instant::now();
                let attempt = snproxy_tests::Conn::connect(a.port(PORT), SOON);
                let (said, _) = attempt.map_or_else(
                    |error| panic!("connect: {error}"),
                    |conn| {
                        conn.half_close();
                        conn.rest(SOON)
                    },
                );
                if !matches!(&*said, b"b\n" | b"c\n") {
                    failed.lock().expect("failures").push((start, said));
                }
                // A stream, not a storm.
                sleep(Duration::from_millis(2));
            }
        });
    };
    thread::scope(|scope| {
        let ending = Ending(&over);
        for _ in 0..CLIENTS {
            scope.spawn(come);
        }
        eventually(SOON, "c serves them", || c.count("/connections/total") > 50);
        *killed.lock().expect("killed") = Some({
            c.crash();
            Instant::now()
        });
        let before = a.count("/connections/total");
        eventually(SOON, "many came after", || {
            a.count("/connections/total") > before + 500
        });
        c.start();
        let back = eventually(4 * SOON, "c serves them again", || {
            c.count("/connections/total") > 0
        });
        print_figure(
            "killed: gets connections again after it is back",
            Figure::Time(back),
            Figure::Time(Duration::from_secs(5)),
        );
        let before = c.count("/connections/total");
        eventually(SOON, "and goes on", || {
            c.count("/connections/total") > before + 50
        });
        drop(ending);
    });
    let killed = killed.into_inner().expect("killed").expect("it was killed");
    let failed = failed.into_inner().expect("failures");
    let after: Vec<_> = failed.iter().filter(|(at, _)| *at > killed).collect();
    assert!(after.is_empty(), "{} failed: {after:?}", after.len());
    // Those it was serving when it was killed went with it, and no others.
    assert!(failed.len() <= CLIENTS, "{failed:?}");
}

#[test]
fn a_killed_proxy_that_alone_served_the_port_is_awaited() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    serve(b, 1);
    start_all(&net);
    assert_eq!(greeted(a).0, "b");

    b.crash();
    for _ in 0..5 {
        assert!(a.is_reset(PORT));
    }
    b.start();
    let after = eventually(4 * SOON, "served again", || {
        let served = a.attempt(PORT).connected();
        served.is_some_and(|conn| matches!(conn.stream().peek(&mut [0]), Ok(1)))
    });
    print_figure(
        "killed alone: served again after",
        Figure::Time(after),
        Figure::Time(Duration::from_secs(5)),
    );
    assert_eq!(greeted_here(&net, a), "b");
}

fn greeted_here(net: &Net, host: &Host) -> String {
    net.client().run(|| greeted_at(host.port(PORT)))
}

/// Hosts a and b, of which b alone serves the port, and a has reached it.
fn alone() -> Net {
    let net = Net::hosts(["a", "b"]);
    serve(net.host("b"), 1);
    start_all(&net);
    let a = net.host("a");
    eventually(SOON, "b is known", || greeted(a).0 == "b");
    net
}

/// Whether a client of a is served.
fn is_served(a: &Host) -> bool {
    let conn = a.attempt(PORT).connected();
    conn.is_some_and(|conn| {
        conn.half_close();
        conn.rest(SOON).0 == b"b\n"
    })
}

/// Clients that come to a host that has no other candidate than one that is down, one after the other for `time`.
fn come_in_vain(a: &Host, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(!is_served(a));
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_last_host_is_served_from_as_soon_as_its_link_is_back() {
    let net = alone();
    let a = net.host("a");
    for away in [4, 12] {
        net.unplug("b");
        come_in_vain(a, Duration::from_secs(away));
        net.plug("b");
        let back = eventually(SOON, "served again", || is_served(a));
        print_figure(
            &format!("link cut for {away} s: served again after"),
            Figure::Time(back),
            Figure::Time(Duration::from_secs(3)),
        );
        for _ in 0..20 {
            assert!(is_served(a));
        }
    }
}

#[test]
fn the_last_host_is_served_from_as_soon_as_its_proxy_runs_again() {
    let net = alone();
    let (a, b) = (net.host("a"), net.host("b"));
    b.snproxy().freeze();
    come_in_vain(a, Duration::from_secs(10));
    b.snproxy().thaw();
    assert!(is_served(a), "thawed");

    b.crash();
    come_in_vain(a, Duration::from_secs(10));
    b.start();
    assert!(is_served(a), "started");
}

#[test]
fn many_clients_dial_the_last_host_that_is_down_seldom() {
    let net = alone();
    let (a, b) = (net.host("a"), net.host("b"));
    b.crash();
    assert!(!is_served(a));
    // In place of the proxy, what counts who comes and answers nobody.
    let counting = b.pod(PROXY_PORT, Pod::resetting());
    let start = Instant::now();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let ending = Ending(&over);
        for _ in 0..20 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    assert!(!is_served(a));
                }
            });
        }
        sleep(Duration::from_secs(3));
        drop(ending);
    });
    // Twenty a second, and the probes.
    let most = 25 * (start.elapsed().as_secs() + 1);
    let dialed = u64::try_from(counting.accepted()).expect("few");
    assert!(dialed <= most, "{dialed} dials, at most {most}");
}
