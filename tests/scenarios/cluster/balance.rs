//! Every pod of the cluster gets its share, though each host sees only its own.

use super::{PORT, SOON, greeted_at, map, serve, start_all};
use snproxy_tests::{Conn, Figure, Host, Net, Pod, eventually, print_figure};
use std::{net::SocketAddr, thread};

const THREADS: usize = 3;

/// Opens `count` connections to these hosts in turn.
fn visit(net: &Net, hosts: &[&Host], count: usize) {
    let to: Vec<SocketAddr> = hosts.iter().map(|host| host.port(PORT)).collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let to = &to;
            scope.spawn(move || {
                net.client().run(|| {
                    for turn in 0..count / THREADS {
                        greeted_at(to[(thread + turn) % to.len()]);
                    }
                });
            });
        }
    });
}

fn accepted(pods: &[Pod]) -> Vec<usize> {
    pods.iter().map(Pod::accepted).collect()
}

/// Fails unless every pod got its part of `count`, give or take a quarter of it or `slack`.
#[track_caller]
fn is_fair(what: &str, got: &[usize], count: usize, slack: usize) {
    assert_eq!(got.iter().sum::<usize>(), count, "{what}: {got:?}");
    let fair = count / got.len();
    let most = got.iter().copied().max().unwrap_or_default();
    let least = got.iter().copied().min().unwrap_or_default();
    let off = (most - fair).max(fair - least);
    let limit = (fair / 4).max(slack);
    print_figure(
        &format!("{what}: from {least} to {most}, off {fair} by at most"),
        Figure::Count(off as u64),
        Figure::Count(limit as u64),
    );
    assert!(off <= limit, "{what}: {got:?}");
}

/// A host with so many pods for each number; all with this BALANCE, started.
fn cluster<const N: usize>(policy: &str, pods: [u16; N]) -> (Net, Vec<Pod>) {
    let names = ["a", "b", "c"];
    let net = Net::new(&names[..N], 1);
    let pods = net
        .all_hosts()
        .iter()
        .zip(pods)
        .flat_map(|(host, pods)| {
            host.conf("BALANCE", policy);
            serve(host, pods)
        })
        .collect();
    start_all(&net);
    (net, pods)
}

/// `count` connections to one host, and as many to all.
#[track_caller]
fn spreads<const N: usize>(policy: &str, shape: [u16; N], count: usize) {
    let (net, pods) = cluster(policy, shape);
    let all: Vec<_> = net.all_hosts().iter().collect();
    for (whom, hosts) in [("one host", &all[..1]), ("all", &all[..])] {
        let before = accepted(&pods);
        visit(&net, hosts, count);
        let after = accepted(&pods);
        let got: Vec<_> = after
            .iter()
            .zip(before)
            .map(|(now, then)| now - then)
            .collect();
        is_fair(
            &format!("{policy}, pods {shape:?}, to {whom}"),
            &got,
            count,
            0,
        );
    }
}

#[test]
fn p2c_spreads_over_three_hosts_of_two_pods() {
    spreads("p2c", [2, 2, 2], 6000);
}

#[test]
fn p2c_spreads_over_one_pod_here_and_five_there() {
    spreads("p2c", [1, 5], 6000);
}

#[test]
fn round_robin_spreads_over_hosts() {
    spreads("rr", [2, 2, 2], 3000);
    spreads("rr", [1, 5], 3000);
}

#[test]
fn random_spreads_over_hosts() {
    spreads("random", [2, 2, 2], 3000);
    spreads("random", [1, 5], 3000);
}

#[test]
fn connections_that_stay_are_spread_as_well() {
    const COUNT: usize = 300;
    let (net, pods) = cluster("p2c", [1, 3, 2]);
    for (whom, hosts) in [("one host", 1), ("all", 3)] {
        let to: Vec<_> = net.all_hosts()[..hosts]
            .iter()
            .map(|host| host.port(PORT))
            .collect();
        let held: Vec<Conn> = net.client().run(|| {
            let open = |turn| {
                let conn = Conn::connect(to[turn % to.len()], SOON).expect("connect");
                conn.greeting();
                conn
            };
            (0..COUNT).map(open).collect()
        });
        let inside: Vec<_> = pods.iter().map(Pod::inside).collect();
        // A host knows what it sent itself and lets small differences pass, so each adds an error of its own.
        is_fair(&format!("300 held open, to {whom}"), &inside, COUNT, 10);
        drop(held);
        eventually(SOON, "all have left", || {
            pods.iter().all(|pod| pod.inside() == 0)
        });
    }
}

#[test]
fn a_pod_that_comes_later_on_another_host_gets_its_share() {
    const WINDOW: usize = 300;
    let (net, mut pods) = cluster("p2c", [1, 1]);
    let (a, b) = (net.host("a"), net.host("b"));
    visit(&net, &[a], WINDOW);

    pods.push(b.pod(30001, Pod::answering("b")));
    b.reloaded_after(|b| map(b, 2, 10_000));
    let shared = |got: &[usize]| {
        got.iter()
            .all(|&got| got.abs_diff(WINDOW / 3) <= WINDOW / 12)
    };
    let after = eventually(SOON, "a third of the connections each", || {
        let before = accepted(&pods);
        visit(&net, &[a], WINDOW);
        let now = accepted(&pods);
        let got: Vec<_> = now
            .iter()
            .zip(before)
            .map(|(now, then)| now - then)
            .collect();
        shared(&got)
    });
    print_figure(
        "a new pod elsewhere: has its share after",
        Figure::Time(after),
        Figure::Time(std::time::Duration::from_secs(3)),
    );

    // And it loses it when it goes.
    b.reloaded_after(|b| map(b, 1, 10_000));
    let before = pods[2].accepted();
    visit(&net, &[a], WINDOW);
    assert_eq!(pods[2].accepted(), before);
}
