//! A reset of one end is a reset at the other one, whenever it comes.

use super::{DOWN, MIB, MOMENT, SOON, UP, Way, telling};
use snproxy_tests::{Ended, Guest, Noise, Pod, eventually};
use std::{
    io::{ErrorKind, Read},
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

const LISTEN: u8 = b'l';
const SPEAK: u8 = b's';

impl Cut {
    /// What the pod is told: a word, and this.
    fn words(self, word: u8) -> Vec<u8> {
        let mut words = vec![word, u8::from(self.awaited), u8::from(self.answered)];
        words.extend(self.after.to_le_bytes());
        words
    }

    fn read(guest: &Guest) -> Result<(u8, Self), ErrorKind> {
        let mut words = [0; 11];
        let read = guest.stream().read_exact(&mut words);
        read.map_err(|error| error.kind())?;
        let [word, awaited, answered, after @ ..] = words;
        let cut = Self {
            after: u64::from_le_bytes(after),
            awaited: awaited == 1,
            answered: answered == 1,
        };
        Ok((word, cut))
    }
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
    let (go, may_go) = telling::<()>();
    // The first bytes tell the pod what it is to do: a reset before them might meet the dial.
    let pod = Pod::serving(move |guest| {
        let (word, cut) = match Cut::read(guest) {
            Ok(words) => words,
            // A FIN, which nobody sent: more than could ever have come.
            Err(ErrorKind::UnexpectedEof) => {
                let _ = tell.send(u64::MAX);
                return;
            }
            Err(_) => return,
        };
        if word == LISTEN {
            let _ = tell.send(hear_the_cut(guest.stream(), UP, cut.answered, &count));
            return;
        }
        let _ = Noise::new(DOWN).pour(guest.stream(), cut.after, &AtomicU64::new(0));
        if cut.awaited {
            may_go.next();
        }
        guest.reset_on_close();
    });
    let ground = way.with(pod);

    for cut in cuts() {
        // By the client.
        let conn = ground.open();
        conn.send(cut.words(LISTEN));
        heard.store(0, Relaxed);
        Noise::new(UP)
            .pour(conn.stream(), cut.after, &AtomicU64::new(0))
            .expect("send");
        if cut.awaited {
            eventually(SOON, "all is heard", || heard.load(Relaxed) == cut.after);
            conn.reset();
            check(cut, told.next());
        } else {
            // It may void the words themselves.
            conn.reset();
            if let Some(bytes) = told.next_within(MOMENT) {
                check(cut, bytes);
            }
        }

        // By the pod.
        let conn = ground.open();
        conn.send(cut.words(SPEAK));
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
    assert_eq!(ground.entry().ends("client"), 64);
    for host in ground.proxies() {
        // What was reset on the way to the other host may have said nothing there.
        assert_eq!((host.ends("upstream"), host.ends("clean")), (64, 0));
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
    let pod = Pod::serving(move |guest| {
        let Ok((word, cut)) = Cut::read(guest) else {
            return;
        };
        let bytes = if word == LISTEN {
            hear_the_cut(guest.stream(), UP, true, &AtomicU64::new(0))
        } else {
            talk_for_a_while(guest.stream(), DOWN, DOWN + 1, cut.after)
        };
        let _ = tell.send(bytes);
        guest.reset_on_close();
    });
    let ground = way.with(pod);

    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 0..ROUNDS {
        let cut = Cut {
            after: random.u64(MIB..8 * MIB),
            awaited: false,
            answered: true,
        };
        let conn = ground.open();
        conn.send(cut.words(LISTEN));
        let sent = talk_for_a_while(conn.stream(), UP, UP + 1, cut.after);
        conn.reset();
        assert!(told.next() <= sent);

        let conn = ground.open();
        conn.send(cut.words(SPEAK));
        let heard = hear_the_cut(conn.stream(), DOWN, true, &AtomicU64::new(0));
        assert!(heard <= told.next());
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
