//! A reset of one end is a reset at the other one, whenever it comes.

use super::{DOWN, MIB, MOMENT, SOON, UP, Way, telling};
use snproxy_tests::{Conn, Ended, Guest, Noise, Pod, eventually};
use std::{
    io::ErrorKind,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
};

const SEED: u64 = 4;

pub(super) fn before_the_first_byte(way: Way) {
    const AT_ONCE: usize = 60;
    let (recording, resetting) = (Pod::recording(), Pod::serving(Guest::reset_on_close));
    let ground = way.prepared([recording.clone(), resetting]).start();
    let entry = ground.entry();

    // Paired already; on the second port a header is waited for.
    for (visit, port) in [1024, 1025].into_iter().enumerate() {
        let conn = entry.open(port);
        recording.visit(visit);
        conn.reset();
        assert_eq!(recording.visit(visit).wait_for_end(), Ended::Reset);
    }
    // At any point of the way to the pod: who was reached hears the reset, never a FIN.
    for _ in 0..AT_ONCE {
        entry.open(1024).reset();
    }
    // The pod's own comes at once, also while the client is silent or a header is waited for.
    for _ in 0..AT_ONCE / 4 {
        assert!(entry.is_reset(1026) && entry.is_reset(1027));
    }
    ground.wait_for_all_to_be_gone();
    let ends = recording.visits();
    assert!(
        ends.iter()
            .all(|visit| visit.wait_for_end() == Ended::Reset)
    );
    assert_eq!(entry.ends("clean"), 0);
    assert_eq!(entry.ends("client"), 2 + AT_ONCE as u64);
}

pub(super) fn behind_a_fin_and_behind_bytes_that_nobody_takes(way: Way) {
    let stuck = Pod::serving(|guest| {
        guest.wait_for_end(None);
        guest.read_all();
    });
    let parting = Pod::serving(|guest| {
        let _ = guest.send(b"last words\n");
        guest.read_all();
        guest.reset_on_close();
    });
    let ended = Pod::answering_once("bye");
    let ground = way
        .prepared([ended.clone(), stuck.clone(), parting])
        .start();
    let entry = ground.entry();

    let conn = entry.open(1024);
    assert_eq!(conn.rest(SOON), (b"bye\n".to_vec(), Ended::Eof));
    conn.reset();
    assert_eq!(ended.visit(0).wait_for_end(), Ended::Reset);

    // The proxies hold bytes for the pod, and wait for room.
    let conn = entry.open(1026);
    conn.offer(&vec![0; 64 << 20], MOMENT);
    conn.reset();
    eventually(SOON, "the reset passes what waits", || {
        stuck.visit(0).ended() == Some(Ended::Reset)
    });

    // After the client's FIN: what came before the reset is there.
    let conn = entry.open(1028);
    assert_eq!(conn.line(), "last words");
    assert_eq!(conn.half_close().ended(), Ended::Reset);
    ground.wait_for_all_to_be_gone();
    for host in ground.proxies() {
        assert_eq!((host.ends("client"), host.ends("upstream")), (2, 1));
    }
}

/// How far the one that resets has come, and what the other one does meanwhile.
#[derive(Clone, Copy, Debug)]
struct Cut {
    after: u64,
    /// All of it has been heard before the reset.
    awaited: bool,
    /// The other end sends as well, and nobody reads it.
    answered: bool,
}

/// Around the points where a mechanism may change.
fn cuts() -> Vec<Cut> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut cut = |number: u64| Cut {
        after: (16 << 10) + (number / 4) * (31 << 10) + random.u64(0..31 << 10),
        awaited: number.is_multiple_of(2),
        answered: (number / 2).is_multiple_of(2),
    };
    // 16 of them, each in four variants: up to 512 KiB.
    (0..64).map(&mut cut).collect()
}

pub(super) fn where_bulk_begins(way: Way) {
    let heard = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&heard);
    let (tell, told) = telling();
    let (order, orders) = telling::<Cut>();
    let listening = Pod::serving(move |guest| {
        let cut = orders.next();
        let _ = tell.send(hear_the_cut(guest.stream(), UP, cut.answered, &count));
    });
    let (next, cuts_to_make) = telling::<Cut>();
    let (go, may_go) = telling::<()>();
    let resetting = Pod::serving(move |guest| {
        let cut = cuts_to_make.next();
        let _ = Noise::new(DOWN).pour(guest.stream(), cut.after, &AtomicU64::new(0));
        if cut.awaited {
            may_go.next();
        }
        guest.reset_on_close();
    });
    let ground = way.prepared([listening, resetting]).start();

    for cut in cuts() {
        // By the client.
        order.send(cut).expect("order");
        let conn = ground.entry().open(1024);
        heard.store(0, Relaxed);
        Noise::new(UP)
            .pour(conn.stream(), cut.after, &AtomicU64::new(0))
            .expect("send");
        if cut.awaited {
            eventually(SOON, "all is heard", || heard.load(Relaxed) == cut.after);
        }
        conn.reset();
        check(cut, told.next());

        // By the pod.
        next.send(cut).expect("order");
        let conn = ground.entry().open(1026);
        let heard = AtomicU64::new(0);
        let bytes = thread::scope(|scope| {
            let stream = conn.stream();
            let hearing = scope.spawn(|| hear_the_cut(stream, DOWN, cut.answered, &heard));
            if cut.awaited {
                eventually(SOON, "all is heard", || heard.load(Relaxed) == cut.after);
                go.send(()).expect("go");
            }
            hearing.join().expect("join")
        });
        check(cut, bytes);
    }
    ground.wait_for_all_to_be_gone();
    for host in ground.proxies() {
        assert_eq!((host.ends("client"), host.ends("upstream")), (64, 64));
        assert_eq!(host.ends("clean"), 0);
    }
}

/// A reset may overtake what is on its way, but only that.
#[track_caller]
fn check(cut: Cut, bytes: u64) {
    assert!(bytes <= cut.after, "{bytes} of {cut:?}");
    if cut.awaited {
        assert_eq!(bytes, cut.after, "{cut:?}");
    }
}

/// Listens to the end, which must be a reset, and talks meanwhile if asked to; gives what came.
#[track_caller]
fn hear_the_cut(stream: &TcpStream, seed: u64, talking: bool, count: &AtomicU64) -> u64 {
    thread::scope(|scope| {
        let talking = talking.then(|| {
            scope.spawn(|| {
                let mut noise = Noise::new(seed + 1);
                let poured = noise.pour(stream, u64::MAX, &AtomicU64::new(0));
                poured.expect_err("it ends by the reset").kind()
            })
        });
        let mut heard = Noise::new(seed).hear(stream, u64::MAX, count);
        // A socket tells of its reset once: to who writes, or to who reads.
        let told = talking.map(|talking| talking.join().expect("join"));
        if told == Some(ErrorKind::ConnectionReset) && heard.ended == Ended::Eof {
            heard.ended = Ended::Reset;
        }
        heard.is_cut()
    })
}

pub(super) fn while_bytes_are_in_flight_both_ways(way: Way) {
    const ROUNDS: u64 = 8;
    let (tell, told) = telling();
    let listening = Pod::serving(move |guest| {
        let _ = tell.send(hear_the_cut(guest.stream(), UP, true, &AtomicU64::new(0)));
    });
    let (next, sizes) = telling::<u64>();
    let (tell, sent) = telling::<u64>();
    let resetting = Pod::serving(move |guest| {
        let _ = tell.send(talk_for_a_while(
            guest.stream(),
            DOWN,
            DOWN + 1,
            sizes.next(),
        ));
        guest.reset_on_close();
    });
    let ground = way.prepared([listening, resetting]).start();

    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 0..ROUNDS {
        let size = random.u64(MIB..8 * MIB);
        let conn = ground.entry().open(1024);
        let sent_here = talk_for_a_while(conn.stream(), UP, UP + 1, size);
        conn.reset();
        assert!(told.next() <= sent_here);

        next.send(size).expect("order");
        let conn: Conn = ground.entry().open(1026);
        let heard = hear_the_cut(conn.stream(), DOWN, true, &AtomicU64::new(0));
        assert!(heard <= sent.next());
    }
    ground.wait_for_all_to_be_gone();
    for host in ground.proxies() {
        assert_eq!(
            (host.ends("client"), host.ends("upstream")),
            (ROUNDS, ROUNDS)
        );
    }
}

/// Sends until that many bytes have come, which are checked; gives how many it sent.
#[track_caller]
fn talk_for_a_while(stream: &TcpStream, say: u64, listen: u64, size: u64) -> u64 {
    let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut noise = Noise::new(say);
            while !done.load(Relaxed) {
                if noise.pour(stream, 10_000, &sent).is_err() {
                    break;
                }
            }
        });
        let heard = Noise::new(listen).hear(stream, size, &AtomicU64::new(0));
        done.store(true, Relaxed);
        assert_eq!((heard.bytes, heard.wrong_at), (size, None));
    });
    sent.load(Relaxed)
}
