//! What becomes of connections whose pod is gone: taken out of the files, or down.

use rustix::process::Signal;
use snproxy_tests::{Conn, Ended, Figure, Host, Net, Pod, Process, eventually, print_figure};
use std::{
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(15);
const MOMENT: Duration = Duration::from_millis(300);
const DRAIN: Duration = Duration::from_secs(2);
const FATES: [&str; 3] = ["keep", "drain:2s", "reset"];
const STAYING: &str = "1025:30001:9:false\n";
const BOTH: &str = "1024:30000:9:false\n1025:30001:9:false\n";

/// One host, and two of which the second one has the pods; with each fate.
fn each_way(key: &str, scenario: impl Fn(&Ground, &str)) {
    for fate in FATES {
        for net in [Net::one(), Net::hosts(["a", "b"])] {
            let ground = Ground { net };
            ground.home().conf(key, &format!("1024 {fate}"));
            scenario(&ground, fate);
        }
    }
}

struct Ground {
    net: Net,
}

impl Ground {
    fn entry(&self) -> &Host {
        &self.net.all_hosts()[0]
    }

    fn home(&self) -> &Host {
        self.net.all_hosts().last().expect("a host")
    }

    fn start(&self) {
        self.home().mappings(BOTH);
        for host in self.net.all_hosts().iter().rev() {
            host.start();
        }
    }

    /// One that has said something and was answered.
    fn open(&self, port: u16) -> Conn {
        let conn = self.entry().open(port);
        assert!(is_alive(&conn));
        conn
    }

    /// What this fate, decided at `since`, makes of connections whose pod is gone for `end`.
    fn assert_fate(&self, fate: &str, conns: Vec<Conn>, since: Instant, end: &str) {
        let count = conns.len() as u64;
        if fate == "keep" {
            thread::sleep(MOMENT);
            assert!(conns.iter().all(is_alive));
            for conn in &conns {
                assert_eq!(conn.half_close().ended(), Ended::Eof);
            }
            return eventually_ends(self.home(), "clean", count);
        }
        let grace = if fate == "reset" {
            Duration::ZERO
        } else {
            assert!(conns.iter().all(is_alive), "it is drained");
            DRAIN
        };
        let mut ends: Vec<Duration> = thread::scope(|scope| {
            let ended = |conn: Conn| {
                move || {
                    assert_eq!(conn.ended(), Ended::Reset);
                    since.elapsed()
                }
            };
            let waiting: Vec<_> = conns
                .into_iter()
                .map(|conn| scope.spawn(ended(conn)))
                .collect();
            let ends = waiting.into_iter();
            ends.map(|thread| thread.join().expect("join")).collect()
        });
        ends.sort();
        // What is left is cut in the last quarter of it; the proxy's clock began a little before ours.
        assert!(ends[0] >= grace * 2 / 3, "cut too early: {ends:?}");
        print_figure(
            &format!(
                "last connection of a pod that is gone, {fate}, {} hosts",
                self.net.all_hosts().len()
            ),
            Figure::Time(ends[ends.len() - 1]),
            Figure::Time(grace + Duration::from_secs(1)),
        );
        eventually_ends(self.home(), end, count);
        if self.net.all_hosts().len() > 1 {
            eventually_ends(self.entry(), "upstream", count);
        }
    }
}

#[track_caller]
fn eventually_ends(host: &Host, end: &str, count: u64) {
    eventually(SOON, &format!("{count} {end} on {}", host.name()), || {
        host.ends(end) == count
    });
}

/// Whether an echo answers.
fn is_alive(conn: &Conn) -> bool {
    conn.offer(b"x", MOMENT) == 1 && conn.read(1) == b"x"
}

#[test]
fn a_mapping_is_taken_out_under_its_connections() {
    each_way("ONREMOVE", |ground, fate| {
        let home = ground.home();
        for port in [30000, 30001] {
            home.pod(port, Pod::echo());
        }
        ground.start();
        let conns: Vec<Conn> = (0..3).map(|_| ground.open(1024)).collect();
        let other = ground.open(1025);

        // The decision falls within the reload.
        let since = Instant::now();
        home.reloaded_after(|home| home.mappings(STAYING));
        ground.assert_fate(fate, conns, since, "removed");
        assert!(is_alive(&other));
        eventually(SOON, "only the other one is left", || {
            ground.entry().count("/connections/live") == 1
        });
    });
}

#[test]
fn a_target_is_taken_out_of_an_app() {
    let ground = Ground { net: Net::one() };
    let home = ground.home();
    let pods = [30000, 30001].map(|port| home.pod(port, Pod::echo()));
    let app = |targets: &str| {
        let name = r#""Name":"echo","Ports":[5001,"5003-5004"],"Balance":"rr","OnRemove":"reset""#;
        home.replace(
            "config.json",
            &format!(r#"{{"Apps":[{{{name},"Targets":[{targets}]}}]}}"#),
        );
    };
    let [leaves, stays] = [30000, 30001].map(|port| format!("\"{}\"", home.port(port)));
    app(&format!("{leaves},{stays}"));
    home.conf("APPSCONF", "config.json").start();
    // Whichever port they came by.
    let conns = [5001, 5003, 5004, 5001].map(|port| ground.open(port));
    // Each port takes turns by itself: only the second client of one is sure to come to the other target.
    let [leaving, staying] = pods.each_ref().map(Pod::accepted);
    assert!(leaving > 0 && staying > 0 && leaving + staying == conns.len());

    home.reloaded_after(|_| app(&stays));
    eventually_ends(home, "removed", leaving as u64);
    let alive = conns.iter().filter(|conn| is_alive(conn));
    assert_eq!(alive.count(), staying);
    assert_eq!(pods[1].inside(), staying);
}

#[test]
fn one_that_ends_in_time_ends_in_order_and_a_mapping_that_returns_keeps_the_others() {
    let net = Net::one();
    let ground = Ground { net };
    let home = ground.home();
    for port in [30000, 30001] {
        home.pod(port, Pod::echo());
    }
    home.conf("ONREMOVE", "drain:2s");
    ground.start();
    let (ends, stays) = (ground.open(1024), ground.open(1024));
    let since = Instant::now();
    home.reloaded_after(|home| home.mappings(STAYING));
    assert_eq!(ends.half_close().ended(), Ended::Eof);
    home.reloaded_after(|home| home.mappings(BOTH));
    assert!(since.elapsed() < DRAIN, "too slow to be back in time");
    thread::sleep((DRAIN + MOMENT).saturating_sub(since.elapsed()));
    assert!(is_alive(&stays));
    assert_eq!((home.ends("clean"), home.ends("removed")), (1, 0));

    // It may go again, and then for good.
    let since = Instant::now();
    home.reloaded_after(|home| home.mappings(STAYING));
    ground.assert_fate("drain:2s", vec![stays], since, "removed");
}

/// An HAProxy as the pod at 30000, to an echo behind it.
fn haproxy(home: &Host) -> Process {
    let behind = home.port(31000);
    let body = format!("listen pod\n bind *:30000\n server behind {behind}\n");
    home.namespace().haproxy(30000, &body)
}

#[test]
fn a_server_stops_listening_and_keeps_its_connections() {
    each_way("ONDOWN", |ground, fate| {
        let home = ground.home();
        for port in [30001, 31000] {
            home.pod(port, Pod::echo());
        }
        let leaving = haproxy(home);
        ground.start();
        let conns: Vec<Conn> = (0..3).map(|_| ground.open(1024)).collect();
        let other = ground.open(1025);

        // It finishes what it has, and takes nothing new.
        leaving.signal(Signal::USR1);
        home.snproxy().wait_for_line(SOON, "pod is down");
        ground.assert_fate(fate, conns, Instant::now(), "down");
        assert!(is_alive(&other));
    });
}

#[test]
fn a_server_that_is_replaced_in_time_keeps_the_connections_of_the_one_before() {
    let ground = Ground { net: Net::one() };
    let home = ground.home();
    for port in [30001, 31000] {
        home.pod(port, Pod::echo());
    }
    home.conf("ONDOWN", "drain:4s");
    let leaving = haproxy(home);
    ground.start();
    let conn = ground.open(1024);
    leaving.signal(Signal::USR1);
    home.snproxy().wait_for_line(SOON, "pod is down");
    let since = Instant::now();
    let _next = haproxy(home);
    home.snproxy().wait_for_line(SOON, "pod is up");
    assert!(since.elapsed() < 2 * DRAIN, "too slow to be back in time");
    thread::sleep((2 * DRAIN + MOMENT).saturating_sub(since.elapsed()));
    assert!(is_alive(&conn));
    assert_eq!(home.ends("down"), 0);
}

#[test]
fn a_machine_that_is_unplugged_ends_what_never_hears_a_fin() {
    let ground = Ground {
        net: Net::hosts(["a", "pods"]),
    };
    let (entry, pods) = (ground.entry(), ground.net.host("pods"));
    pods.pod(30000, Pod::echo());
    entry
        .hosts(&format!("{}:32767\n", entry.v4()))
        .conf("PODHOST", &pods.v4().to_string())
        .conf("CONNECTTIMEOUT", "500ms")
        .conf("ONDOWN", "reset")
        .mappings("1024:30000:9:false\n")
        .start();
    let conns: Vec<Conn> = (0..3).map(|_| ground.open(1024)).collect();
    ground.net.unplug("pods");
    assert!(conns.iter().all(|conn| conn.stays_quiet(MOMENT)));
    // The next client finds out.
    assert!(entry.is_reset(1024));
    for conn in &conns {
        assert_eq!(conn.ended(), Ended::Reset);
    }
    eventually_ends(entry, "down", 3);
}
