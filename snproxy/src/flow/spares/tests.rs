use std::io::Read;
use std::net::TcpListener;
use std::thread::sleep;

use super::*;

/// For what happens on loopback at once, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

/// Spare connections, and a host that they lead to.
fn host() -> (Spares, TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (Spares::default(), listener, addr)
}

fn waiting(spares: &Spares, addr: SocketAddr) -> usize {
    let hosts = spares.hosts();
    let waiting = hosts.by_addr.values().map(|kept| kept.waiting.len());
    assert_eq!(hosts.count, waiting.sum::<usize>());
    hosts
        .by_addr
        .get(&addr)
        .map_or(0, |kept| kept.waiting.len())
}

/// One look of the daemon, at the hosts that are there.
fn look(spares: &Spares, now: Instant) {
    let gone = spares.hosts().look(|_| true, Options::default(), now);
    drop(gone);
}

fn eventually(cond: impl Fn() -> bool) {
    let start = Instant::now();
    while !cond() {
        assert!(start.elapsed() < SOON);
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_line_goes_over_a_connection_that_was_there() {
    let (spares, listener, addr) = host();
    let now = Instant::now();
    assert!(spares.take(addr, now).is_none(), "nobody has called");
    spares.used(addr, Options::default(), now);
    let (mut accepted, _) = listener.accept().unwrap();
    spares.take(addr, now).unwrap().send(b"line").unwrap();
    let mut heard = String::new();
    accepted.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "line");
    assert_eq!(waiting(&spares, addr), 0);
}

#[test]
fn there_are_more_where_calls_come_faster_and_fewer_later() {
    let (spares, _listener, addr) = host();
    let now = Instant::now();
    let mut counts = Vec::new();
    for _ in 0..6 {
        // As many calls as there are, and one that finds none.
        while spares.take(addr, now).is_some() {}
        for _ in 0..MOST_OF_ONE {
            spares.used(addr, Options::default(), now);
        }
        counts.push(waiting(&spares, addr));
    }
    assert_eq!(counts, [1, 2, 4, 8, 8, 8]);

    let mut counts = Vec::new();
    for _ in 0..8 {
        for _ in 0..LOOKS {
            look(&spares, now);
        }
        drop(spares.take(addr, now));
        spares.used(addr, Options::default(), now);
        counts.push(waiting(&spares, addr));
    }
    // The first of these looks finds that they had run out.
    assert_eq!(counts, [8, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn one_waits_for_half_a_minute() {
    let (spares, _listener, addr) = host();
    let start = Instant::now();
    spares.used(addr, Options::default(), start);
    look(&spares, after(start, 29));
    assert_eq!(waiting(&spares, addr), 1);
    // Also for who calls before the look.
    assert!(spares.take(addr, after(start, 30)).is_none());
    spares.used(addr, Options::default(), start);
    look(&spares, after(start, 30));
    assert!(spares.hosts().by_addr.is_empty(), "and nothing is kept");
}

#[test]
fn a_host_that_closes_one_gets_none_for_a_minute() {
    let closes = [
        // Found by a look, and by a call.
        look as fn(&Spares, Instant),
        |spares, now| {
            let addr = *spares.hosts().by_addr.keys().next().unwrap();
            drop(spares.take(addr, now));
        },
    ];
    for find in closes {
        let (spares, listener, addr) = host();
        let start = Instant::now();
        spares.missed(addr);
        spares.used(addr, Options::default(), start);
        spares.missed(addr);
        spares.used(addr, Options::default(), start);
        assert_eq!(waiting(&spares, addr), 2);
        drop(listener.accept().unwrap());
        let oldest = || spares.hosts().by_addr[&addr].waiting[0].look();
        eventually(|| oldest() == Looked::Closed);
        find(&spares, start);
        assert_eq!(waiting(&spares, addr), 0, "the others would follow");
        for seconds in [0, 29, 59] {
            look(&spares, after(start, seconds));
            spares.used(addr, Options::default(), after(start, seconds));
            assert_eq!(waiting(&spares, addr), 0, "after {seconds} s");
        }
        spares.used(addr, Options::default(), after(start, 60));
        assert_eq!(waiting(&spares, addr), 1);
    }
}

#[test]
fn a_host_that_refuses_has_not_closed_one() {
    let (spares, listener, addr) = host();
    drop(listener);
    let now = Instant::now();
    spares.used(addr, Options::default(), now);
    eventually(|| {
        look(&spares, now);
        waiting(&spares, addr) == 0
    });
    spares.used(addr, Options::default(), now);
    assert_eq!(waiting(&spares, addr), 1);
}

#[test]
fn a_host_that_is_gone_or_called_from_elsewhere_loses_its_own() {
    let (spares, _listener, addr) = host();
    let now = Instant::now();
    let elsewhere = Options {
        from: Some([127, 0, 0, 1].into()),
        ..Options::default()
    };
    for (is_host, options) in [(false, Options::default()), (true, elsewhere)] {
        spares.used(addr, Options::default(), now);
        assert_eq!(waiting(&spares, addr), 1);
        let gone = spares.hosts().look(|_| is_host, options, now);
        assert_eq!((gone.len(), waiting(&spares, addr)), (1, 0));
    }
}

#[test]
fn there_are_none_where_descriptors_are_few() {
    let (mut spares, _listener, addr) = host();
    let now = Instant::now();
    spares.used(addr, Options::default(), now);
    spares.give_way(now);
    spares.used(addr, Options::default(), now);
    assert_eq!(waiting(&spares, addr), 0);
    spares.used(addr, Options::default(), after(now, 1));
    assert_eq!(waiting(&spares, addr), 1);

    spares.high = 0;
    spares.missed(addr);
    spares.used(addr, Options::default(), after(now, 1));
    assert_eq!(waiting(&spares, addr), 1);
    assert!(spares.hosts().scarce.is_some());

    spares.most = 1;
    spares.high = i32::MAX;
    spares.used(addr, Options::default(), after(now, 2));
    assert_eq!(waiting(&spares, addr), 1, "so many in all");
}

#[test]
fn none_is_made_after_they_were_closed() {
    let (spares, listener, addr) = host();
    let now = Instant::now();
    spares.used(addr, Options::default(), now);
    spares.close();
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
    spares.used(addr, Options::default(), now);
    assert_eq!(waiting(&spares, addr), 0);
}
