//! The limit on silence.

use super::{DOWN, SOON, UP, Way, hear, telling};
use snproxy_tests::{Ended, Figure, Noise, Pod, print_figure};
use std::{
    net::Shutdown,
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, Instant},
};

const IDLE: Duration = Duration::from_secs(1);
const PARTS: u64 = 15;
const PART: u64 = 300_000;

pub(super) fn silence_ends_and_a_slow_stream_does_not(way: Way) {
    let (tell, told) = telling();
    let echo = Pod::echo();
    let ground = way.prepared([
        echo.clone(),
        Pod::serving(|guest| {
            // Bulk in one direction, for three limits; the other one is silent.
            let mut noise = Noise::new(DOWN);
            for _ in 0..PARTS {
                let _ = noise.pour(guest.stream(), PART, &AtomicU64::new(0));
                thread::sleep(IDLE / 5);
            }
            let _ = guest.stream().shutdown(Shutdown::Write);
            guest.read_all();
        }),
        Pod::serving(move |guest| {
            let _ = tell.send(hear(guest.stream(), UP));
        }),
    ]);
    ground.entry().conf("IDLETIMEOUT", "1s");
    let ground = ground.start();
    let entry = ground.entry();

    let idle = entry.open(1024);
    let start = Instant::now();
    idle.send("x");
    assert_eq!(idle.read(1), b"x");
    let [busy, down, up] = [1024, 1026, 1028].map(|port| entry.open(port));
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(idle.ended(), Ended::Reset);
            let after = start.elapsed();
            print_figure(
                &format!(
                    "idle connection reset, later than IDLETIMEOUT, {}",
                    way.name()
                ),
                Figure::Time(after.saturating_sub(IDLE)),
                Figure::Time(Duration::from_millis(100)),
            );
            assert!(after + Duration::from_millis(50) >= IDLE, "{after:?}");
        });
        scope.spawn(|| hear(down.stream(), DOWN).is_whole(PARTS * PART));
        let mut noise = Noise::new(UP);
        for _ in 0..PARTS {
            busy.send("x");
            assert_eq!(busy.read(1), b"x");
            let poured = noise.pour(up.stream(), PART, &AtomicU64::new(0));
            poured.expect("it lives");
            thread::sleep(IDLE / 5);
        }
    });
    for conn in [busy, down, up] {
        assert_eq!(conn.half_close().rest(SOON).1, Ended::Eof);
    }
    told.next().is_whole(PARTS * PART);
    assert_eq!(echo.visit(0).wait_for_end(), Ended::Reset);
    assert_eq!((entry.ends("idle"), entry.ends("clean")), (1, 3));
}
