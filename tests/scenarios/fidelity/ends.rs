//! Ends that a proxy is told of, and those that it tells.

use super::{DOWN, MIB, SOON, UP, Way, hear, telling};
use snproxy_tests::{Conn, Ended, Heard, Noise, Pod, eventually};
use std::{
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

pub(super) fn a_killed_proxy_is_an_end_at_both_ends(way: Way) {
    let victims = 1 + usize::from(way.across());
    for victim in 0..victims {
        let (tell, told) = telling();
        let ground = way.with(Pod::serving(move |guest| {
            let mut kind = [0];
            let _ = guest.read(&mut kind);
            let heard = match kind {
                [b'f'] => flow(guest.stream(), DOWN, UP, &AtomicU64::new(0)),
                [b'w'] => {
                    let _ = Noise::new(DOWN).pour(guest.stream(), u64::MAX, &AtomicU64::new(0));
                    hear(guest.stream(), UP)
                }
                _ => hear(guest.stream(), UP),
            };
            let _ = tell.send((kind, heard));
        }));
        let open = |kind: &str| {
            let conn = ground.open();
            conn.send(kind);
            conn
        };
        // One flows both ways, one waits for its client, one is silent.
        let [flowing, waiting, silent]: [Conn; 3] = ["f", "w", "s"].map(open);
        waiting.first_byte_after();
        let count = AtomicU64::new(0);
        thread::scope(|scope| {
            let heard = scope.spawn(|| flow(flowing.stream(), UP, DOWN, &count));
            eventually(SOON, "it flows", || count.load(Relaxed) > 16 * MIB);
            ground.proxies()[victim].crash();
            // By a FIN or by a reset: the kernel decides. What came before it is right.
            let heard = heard.join().expect("join");
            assert!(heard.ended != Ended::Open && heard.wrong_at.is_none());
        });
        for (conn, least) in [(waiting, 1), (silent, 0)] {
            let heard = hear(conn.stream(), DOWN);
            assert!(heard.ended != Ended::Open && heard.wrong_at.is_none());
            assert!(heard.bytes >= least);
        }
        for _ in 0..3 {
            let (kind, heard) = told.next();
            assert_eq!(heard.wrong_at, None, "{}", kind.escape_ascii());
        }
        if way.across() {
            let other = &ground.proxies()[1 - victim];
            eventually(SOON, "the other proxy is rid of them", || {
                super::held(other) == 0 && (victim == 0 || other.count("/connections/live") == 0)
            });
        }
    }
}

/// Talks and listens until the end of the connection.
fn flow(stream: &TcpStream, say: u64, listen: u64, heard: &AtomicU64) -> Heard {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = Noise::new(say).pour(stream, u64::MAX, &AtomicU64::new(0));
        });
        Noise::new(listen).hear(stream, u64::MAX, heard)
    })
}

/// What one connection of the following scenario comes to.
#[derive(Clone, Copy, Debug)]
struct Plan {
    up: u64,
    down: u64,
    end: &'static str,
}

pub(super) fn the_closing_event_counts_what_the_ends_saw(way: Way) {
    const PLANS: &[Plan] = &[
        plan(0, 0, "clean"),
        plan(1, 0, "clean"),
        plan(0, 1, "clean"),
        plan(5 * MIB + 3, 2 * MIB + 1, "clean"),
        plan(40_000, 30 * MIB + 7, "clean"),
        plan(0, 0, "client"),
        plan(3, 100_001, "client"),
        plan(6 * MIB + 5, 700_000, "client"),
        // A pod that resets before anything came through may count as one that was not reached: `resets` has that.
        plan(1, 0, "upstream"),
        plan(100_003, 17, "upstream"),
        plan(333_333, 6 * MIB + 9, "upstream"),
    ];
    let (order, orders) = telling::<Plan>();
    let (tell, told) = telling();
    let (go, may_go) = telling::<()>();
    let ground = way.with(Pod::serving(move |guest| {
        let plan = orders.next();
        let heard = exchange(guest.stream(), (DOWN, plan.down), (UP, plan.up));
        let _ = tell.send(heard.bytes);
        match plan.end {
            "clean" => {}
            "client" => drop(guest.read_all()),
            _ => {
                may_go.next();
                guest.reset_on_close();
            }
        }
    }));

    for plan in PLANS {
        order.send(*plan).expect("order");
        let conn = ground.open();
        let client = conn.local();
        let heard = exchange(conn.stream(), (UP, plan.up), (DOWN, plan.down));
        // Both have all of it before it ends.
        let seen = (told.next(), heard.bytes);
        match plan.end {
            "clean" => {
                conn.half_close();
                assert_eq!(conn.ended(), Ended::Eof);
            }
            "client" => conn.reset(),
            _ => {
                go.send(()).expect("go");
                assert_eq!(conn.ended(), Ended::Reset);
            }
        }
        assert_eq!(seen, (plan.up, plan.down));
        for closed in ground.closed(client) {
            let said = (closed.bytes_in, closed.bytes_out, closed.end.as_str());
            assert_eq!(said, (plan.up, plan.down, plan.end), "{plan:?}");
        }
    }
}

const fn plan(up: u64, down: u64, end: &'static str) -> Plan {
    Plan { up, down, end }
}

/// Sends and hears so much at once, and ends nothing.
fn exchange(stream: &TcpStream, say: (u64, u64), listen: (u64, u64)) -> Heard {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = Noise::new(say.0).pour(stream, say.1, &AtomicU64::new(0));
        });
        Noise::new(listen.0).hear(stream, listen.1, &AtomicU64::new(0))
    })
}
