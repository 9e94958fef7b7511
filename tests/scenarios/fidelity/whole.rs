//! All of it, in order, both ways.

use super::{DOWN, MIB, UP, Way, hear, pour, talk, telling};
use snproxy_tests::{Figure, Noise, Pod, print_figure};
use std::{
    net::Shutdown,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

pub(super) fn a_gibibyte_each_way_at_once(way: Way) {
    let size = 1024 * MIB;
    let (tell, told) = telling();
    let ground = way.with(Pod::serving(move |guest| {
        let _ = tell.send(talk(guest.stream(), (DOWN, size), UP));
    }));

    let start = Instant::now();
    let conn = ground.open();
    let client = conn.local();
    talk(conn.stream(), (UP, size), DOWN).is_whole(size);
    told.next().is_whole(size);
    print_figure(
        &format!("{} MiB each way at once, {}", size / MIB, way.name()),
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_secs(20)),
    );
    for closed in ground.closed(client) {
        assert_eq!(closed.end, "clean");
        assert_eq!((closed.bytes_in, closed.bytes_out), (size, size));
    }
    assert!(ground.entry().steered() >= 1);
}

pub(super) fn a_hundred_mebibytes_after_a_half_close_of_the_client(way: Way) {
    let (tell, told) = telling();
    let ground = way.with(Pod::serving(move |guest| {
        let heard = hear(guest.stream(), UP);
        pour(guest.stream(), DOWN, 100 * MIB);
        let _ = tell.send(heard);
    }));

    // Before and behind the point where bulk begins.
    for size in [0, 1, 3 * MIB] {
        let conn = ground.open();
        let client = conn.local();
        pour(conn.stream(), UP, size);
        hear(conn.stream(), DOWN).is_whole(100 * MIB);
        told.next().is_whole(size);
        for closed in ground.closed(client) {
            assert_eq!(closed.end, "clean");
            assert_eq!((closed.bytes_in, closed.bytes_out), (size, 100 * MIB));
        }
    }
}

pub(super) fn a_hundred_mebibytes_after_a_half_close_of_the_pod(way: Way) {
    let (tell, told) = telling();
    let size = |visit: u64| [0, 1, 3 * MIB][usize::try_from(visit % 3).unwrap_or_default()];
    let visits = AtomicU64::new(0);
    let ground = way.with(Pod::serving(move |guest| {
        let visit = visits.fetch_add(1, Relaxed);
        pour(guest.stream(), DOWN, size(visit));
        let _ = tell.send(hear(guest.stream(), UP));
    }));

    for visit in 0..3 {
        let conn = ground.open();
        hear(conn.stream(), DOWN).is_whole(size(visit));
        pour(conn.stream(), UP, 100 * MIB);
        told.next().is_whole(100 * MIB);
    }
    ground.wait_for_all_to_be_gone();
    for host in ground.proxies() {
        assert_eq!(host.ends("clean"), 3, "on {}", host.name());
    }
}

pub(super) fn a_pod_whose_fin_waits_behind_bytes_is_read_to_the_end(way: Way) {
    let (tell, told) = telling();
    let ground = way.with(Pod::serving(move |guest| {
        pour(guest.stream(), DOWN, 4 * MIB);
        let _ = tell.send(hear(guest.stream(), UP));
    }));

    // Both FINs and the bytes pass each other; on the second port a header is waited for meanwhile.
    let conn = ground.open();
    let _ = conn.stream().shutdown(Shutdown::Write);
    hear(conn.stream(), DOWN).is_whole(4 * MIB);
    told.next().is_whole(0);
    let conn = ground.entry().open(1025);
    let _ = conn.stream().shutdown(Shutdown::Write);
    hear(conn.stream(), DOWN).is_whole(4 * MIB);
    // The pod heard a header.
    assert!(told.next().bytes > 0);

    // The pod is done before the client has said what it has to say.
    let conn = ground.open();
    let noise = Noise::bytes(UP, 1 << 20);
    conn.send(&noise[..1000]);
    hear(conn.stream(), DOWN).is_whole(4 * MIB);
    conn.send(&noise[1000..]).half_close();
    told.next().is_whole(MIB);
    ground.wait_for_all_to_be_gone();
    assert_eq!(ground.entry().ends("clean"), 3);
}
