//! Limits on time, with real servers and clients: who ends, when, and what each host says of it.

use snproxy_tests::{Conn, Ended, Figure, Host, Net, Pod, Process, eventually, print_figure};
use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(1);
/// Of those that speak.
const BEAT: Duration = Duration::from_millis(200);
/// Longer than the limit, and than the second more that the other host gives.
const WHILE: Duration = Duration::from_millis(2600);

/// One host, and two of which the second one has the pods.
fn both_ways(scenario: impl Fn(&Ground)) {
    for net in [Net::one(), Net::hosts(["a", "b"])] {
        scenario(&Ground { net });
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

    fn across(&self) -> bool {
        self.net.all_hosts().len() > 1
    }

    /// For a figure.
    fn named(&self, what: &str) -> String {
        let place = if self.across() {
            "across two"
        } else {
            "one host"
        };
        format!("{what}, {place}")
    }

    /// Starts all proxies with 1024 mapped to 30000, and these keys.
    fn start(&self, keys: &[(&str, &str)]) {
        self.home().mappings("1024:30000:900:false\n");
        for host in self.net.all_hosts().iter().rev() {
            for (key, value) in keys {
                host.conf(key, value);
            }
            host.start();
        }
    }

    /// socat as a pod: all that comes in goes to `to`, or the other way round.
    fn socat(&self, words: &[&str]) -> Process {
        let mut socat = Command::new("socat");
        let namespace = self.home().namespace();
        namespace.server("socat", socat.args(words), 30000)
    }

    /// Says a line every now and then, whatever it hears.
    fn ticking(&self) -> Process {
        let tick = "SYSTEM:while echo tick; do sleep 0.1; done 2>/dev/null";
        self.socat(&["TCP-LISTEN:30000,reuseaddr,fork,backlog=100", tick])
    }

    /// That so many ended this way at the host that says why, and how at the other one.
    #[track_caller]
    fn assert_ends(&self, teller: &Host, end: &str, other: &str, count: u64) {
        for host in self.net.all_hosts() {
            let end = if host.name() == teller.name() {
                end
            } else {
                other
            };
            eventually(SOON, &format!("{count} {end} on {}", host.name()), || {
                host.ends(end) == count
            });
        }
    }

    #[track_caller]
    fn assert_in_time(&self, what: &str, since: Instant, limit: Duration) {
        let after = since.elapsed();
        print_figure(
            &self.named(&format!("{what}, later than its limit")),
            Figure::Time(after.saturating_sub(limit)),
            Figure::Time(Duration::from_millis(200)),
        );
        assert!(after + Duration::from_millis(50) >= limit, "{after:?}");
    }
}

/// Speaks until the end, and gives it.
fn speak(conn: &Conn) -> Ended {
    let since = Instant::now();
    while since.elapsed() < SOON {
        conn.offer(b"x", BEAT);
        match conn.rest(BEAT) {
            (_, Ended::Open) => {}
            (_, ended) => return ended,
        }
    }
    Ended::Open
}

#[test]
fn a_server_that_stands_still_is_not_waited_for() {
    const ASK: &str = "GET / HTTP/1.0\r\n\r\n";
    both_ways(|ground| {
        let (entry, home) = (ground.entry(), ground.home());
        let nginx = home.nginx(30000, "", "served");
        // It is the only pod.
        ground.start(&[("FIRSTBYTETIMEOUT", "1s"), ("EJECTMAX", "100%")]);
        assert!(
            entry
                .open(1024)
                .send(ASK)
                .read_to_end()
                .ends_with(b"served\n")
        );

        nginx.freeze();
        // The kernel takes the connections all the same.
        let silent = entry.open(1024);
        let asking = entry.open(1024);
        let since = Instant::now();
        assert_eq!(asking.send(ASK).ended(), Ended::Reset);
        ground.assert_in_time("a request to a frozen nginx reset", since, LIMIT);
        ground.assert_ends(home, "first_byte", "upstream", 1);
        home.snproxy().wait_for_line(SOON, "pod is down");
        // Who has not asked is not answered too late.
        assert!(silent.stays_quiet(WHILE));
        nginx.thaw();
        assert!(silent.send(ASK).read_to_end().ends_with(b"served\n"));
        assert_eq!(home.ends("first_byte"), 1);
    });
}

#[test]
fn a_header_asks_for_nothing() {
    both_ways(|ground| {
        let (entry, home) = (ground.entry(), ground.home());
        let pod = home.pod(30000, Pod::echo());
        ground.start(&[("FIRSTBYTETIMEOUT", "1s"), ("PROXYWAIT", "100ms")]);
        home.reloaded_after(|home| home.mappings("1024:30000:900:true\n"));

        // A header is made for it, the pod hears that, and knows no answer: an echo does.
        let conn = entry.open(1024);
        let header = conn.line();
        assert!(header.starts_with("PROXY TCP4 "), "{header}");
        assert!(conn.stays_quiet(WHILE));
        assert_eq!(conn.send("x").read(1), b"x");
        assert_eq!(pod.accepted(), 1);

        let silent = home.pod(30001, Pod::silent());
        home.reloaded_after(|home| home.mappings("1024:30001:900:true\n"));
        let conn = entry.open(1024);
        eventually(SOON, "it is paired", || silent.accepted() == 1);
        assert!(conn.stays_quiet(WHILE), "the header is no question");
        let since = Instant::now();
        assert_eq!(conn.send("x").ended(), Ended::Reset);
        ground.assert_in_time("a request behind a header reset", since, LIMIT);
        ground.assert_ends(home, "first_byte", "upstream", 1);
    });
}

#[test]
fn a_client_that_is_silent_while_its_server_talks() {
    both_ways(|ground| {
        let _socat = ground.ticking();
        ground.start(&[("CLIENTIDLETIMEOUT", "1s")]);
        let entry = ground.entry();
        let (silent, ended, speaks) = (entry.open(1024), entry.open(1024), entry.open(1024));
        let since = Instant::now();
        ended.half_close();
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(silent.ended(), Ended::Reset);
                ground.assert_in_time("a silent client reset", since, LIMIT);
            });
            while since.elapsed() < WHILE {
                speaks.send("x");
                thread::sleep(BEAT);
            }
        });
        ground.assert_ends(entry, "client_idle", "client", 1);
        assert_eq!(speaks.send("x").line(), "tick");
        assert_eq!(ended.line(), "tick", "nothing is expected of it any more");
    });
}

#[test]
fn a_server_that_is_silent_while_its_client_talks() {
    both_ways(|ground| {
        let _sink = ground.socat(&[
            "-u",
            "TCP-LISTEN:30000,reuseaddr,fork,backlog=100",
            "OPEN:/dev/null",
        ]);
        ground.start(&[("UPSTREAMIDLETIMEOUT", "1s")]);
        let conn = ground.entry().open(1024);
        let since = Instant::now();
        assert_eq!(speak(&conn), Ended::Reset);
        ground.assert_in_time("a silent server reset", since, LIMIT);
        ground.assert_ends(ground.home(), "upstream_idle", "upstream", 1);
    });
}

/// What socat hears that sends this, then FIN, and reads for half a minute; and whether it was reset.
fn half_closing(ground: &Ground, words: &str) -> (String, bool) {
    let to = ground.entry().port(1024);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("printf {words} | socat -d -t 30 - TCP:{to}")]);
    let output = ground.net.client().namespace().output(&mut shell);
    let [heard, warnings] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (heard, warnings.contains("Connection reset by peer"))
}

#[test]
fn what_is_half_closed_may_linger() {
    both_ways(|ground| {
        let echo = ground.socat(&["TCP-LISTEN:30000,reuseaddr,fork,backlog=100", "EXEC:cat"]);
        ground.start(&[("LINGERTIMEOUT", "1s")]);
        // Open both ways it is not half-closed.
        let whole = ground.entry().open(1024);
        assert!(whole.stays_quiet(WHILE));
        assert_eq!(half_closing(ground, "hello"), ("hello".to_owned(), false));
        assert_eq!(whole.send("x").read(1), b"x");
        drop(whole);
        echo.kill();

        let _socat = ground.ticking();
        let since = Instant::now();
        let (heard, was_reset) = half_closing(ground, "hello");
        ground.assert_in_time("a half-closed socat reset", since, LIMIT);
        assert!(was_reset && heard.starts_with("tick\n"), "{heard}");
        ground.assert_ends(ground.entry(), "linger", "client", 1);
    });
}

#[test]
fn connections_that_began_together_do_not_grow_equally_old() {
    const COUNT: usize = 20;
    both_ways(|ground| {
        let _echo = ground.socat(&["TCP-LISTEN:30000,reuseaddr,fork,backlog=100", "EXEC:cat"]);
        ground.start(&[("MAXLIFETIME", "2s 50%")]);
        let since = Instant::now();
        let conns: Vec<Conn> = (0..COUNT).map(|_| ground.entry().open(1024)).collect();
        let last_began = since.elapsed();
        let mut ages: Vec<Duration> = thread::scope(|scope| {
            let waiting: Vec<_> = conns
                .iter()
                .map(|conn| {
                    scope.spawn(|| {
                        assert_eq!(conn.ended(), Ended::Reset);
                        since.elapsed()
                    })
                })
                .collect();
            let ages = waiting.into_iter();
            ages.map(|thread| thread.join().expect("join")).collect()
        });
        ages.sort();
        assert!(ages[0] + Duration::from_millis(50) >= LIMIT, "{ages:?}");
        let spread = ages[COUNT - 1].saturating_sub(ages[0]);
        assert!(spread >= LIMIT / 10, "all ended at once: {ages:?}");
        print_figure(
            &ground.named("the oldest of 20 whose limit is 2 s"),
            Figure::Time(ages[COUNT - 1].saturating_sub(last_began)),
            Figure::Time(2 * LIMIT + Duration::from_millis(200)),
        );
        ground.assert_ends(ground.entry(), "lifetime", "client", COUNT as u64);
    });
}

#[test]
fn a_limit_that_the_other_host_does_not_have_holds_a_second_later() {
    let ground = Ground {
        net: Net::hosts(["a", "b"]),
    };
    let (entry, home) = (ground.entry(), ground.home());
    home.pod(30000, Pod::recording());
    entry.conf("FIRSTBYTETIMEOUT", "1s");
    home.conf("CLIENTIDLETIMEOUT", "1s");
    ground.start(&[]);

    let conn = entry.open(1024);
    let since = Instant::now();
    assert_eq!(conn.send("x").ended(), Ended::Reset);
    ground.assert_in_time("the first of two backups", since, 2 * LIMIT);
    // Both are due at the same moment: whichever it was, it ended once.
    let ends = || (entry.ends("first_byte"), home.ends("client_idle"));
    eventually(SOON, "it has ended", || ends() != (0, 0));

    home.reloaded_after(|home| home.conf("CLIENTIDLETIMEOUT", "0"));
    let (_, before) = ends();
    let since = Instant::now();
    assert_eq!(entry.open(1024).send("x").ended(), Ended::Reset);
    ground.assert_in_time("the client's host, of a silent pod", since, 2 * LIMIT);
    assert!(entry.ends("first_byte") >= 1);
    // The host did not answer, and may be well: the next client is carried there again.
    eventually(SOON, "it is asked again", || {
        entry.open(1024).send("x").stays_quiet(BEAT)
    });
    assert_eq!(home.ends("client_idle"), before);
}
