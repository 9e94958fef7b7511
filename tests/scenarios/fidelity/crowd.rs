//! Many that are slow at once.

use super::{DOWN, MIB, SOON, UP, Way, hear, pour, wait_until_stopped};
use snproxy_tests::{Conn, Figure, Host, Noise, Pod, eventually, print_figure};
use std::{
    net::Shutdown,
    sync::{Arc, atomic::AtomicU64},
};

const CLIENTS: usize = 300;

pub(super) fn three_hundred_half_closed_clients_that_do_not_read(way: Way) {
    const SIZE: u64 = 8 * MIB;
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let pod = Pod::serving(move |guest| {
        let heard = hear(guest.stream(), UP);
        if heard.bytes == 1 {
            let _ = Noise::new(DOWN).pour(guest.stream(), SIZE, &count);
        }
        let _ = guest.stream().shutdown(Shutdown::Write);
    });
    let ground = way.with(pod.clone());
    let start = |host: &Host| (host.rss(), host.snproxy().descriptors());
    let before: Vec<_> = ground.proxies().iter().map(start).collect();

    let crowd: Vec<Conn> = (1..=CLIENTS)
        .map(|number| {
            let conn = ground.open();
            pour(conn.stream(), UP, 1);
            // One after the other: how many may come at once is another matter.
            eventually(SOON, "it is paired", || pod.accepted() == number);
            conn
        })
        .collect();
    let taken = wait_until_stopped(&sent);
    assert!(taken < SIZE * CLIENTS as u64, "they were not stopped");
    let name = way.name();
    print_figure(
        &format!("taken for each of 300 that do not read, {name}"),
        Figure::Bytes(taken / CLIENTS as u64),
        Figure::Bytes(8 * MIB * ground.proxies().len() as u64),
    );
    for (host, (memory, descriptors)) in ground.proxies().iter().zip(&before) {
        print_figure(
            &format!("memory for each of 300 that do not read, {name}"),
            Figure::Bytes(host.rss().saturating_sub(*memory) / CLIENTS as u64),
            // One buffer of the copy mechanism, and what else a connection costs.
            Figure::Bytes(80 << 10),
        );
        print_figure(
            &format!("descriptors for 300 that do not read, {name}"),
            Figure::Count((host.snproxy().descriptors() - descriptors) as u64),
            // Two sockets, and a pipe for the one direction that moves.
            Figure::Count(4 * CLIENTS as u64 + 100),
        );
    }

    // Who reads is served meanwhile; one in ten of the crowd reads on in the end and misses nothing.
    let conn = ground.open();
    pour(conn.stream(), UP, 1);
    hear(conn.stream(), DOWN).is_whole(SIZE);
    for (at, conn) in crowd.into_iter().enumerate() {
        if at % 10 == 0 {
            hear(conn.stream(), DOWN).is_whole(SIZE);
        } else {
            conn.reset();
        }
    }
    drop(conn);
    ground.wait_for_all_to_be_gone();
    assert_eq!(ground.entry().ends("clean"), 31);
    assert_eq!(ground.entry().ends("client"), 270);
    for (host, (_, descriptors)) in ground.proxies().iter().zip(before) {
        eventually(SOON, "descriptors as before, but for a pool", || {
            host.snproxy().descriptors() <= descriptors + super::pipes::POOL
        });
    }
}
