//! How many connections per second: a token bucket kept as one moment (GCRA).
//!
//! The program in the kernel and user space without one do the same sums. Time is an argument.

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A rate and how far it may be exceeded for a moment.
///
/// Shape: two `u64`, native byte order, no padding.
/// Units: nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RateLimit {
    /// Time from one connection to the next at the rate. 0: no limit.
    pub interval: u64,
    /// How far connections may run ahead of the rate: an interval for each one of a burst.
    pub burst: u64,
}

impl RateLimit {
    /// `per_second` connections, after a pause `burst` of them at once. Each is at least one.
    ///
    /// Exact to a nanosecond per connection; more than 1,000,000,000 per second are no limit.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        let interval = match per_second {
            0 => NANOS_PER_SECOND,
            per_second => NANOS_PER_SECOND / per_second as u64,
        };
        let burst = if burst == 0 { 1 } else { burst as u64 };
        // At most 2^30 times 2^32.
        Self {
            interval,
            burst: interval * burst,
        }
    }

    /// Whether a connection at `now` keeps to the rate, given the arrival time that all before it have left: how late
    /// the next one would come if they had all kept their distance. Gives the arrival time that it leaves.
    ///
    /// 0 is a bucket that was never used. A refused connection does not count. Where another rate has left more than
    /// this one allows, its first connection passes and finds the bucket empty.
    pub const fn take(self, arrival: u64, now: u64) -> (bool, u64) {
        let ahead = arrival.saturating_sub(now);
        if ahead > self.burst {
            return (true, now.saturating_add(self.burst));
        }
        if ahead + self.interval > self.burst {
            return (false, arrival);
        }
        (true, now.saturating_add(ahead + self.interval))
    }
}

// It lies in a map.
const _: () = assert!(size_of::<RateLimit>() == 2 * size_of::<u64>());

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many connections, one every `step` nanoseconds from `from` on, are taken.
    fn taken(limit: RateLimit, arrival: &mut u64, from: u64, step: u64, count: u64) -> u64 {
        let mut taken = 0;
        for index in 0..count {
            let (is_taken, left) = limit.take(*arrival, from + index * step);
            *arrival = left;
            taken += u64::from(is_taken);
        }
        taken
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        for (per_second, burst) in [(1, 1), (3, 1), (50, 10), (1_000, 2_000), (1_000_000, 7)] {
            let limit = RateLimit::new(per_second, burst);
            let begin = 5 * NANOS_PER_SECOND;
            let mut arrival = 0;
            // All at once.
            let first = taken(limit, &mut arrival, begin, 0, u64::from(burst) + 100);
            assert_eq!(first, u64::from(burst), "{per_second}/s burst {burst}");
            // Three times as fast as the rate.
            let count = 3 * u64::from(per_second).min(10_000);
            let step = limit.interval / 3 + 1;
            let next = taken(limit, &mut arrival, begin, step, count);
            let expected = count * step / limit.interval;
            let off = next.abs_diff(expected);
            assert!(off <= 1, "{per_second}/s: {next} of {count}");
        }
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused() {
        for (per_second, burst) in [(1, 1), (7, 1), (50, 10), (333_333, 3)] {
            let limit = RateLimit::new(per_second, burst);
            let mut arrival = 0;
            let kept = taken(limit, &mut arrival, 1, limit.interval, 10_000);
            assert_eq!(kept, 10_000, "{per_second}/s burst {burst}");
        }
    }

    #[test]
    fn a_pause_gives_the_burst_back_and_no_more() {
        let limit = RateLimit::new(100, 20);
        let mut arrival = 0;
        assert_eq!(taken(limit, &mut arrival, 0, 0, 1000), 20);
        // Five connections' worth of time, then an hour.
        assert_eq!(taken(limit, &mut arrival, 50_000_000, 0, 1000), 5);
        let hour = 3600 * NANOS_PER_SECOND;
        assert_eq!(taken(limit, &mut arrival, hour, 0, 1000), 20);
    }

    #[test]
    fn a_new_rate_holds_at_once() {
        // Slow, and spent: its next connection is half a minute away.
        let slow = RateLimit::new(1, 30);
        let mut arrival = 0;
        let now = 9 * NANOS_PER_SECOND;
        assert_eq!(taken(slow, &mut arrival, now, 0, 100), 30);
        let fast = RateLimit::new(1000, 5);
        assert_eq!(taken(fast, &mut arrival, now, 0, 100), 1);
        assert_eq!(taken(fast, &mut arrival, now + 2_000_000, 0, 100), 2);
    }

    #[test]
    fn the_ends_of_the_scale_do_not_overflow() {
        let most = RateLimit::new(u32::MAX, u32::MAX);
        assert_eq!(most.interval, 0);
        assert_eq!(taken(most, &mut 0, 1, 0, 1000), 1000);
        // A limit that is none takes whatever another one has left.
        assert_eq!(taken(most, &mut 100, 1, 0, 1000), 1000);
        let longest = RateLimit::new(1, u32::MAX);
        assert_eq!(taken(longest, &mut 0, u64::MAX - 5, 0, 1000), 1000);
        assert_eq!(RateLimit::new(0, 0), RateLimit::new(1, 1));
    }
}
