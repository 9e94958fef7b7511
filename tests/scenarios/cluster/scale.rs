//! A hundred hosts of which ninety are dead.

use super::{PROXY_PORT, greeted, hosts_conf, serve, start_all};
use snproxy_tests::{Figure, Host, Net, eventually, print_figure};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

const DEAD: std::ops::RangeInclusive<u8> = 11..=100;
/// The last wait but one before a dead host is tried again; the one after is the longest, 30 s.
const WAIT: Duration = Duration::from_secs(16);
const LONG: Duration = Duration::from_secs(90);
/// ARP asks three times, a second apart.
const SETTLING: Duration = Duration::from_secs(3);

fn dead(address: Ipv4Addr) -> bool {
    let [.., last] = address.octets();
    DEAD.contains(&last)
}

/// The shortest time until a host that is down is tried again.
fn tried_again_after(host: &Host) -> Duration {
    let routes = host.routes();
    let hosts = routes["hosts"].as_array().expect("hosts");
    let waits: Vec<_> = hosts
        .iter()
        .filter_map(|host| host["retry_ms"].as_u64())
        .collect();
    assert_eq!(waits.len(), DEAD.count(), "{routes:#}");
    Duration::from_millis(waits.into_iter().min().unwrap_or_default())
}

/// Median, the time that all but one in a hundred keep, and the longest.
fn ranked(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort();
    let last = times.len() - 1;
    [last / 2, last * 99 / 100, last].map(|rank| times[rank])
}

#[test]
fn ninety_dead_hosts_of_a_hundred_cost_nothing_that_is_noticed() {
    let names: Vec<_> = (1..=10).map(|number| format!("h{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let net = Net::new(&names, 1);
    let (first, last) = (net.host("h1"), net.host("h10"));
    serve(last, 1);
    let dead_hosts = DEAD.map(|number| Ipv4Addr::new(10, 77, 0, number));
    let alive = names[1..]
        .iter()
        .map(|name| net.host(name).port(PROXY_PORT));
    let hosts = [first.port(PROXY_PORT)].into_iter();
    let hosts = hosts.chain(dead_hosts.clone().map(|dead| (dead, PROXY_PORT).into()));
    first.hosts(&hosts_conf(hosts.chain(alive)));
    // Of half of them ARP tells that nobody is there; the others swallow what they get.
    for address in dead_hosts.step_by(2) {
        let swallow = "lladdr 02:00:00:00:00:01 dev eth0 nud permanent";
        let namespace = first.namespace();
        namespace.ip(&format!("neighbour add {address} {swallow}"));
    }
    let IpAddr::V4(own) = first.v4() else {
        unreachable!("an IPv4 address");
    };
    let watch = first.namespace().watch(own, dead);
    let packets = || watch.syns() + watch.asked();
    start_all(&net);
    let start = Instant::now();

    let figure = |what: &str, time: Duration, limit: u64| {
        print_figure(
            &format!("100 hosts, 90 dead: {what}"),
            Figure::Time(time),
            Figure::Time(Duration::from_millis(limit)),
        );
    };
    let (name, cold) = greeted(first);
    assert_eq!(name, "h10");
    figure("first connection", cold, 300);
    let times = (0..200).map(|_| greeted(first).1).collect();
    let [median, _, worst] = ranked(times);
    figure("next 200, median", median, 10);
    figure("next 200, worst", worst, 300);

    let reset_after = |port| {
        let start = Instant::now();
        assert!(first.is_reset(port));
        start.elapsed()
    };
    // Nobody serves it, and of hosts that are silent for less than a second nobody can know.
    let unserved = "reset of a port that nobody serves";
    figure(&format!("{unserved}, at once"), reset_after(2000), 5000);

    // Clients go on until every dead host is tried as seldom as ever.
    let mut times = Vec::new();
    let mut go_on_until = |what: &str, cond: &dyn Fn() -> bool| {
        eventually(LONG, what, || {
            times.push(greeted(first).1);
            cond()
        });
    };
    let settle = |go_on_until: &mut dyn FnMut(&str, &dyn Fn() -> bool)| {
        let end = Instant::now() + SETTLING;
        go_on_until("the last packets of a round", &|| Instant::now() > end);
    };
    go_on_until("the last wait but one", &|| {
        tried_again_after(first) > WAIT / 2
    });
    settle(&mut go_on_until);
    let before = packets();
    go_on_until("the longest wait", &|| tried_again_after(first) > WAIT);
    settle(&mut go_on_until);
    let round = packets() - before;
    let half_minute = start.elapsed();
    let [median, most, _] = ranked(times);
    figure("while the dead are tried, median", median, 10);
    // Not the worst: other scenarios fill the machine's packet queues meanwhile, and a lost SYN costs a second.
    figure("while the dead are tried, 99 of 100", most, 300);
    // Hosts that are down may be back: three of them are dialed, 250 ms apart, for 1.2 s each.
    figure(&format!("{unserved}, later"), reset_after(2001), 1800);
    print_figure(
        "100 hosts, 90 dead: packets to the dead when all are tried once, every 30 s",
        Figure::Count(round),
        Figure::Count(250),
    );
    print_figure(
        &format!("100 hosts, 90 dead: packets to the dead in the first {half_minute:.0?}"),
        Figure::Count(packets()),
        Figure::Count(2000),
    );
    print_figure(
        "100 hosts, 90 dead: memory",
        Figure::Bytes(first.rss()),
        Figure::Bytes(24 << 20),
    );
    let routes = first.run(&["routes"]);
    let text = String::from_utf8_lossy(&routes.stdout).into_owned();
    assert!(routes.status.success(), "{text}");
    assert!(text.lines().count() <= 120, "{text}");
    assert!(text.lines().all(|line| line.len() <= 120), "{text}");
}
