//! Who is slow stops who sends, and nothing but the buffers of the way is held.

use super::{DOWN, Ground, MIB, UP, Way, hear, telling, wait_until_stopped};
use snproxy_tests::{Ended, Figure, Host, Noise, Pod, print_figure};
use std::{
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

/// More than all kernel buffers of a way take: 32 MiB to receive and 4 MiB to send, per socket.
const SIZE: u64 = 256 * MIB;

pub(super) fn a_client_that_pauses_stops_its_pod_and_misses_nothing(way: Way) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let ground = way.with(Pod::serving(move |guest| {
        let _ = Noise::new(DOWN).pour(guest.stream(), SIZE, &count);
        let _ = guest.stream().shutdown(Shutdown::Write);
        hear(guest.stream(), UP);
    }));
    let before = memory(&ground);

    let conn = ground.open();
    read_with_pauses(&ground, "client", conn.stream(), DOWN, &sent, &before);
    drop(conn);
    ground.wait_for_all_to_be_gone();
    assert_eq!(ground.entry().ends("clean"), 1);
}

pub(super) fn a_pod_that_pauses_stops_its_client_and_misses_nothing(way: Way) {
    // The pod's side is played by the scenario.
    let (tell, told) = telling();
    let (free, freed) = telling::<()>();
    let ground = way.with(Pod::serving(move |guest| {
        let _ = tell.send(guest.stream().try_clone());
        freed.next();
    }));
    let before = memory(&ground);

    let conn = ground.open();
    let stream = told.next().expect("clone");
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = Noise::new(UP).pour(conn.stream(), SIZE, &sent);
            conn.half_close();
        });
        read_with_pauses(&ground, "pod", &stream, UP, &sent, &before);
    });
    drop(stream);
    free.send(()).expect("free");
    assert_eq!(conn.ended(), Ended::Eof);
    ground.wait_for_all_to_be_gone();
    assert_eq!(ground.entry().ends("clean"), 1);
}

fn memory(ground: &Ground) -> Vec<u64> {
    ground.proxies().iter().map(Host::rss).collect()
}

/// Reads only once nothing moves any more: at the start, and again in the middle.
#[track_caller]
fn read_with_pauses(
    ground: &Ground,
    who: &str,
    from: &TcpStream,
    seed: u64,
    sent: &AtomicU64,
    before: &[u64],
) {
    let mut noise = Noise::new(seed);
    let heard = AtomicU64::new(0);
    for place in ["at the start", "in the middle"] {
        let taken = wait_until_stopped(sent) - heard.load(Relaxed);
        let way = ground.way.name();
        print_figure(
            &format!("taken for a {who} that does not read {place}, {way}"),
            Figure::Bytes(taken),
            Figure::Bytes(60 * MIB * ground.proxies().len() as u64),
        );
        assert!(sent.load(Relaxed) < SIZE, "it was not stopped");
        for (host, before) in ground.proxies().iter().zip(before) {
            print_figure(
                &format!("memory held for a {who} that does not read {place}, {way}"),
                Figure::Bytes(host.rss().saturating_sub(*before)),
                Figure::Bytes(2 * MIB),
            );
        }
        let some = noise.hear(from, SIZE / 4, &heard);
        assert_eq!((some.bytes, some.wrong_at), (SIZE / 4, None), "{place}");
    }
    noise.hear(from, u64::MAX, &heard).is_whole(SIZE / 2);
}
