//! PORTRATE: a port takes so many new connections, whoever opens them, and the others do not feel it.

use snproxy_tests::{
    Attempt, Conn, Ended, Ending, Figure, Host, Net, Pod, eventually, print_figure,
};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
const CLIENTS: usize = 4;
/// Under load.
const WHILE: Duration = Duration::from_secs(3);
const LIMITED: u16 = 1024;
const FREE: u16 = 1025;

/// What came of many clients that connect as fast as they can.
#[derive(Debug)]
struct Tally {
    served: u64,
    /// At connect, or by a reset before the first byte.
    refused: u64,
    took: Duration,
}

fn is_served(host: &Host, port: u16) -> bool {
    match Attempt::made(Conn::connect(host.port(port), SOON)) {
        Attempt::Connected(conn) => match conn.rest(SOON) {
            (bytes, Ended::Eof) if bytes == b"a\n" => true,
            (bytes, Ended::Reset) if bytes.is_empty() => false,
            other => panic!("{other:?}"),
        },
        Attempt::Refused => false,
        // So soon that connect() was still waiting for its thread.
        Attempt::Failed(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
        other => panic!("{other:?}"),
    }
}

/// Floods the limited port, while somebody opens the other one at a modest pace and is served each time.
fn flood(net: &Net) -> Tally {
    let host = net.host("host");
    let (served, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let ending = Ending(&is_over);
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                net.client().run(|| {
                    while !is_over.load(Relaxed) {
                        let count = if is_served(host, LIMITED) {
                            &served
                        } else {
                            &refused
                        };
                        count.fetch_add(1, Relaxed);
                    }
                });
            });
        }
        let opened = net.client().run(|| {
            let mut opened = 0;
            while start.elapsed() < WHILE {
                assert!(is_served(host, FREE), "the other port, connection {opened}");
                opened += 1;
                sleep(Duration::from_millis(5));
            }
            opened
        });
        drop(ending);
        assert!(opened >= 20, "only {opened} at the other port");
    });
    Tally {
        served: served.into_inner(),
        refused: refused.into_inner(),
        took: start.elapsed(),
    }
}

/// As many as `per_second` and `burst` say: none too many, and of those that were due a third at least, however busy the
/// machine is.
#[track_caller]
fn keeps_to(tally: &Tally, per_second: f64, burst: f64) {
    let due = per_second * tally.took.as_secs_f64();
    // Two at the same moment on two processors may take one place.
    let most = (burst + due) * 1.05 + 5.0;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let served = tally.served as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small numbers"
    )]
    print_figure(
        &format!("served at {per_second}/s burst {burst}"),
        Figure::Count(tally.served),
        Figure::Count((burst + due) as u64),
    );
    assert!(served <= most, "{served} were served, at most {most}");
    assert!(served >= due / 3.0, "{served} were served of {due}");
    assert!(tally.refused > 0, "there was no flood");
}

fn limited(host: &Host, port: u16) -> u64 {
    host.port_range(port)["limited"].as_u64().expect("a number")
}

fn a_port_keeps_to_its_rate(steering: &str) {
    let net = Net::one();
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering_once("a"));
    host.pod(30001, Pod::echo());
    host.mappings("1024:30000:900:false\n1025:30000:900:false\n1026:30001:9:false\n")
        .conf("STEERING", steering)
        .conf("PORTRATE", "1024,1026 50/s burst=10")
        .start();
    let long = host.open(1026);
    assert_eq!(long.send("before\n").line(), "before");

    let first = flood(&net);
    keeps_to(&first, 50.0, 10.0);
    // Each one that was refused is counted at its port, and nowhere else. The kernel counts lookups: a SYN that meets the
    // TIME_WAIT of a connection that was served is looked up, answered with an ACK, and comes again.
    let again = if steering == "ebpf" { 2 } else { 0 };
    let counted_of = |refused: u64, served: u64| refused..=refused + again * served;
    let counted = limited(host, LIMITED);
    let expected = counted_of(first.refused, first.served);
    assert!(expected.contains(&counted), "{counted} of {expected:?}");
    assert_eq!((limited(host, FREE), limited(host, 1026)), (0, 0));

    // Another rate, while they are at it.
    host.reloaded_after(|host| host.conf("PORTRATE", "1024 400/s burst=20").reload());
    let second = flood(&net);
    keeps_to(&second, 400.0, 20.0);
    let refused = first.refused + second.refused;
    let counted = limited(host, LIMITED);
    let expected = counted_of(refused, first.served + second.served);
    assert!(expected.contains(&counted), "{counted} of {expected:?}");
    assert_eq!(long.send("between\n").line(), "between");

    // None at all.
    let in_all = match steering {
        "ebpf" => host.count("/kernel/limited"),
        _ => host.ends("rate"),
    };
    assert_eq!(in_all, counted);
    host.reloaded_after(|host| host.without("PORTRATE").reload());
    net.client().run(|| {
        for turn in 0..100 {
            assert!(is_served(host, LIMITED), "connection {turn}");
        }
    });
    assert_eq!(limited(host, LIMITED), 0);
    assert_eq!(long.send("after\n").line(), "after");

    // And what the pod saw is what the clients were served.
    let host_served = u64::try_from(pod.accepted()).expect("a number") - 100;
    assert!(host_served >= first.served + second.served);
    drop(long);
    let ends = |end| host.ends(end);
    eventually(SOON, "all have ended", || {
        host.count("/connections/live") == 0
    });
    let sum = ends("clean") + ends("client") + ends("upstream") + ends("rate");
    assert_eq!(sum, host.count("/connections/total"));
    match steering {
        "ebpf" => assert_eq!(ends("rate"), 0),
        _ => assert_eq!(ends("rate"), refused),
    }
    let shown = host.run(&["ports"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("LIMITED"));
}

#[test]
fn a_port_keeps_to_its_rate_in_the_kernel() {
    a_port_keeps_to_its_rate("ebpf");
}

#[test]
fn a_port_keeps_to_its_rate_by_listeners() {
    a_port_keeps_to_its_rate("listeners");
}

#[test]
fn a_rate_of_all_ports_is_one_for_each() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering_once("a"));
    host.mappings("1024:30000:900:false\n1025:30000:900:false\n1026:30000:900:false\n")
        .conf("PORTRATE", "1/s burst=5")
        .start();
    net.client().run(|| {
        for port in [1024, 1025, 1026] {
            let start = Instant::now();
            let served = (0..30).filter(|_| is_served(host, port)).count();
            let most = 6 + usize::try_from(start.elapsed().as_secs()).expect("seconds");
            assert!((5..=most).contains(&served), "{port}: {served} of {most}");
        }
    });
    // The three are one range.
    assert_eq!(host.count("/kernel/limited"), limited(host, 1025));
    let status = host.run(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout);
    assert!(status.contains(" above the rate of their port"), "{status}");
}
