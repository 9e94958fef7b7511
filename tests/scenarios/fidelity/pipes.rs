//! What bulk takes, it gives back.

use super::{DOWN, Ground, MIB, MOMENT, UP, Way, hear, talk, wait_until_stopped};
use snproxy_tests::{Conn, Figure, Host, Noise, Pod, print_figure};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

/// Most descriptors that a proxy keeps for bulk to come, and a few that come and go.
pub(super) const POOL: usize = 520;

pub(super) fn nothing_is_left_behind_by_bulk_and_by_resets_in_its_middle(way: Way) {
    const STUCK: usize = 60;
    // Two workers with 32 empty pipes each, and what proxies keep open to each other: spare connections too.
    const KEPT: usize = 2 * 32 * 2 + 20;
    let talking = Pod::serving(|guest| {
        // Each connection has bytes of its own: what is left in a pipe is not mistaken for what should be there.
        let mut own = [0; 8];
        if guest.stream().peek(&mut own).is_ok() && guest.read(&mut own).is_ok() {
            let seed = u64::from_le_bytes(own);
            talk(guest.stream(), (seed + 1, 4 * MIB), seed);
        }
    });
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let round_now = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&round_now);
    let pouring = Pod::serving(move |guest| {
        // The round at the end of which it resets; 0: it does not.
        let mut resets = [0];
        let _ = guest.read(&mut resets);
        // Until nothing has been taken for a moment.
        let _ = guest.stream().set_write_timeout(Some(MOMENT / 2));
        let _ = Noise::new(DOWN).pour(guest.stream(), u64::MAX, &count);
        while !guest.wait_for_end(Some(MOMENT / 40)) {
            if resets != [0] && now.load(Relaxed) >= u64::from(resets[0]) {
                guest.reset_on_close();
                break;
            }
        }
    });
    let ground = way.prepared([talking, pouring]);
    for host in ground.proxies() {
        host.conf("WORKERS", "2");
    }
    let ground = ground.start();
    let at_rest: Vec<_> = ground.proxies().iter().map(descriptors).collect();
    let before: Vec<_> = ground.proxies().iter().map(open_pipes).collect();
    let streams = |first: u64| {
        thread::scope(|scope| {
            for seed in first..first + 6 {
                let ground = &ground;
                scope.spawn(move || stream(ground, seed));
            }
        });
    };

    let mut after = Vec::new();
    for round in 1..=3u8 {
        let seed = |part: u64| 1000 * (3 * u64::from(round) + part);
        streams(seed(1));
        // Their pipes are full when the reset comes, from either side.
        sent.store(0, Relaxed);
        let resets = |at: usize| if at.is_multiple_of(2) { round } else { 0 };
        let stuck: Vec<_> = (0..STUCK).map(|at| stick(&ground, resets(at))).collect();
        wait_until_stopped(&sent);
        for (host, before) in ground.proxies().iter().zip(&before) {
            expect_pipes(way, host, open_pipes(host).saturating_sub(*before));
        }
        // Half of the pods at once, and their clients read only then; the other half by the client, among streams.
        round_now.store(u64::from(round), Relaxed);
        streams(seed(2));
        thread::sleep(MOMENT);
        for (at, conn) in stuck.into_iter().enumerate() {
            if resets(at) > 0 {
                hear(conn.stream(), DOWN).is_cut();
            } else {
                conn.reset();
            }
            if at % 20 == 10 {
                streams(seed(2) + 10 * at as u64);
            }
        }
        ground.wait_for_all_to_be_gone();
        streams(seed(3));
        ground.wait_for_all_to_be_gone();
        thread::sleep(MOMENT);
        after.push(ground.proxies().iter().map(descriptors).collect::<Vec<_>>());
    }
    for (at, at_rest) in at_rest.into_iter().enumerate() {
        let counts: Vec<_> = after.iter().map(|round| round[at]).collect();
        let most = at_rest + KEPT;
        print_figure(
            &format!(
                "descriptors after three rounds of bulk and resets, {at_rest} before, {}",
                way.name()
            ),
            Figure::Count(counts[2] as u64),
            Figure::Count(most as u64),
        );
        assert!(counts.iter().all(|count| *count <= most), "{counts:?}");
    }
}

/// A connection of which the client reads nothing, and its pod resets it at the end of a round, or does not.
#[track_caller]
fn stick(ground: &Ground, resets: u8) -> Conn {
    let conn = ground.entry().open(1026);
    conn.send([resets]);
    conn
}

/// One checked stream each way.
#[track_caller]
fn stream(ground: &Ground, seed: u64) {
    let seed = UP + 2 * seed;
    let conn = ground.open();
    conn.send(seed.to_le_bytes());
    talk(conn.stream(), (seed, 4 * MIB), seed + 1).is_whole(4 * MIB);
}

fn descriptors(host: &Host) -> usize {
    host.snproxy().descriptors()
}

fn open_pipes(host: &Host) -> usize {
    let folder = format!("/proc/{}/fd", host.snproxy().pid());
    let descriptors = fs::read_dir(folder).expect("a running process").flatten();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}

/// While many wait in bulk.
#[track_caller]
fn expect_pipes(way: Way, host: &Host, pipes: usize) {
    let name = host.name();
    match way.pump {
        "copy" => assert_eq!(pipes, 0, "on {name}"),
        pump => assert!(pipes > 0, "{pump} has no pipe in use on {name}"),
    }
}
