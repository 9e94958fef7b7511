//! Many connections one after the other and side by side, of every size.

use super::{SOON, Way};
use snproxy_tests::{Conn, Figure, Noise, Pod, print_figure};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const CONNECTIONS: usize = 10_000;
const THREADS: usize = 4;
const SEED: u64 = 20_261_121;
/// What an echo may fill before its client reads.
const AT_ONCE: u64 = 16 << 10;

pub(super) fn ten_thousand_connections_of_all_sizes(way: Way) {
    let ground = way.prepared([Pod::echo()]);
    for host in ground.proxies() {
        // A line for each of them is nothing that anybody waits for.
        host.conf("LOGLEVEL", "info");
    }
    let ground = ground.start();
    let to = ground.entry().port(1024);
    let moved = AtomicU64::new(0);

    let start = Instant::now();
    let work = |thread: usize| {
        for number in (thread..CONNECTIONS).step_by(THREADS) {
            let seed = SEED + number as u64;
            let conn = Conn::connect(to, SOON).expect("connect");
            let size = size(seed);
            moved.fetch_add(size, Relaxed);
            exchange(&conn, seed, size);
        }
    };
    ground.net.client().run(|| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                // Threads of one in a namespace are in it as well.
                scope.spawn(move || work(thread));
            }
        });
    });
    print_figure(
        &format!(
            "10,000 connections, {} MiB each way, {}",
            moved.load(Relaxed) >> 20,
            way.name()
        ),
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_secs(30)),
    );
    ground.wait_for_all_to_be_gone();
    assert_eq!(ground.entry().ends("clean"), CONNECTIONS as u64);
}

/// From 1 byte to 1 MiB, as many of each order of magnitude.
fn size(seed: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let magnitude = random.u32(0..20);
    random.u64(1 << magnitude..=2 << magnitude)
}

/// Sends noise in pieces of random sizes to a pod that sends it back, and checks what comes.
#[track_caller]
fn exchange(conn: &Conn, seed: u64, size: u64) {
    let mut said = Noise::new(seed);
    let mut due = Noise::new(seed);
    let mut random = fastrand::Rng::with_seed(!seed);
    let none = AtomicU64::new(0);
    let stream = conn.stream();
    // Asked and answered piece by piece, then the rest at once.
    let mut left = size;
    for _ in 0..2 {
        let piece = random.u64(1..=left.min(AT_ONCE));
        said.pour(stream, piece, &none).expect("send");
        let heard = due.hear(stream, piece, &none);
        assert_eq!((heard.bytes, heard.wrong_at), (piece, None), "seed {seed}");
        left -= piece;
        if left == 0 {
            break;
        }
    }
    let heard = thread::scope(|scope| {
        let mut rest = || {
            said.pour(stream, left, &none).expect("send");
            conn.half_close();
        };
        if left > AT_ONCE {
            scope.spawn(rest);
        } else {
            rest();
        }
        due.hear(stream, u64::MAX, &none)
    });
    heard.is_whole(left);
}
