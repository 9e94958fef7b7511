use proptest::prelude::*;

use super::Event::*;
use super::*;

const HALF: u64 = 1 << 63;

fn tcp(interval: u64) -> Check {
    Check {
        interval: Some(secs(interval)),
        jitter: 10,
        ..passive()
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The state after these events, a second apart, and that second after the last one.
fn run(check: &Check, events: &[Event]) -> Health {
    let mut now = Instant::now();
    let mut health = Health::default();
    for event in events {
        health = health.after(*event, check, HALF, now);
        now += secs(1);
    }
    health
}

#[track_caller]
fn check_up(check: &Check, events: &[Event], up: bool) {
    assert_eq!(run(check, events).is_up(), up, "{events:?} under {check:?}");
}

#[test]
fn probes_of_a_dead_upstream_back_off_from_one_second_to_thirty() {
    let check = passive();
    let mut now = Instant::now();
    let mut health = Health::default();
    let mut waits = Vec::new();
    for event in [
        NotDialled, Missed, NotDialled, Missed, Missed, Missed, Missed,
    ] {
        health = health.after(event, &check, 0, now);
        assert_eq!(
            health.after(NotDialled, &check, 0, now),
            health,
            "thirty clients fail as one"
        );
        let next = health.next().unwrap();
        assert!(!health.due(now) && health.due(next));
        waits.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn hold_is_the_first_wait_and_the_interval_the_longest() {
    let waits = |check: &Check| {
        let mut now = Instant::now();
        let mut health = Health::default();
        let waits = (0..6).map(|_| {
            health = health.after(Missed, check, HALF, now);
            let wait = health.next().unwrap() - now;
            now += wait;
            wait.as_millis()
        });
        waits.collect::<Vec<_>>()
    };
    let held = |check: Check, hold| Check {
        hold: Duration::from_millis(hold),
        ..check
    };
    for (check, expected) in [
        (held(passive(), 100), [100, 200, 400, 800, 1600, 3200]),
        (
            held(passive(), 20_000),
            [20_000, 30_000, 30_000, 30_000, 30_000, 30_000],
        ),
        (held(passive(), 40_000), [40_000; 6]),
        (tcp(5), [1000, 2000, 4000, 5000, 5000, 5000]),
        (
            held(tcp(60), 8000),
            [8000, 16_000, 30_000, 30_000, 30_000, 30_000],
        ),
        (held(tcp(1), 3000), [3000; 6]),
    ] {
        assert_eq!(waits(&check), expected, "{check:?}");
    }
}

#[test]
fn fails_and_fall_count_failures_in_a_row_each_for_itself() {
    let three = Check {
        fails: 3,
        fall: 2,
        ..tcp(5)
    };
    check_up(&three, &[NotDialled; 2], true);
    check_up(&three, &[NotDialled; 3], false);
    check_up(&three, &[NotDialled, NotDialled, Dialled, NotDialled], true);
    check_up(&three, &[NotDialled, NotDialled, Served, NotDialled], true);
    check_up(&three, &[NotDialled, NotDialled, Passed, NotDialled], true);
    check_up(&three, &[NotDialled, NotDialled, Missed], true);
    check_up(&three, &[Missed], true);
    check_up(&three, &[Missed; 2], false);
    check_up(&three, &[Missed, Passed, Missed], true);
    check_up(&three, &[Missed, Dialled, Missed], false);
    check_up(&passive(), &[NotDialled], false);
    check_up(&passive(), &[Missed], false);
    check_up(&passive(), &[Silent], false);
}

#[test]
fn a_connection_is_no_answer_where_silence_is_counted() {
    let three = Check {
        fails: 3,
        ..passive()
    };
    check_up(&three, &[Dialled, Silent, Dialled, Silent, Dialled], true);
    check_up(
        &three,
        &[Dialled, Silent, Dialled, Silent, Dialled, Silent],
        false,
    );
    check_up(&three, &[Silent, Silent, Served, Silent], true);
    // Neither is a plain check.
    check_up(&three, &[Silent, Silent, Passed, Silent], false);
    check_up(&passive(), &[Silent, Dialled], false);
    check_up(&passive(), &[Silent, Served], true);
    check_up(&passive(), &[Silent, Passed], true);
}

#[test]
fn rise_counts_checks_that_pass_in_a_row() {
    let rise = Check { rise: 3, ..tcp(5) };
    check_up(&rise, &[Missed, Passed, Passed], false);
    check_up(&rise, &[Missed, Passed, Passed, Passed], true);
    check_up(
        &rise,
        &[Missed, Passed, Passed, Missed, Passed, Passed],
        false,
    );
    check_up(&rise, &[Missed, Passed, Passed, NotDialled, Passed], false);
    // A client's connection is worth more than a check.
    check_up(&rise, &[Missed, Dialled], true);
    check_up(&tcp(5), &[Missed, Passed], true);
}

#[test]
fn only_a_check_brings_back_what_must_answer_as_expected() {
    let expect = Check {
        expect: (*b"+PONG").into(),
        ..tcp(5)
    };
    check_up(&expect, &[Missed, Dialled, Served], false);
    check_up(&expect, &[NotDialled, Dialled], false);
    check_up(&expect, &[Missed, Dialled, Passed], true);
}

#[test]
fn one_that_falls_silent_again_at_once_is_left_alone_for_longer_each_time() {
    let check = passive();
    let mut now = Instant::now();
    let mut health = Health::default();
    let mut waits = Vec::new();
    for _ in 0..6 {
        health = health.after(Silent, &check, 0, now);
        let next = health.next().unwrap();
        waits.push((next - now).as_secs());
        health = health.after(Passed, &check, 0, next);
        assert!(health.is_up());
        now = next + secs(3);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30]);
    // It answered for long enough.
    let later = now + LONGEST_HOLD;
    let health = health.after(Silent, &check, 0, later);
    assert_eq!(health.next(), Some(later + secs(1)));
    // Dials that fail say that it is gone, not that it hangs.
    let gone = health.after(Passed, &check, 0, later + secs(1)).after(
        NotDialled,
        &check,
        0,
        later + secs(2),
    );
    assert_eq!(gone.next(), Some(later + secs(3)));
}

#[test]
fn checks_of_one_that_is_up_are_an_interval_apart_more_or_less() {
    let now = Instant::now();
    let next = |jitter, bits| {
        let check = Check { jitter, ..tcp(10) };
        let health = Health::default().after(Passed, &check, bits, now);
        (health.next().unwrap() - now).as_millis()
    };
    for (jitter, bits, expected) in [
        (0, 0, 10_000),
        (0, u64::MAX, 10_000),
        (10, 0, 9000),
        (10, HALF, 10_000),
        (10, u64::MAX, 10_999),
        (100, 0, 0),
        (100, HALF, 10_000),
        (100, u64::MAX, 19_999),
        (255, HALF / 2, 5000),
    ] {
        assert_eq!(next(jitter, bits), expected, "{jitter} % with {bits:x}");
    }
    let unchecked = Health::default().after(Passed, &passive(), 0, now);
    assert_eq!(unchecked.next(), None);
}

#[test]
fn one_missed_check_is_followed_by_another_also_without_an_interval() {
    let now = Instant::now();
    let twice = Check {
        fall: 2,
        ..passive()
    };
    let health = Health::default().after(Missed, &twice, 0, now);
    assert!(health.is_up() && health.is_missed());
    assert_eq!(health.next(), Some(now + twice.hold));
    let passed = health.after(Passed, &twice, 0, now + secs(1));
    assert!(!passed.is_missed() && passed.next().is_none());
}

#[test]
fn the_plan_of_one_that_is_down_is_its_own() {
    let now = Instant::now();
    let down = Health::default().after(NotDialled, &tcp(5), 0, now);
    assert_eq!(down.with_next(None), down);
    let up = Health::default().with_next(Some(now));
    assert!(up.next() == Some(now) && !up.due(now) && up.with_next(None).next().is_none());
}

fn events() -> impl Strategy<Value = Vec<(Event, u64, u64)>> {
    let event = prop::sample::select(vec![Dialled, NotDialled, Served, Silent, Passed, Missed]);
    prop::collection::vec((event, any::<u64>(), 0..40_000u64), 0..200)
}

fn checks() -> impl Strategy<Value = Check> {
    let counts = (1..5u32, 1..5u32, 1..5u32);
    (
        prop::option::of(1..60_000u64),
        1..60_000u64,
        counts,
        0..=100u8,
        any::<bool>(),
    )
        .prop_map(
            |(interval, hold, (fails, rise, fall), jitter, expects)| Check {
                interval: interval.map(Duration::from_millis),
                hold: Duration::from_millis(hold),
                fails,
                rise,
                fall,
                jitter,
                expect: if expects {
                    (*b"ok").into()
                } else {
                    Box::default()
                },
                ..passive()
            },
        )
}

proptest! {
    #[test]
    fn whatever_happens_it_stays_in_bounds(check in checks(), events in events()) {
        let mut now = Instant::now();
        let mut health = Health::default();
        for (event, bits, millis) in events {
            now += Duration::from_millis(millis);
            let before = health;
            health = health.after(event, &check, bits, now);
            let good = matches!(event, Dialled | Served | Passed);
            // Good news takes nobody down, bad news brings nobody back.
            prop_assert!(before.is_up() == health.is_up() || health.is_up() == good);
            if before.is_up() != health.is_up() {
                prop_assert_eq!(health.since(), Some(now));
            }
            if !health.is_up() {
                // Checks go on, however it is.
                let next = health.next().expect("a next check");
                let hold = LONGEST_HOLD.max(check.hold);
                let pause = 2 * check.interval.unwrap_or_default().max(check.hold);
                prop_assert!(next <= now + hold.max(pause));
                if before.is_up() {
                    prop_assert!(next >= now + check.hold);
                }
            } else if check.interval.is_none() && !health.is_missed() {
                prop_assert!(health.next().is_none());
            }
            if !before.is_up() && health.is_up() && event != Passed {
                prop_assert!(check.expect.is_empty());
            }
        }
    }

    #[test]
    fn enough_good_checks_bring_anyone_back(check in checks(), events in events()) {
        let mut now = Instant::now();
        let mut health = Health::default();
        for (event, bits, millis) in events {
            now += Duration::from_millis(millis);
            health = health.after(event, &check, bits, now);
        }
        for _ in 0..check.rise {
            now = health.next().unwrap_or(now);
            health = health.after(Passed, &check, 0, now);
        }
        prop_assert!(health.is_up());
    }

    #[test]
    fn jitter_stays_within_its_percent(millis in 1..3_600_000u64, jitter in 0..=100u8, bits: u64) {
        let time = Duration::from_millis(millis);
        let (part, got) = (time * u32::from(jitter) / 100, spread(time, jitter, bits));
        prop_assert!(time <= got + part && got <= time + part);
    }
}
