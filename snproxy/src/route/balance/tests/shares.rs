//! How a million picks fall.

use std::collections::VecDeque;

use super::*;

const PICKS: u32 = 1_000_000;
/// The pods of the vectors: one without weight, the last one full.
const SET: [u32; 5] = [1, 2, 5, 0, 3];
const BY_WEIGHT: [f64; 5] = [1.0, 2.0, 5.0, 0.0, 0.0];

/// Picks of each pod where a connection stays for `stay` picks.
fn counts(policy: Policy, weights: &[u32], out: &[usize], stay: usize) -> Vec<u32> {
    let scheme = Scheme::build(policy, false, &pods(weights));
    let mut counts = vec![0; weights.len()];
    let mut loads = vec![0; weights.len()];
    let mut live = VecDeque::new();
    for number in 0..PICKS {
        if stay > 0 && live.len() == stay {
            let ended: usize = live.pop_front().expect("more than none");
            loads[ended] -= 1;
        }
        let picked = scheme
            .pick(
                weights.len(),
                |pod| !out.contains(&pod),
                |pod| loads[pod],
                draw(number),
            )
            .expect("not all are out");
        counts[picked] += 1;
        if stay > 0 {
            loads[picked] += 1;
            live.push_back(picked);
        }
    }
    counts
}

/// Every share is within 1 % of the ideal one, which is given up to a factor.
#[track_caller]
fn check(policy: Policy, weights: &[u32], out: &[usize], stay: usize, ideal: &[f64]) {
    let counts = counts(policy, weights, out, stay);
    let total: f64 = ideal.iter().sum();
    for (count, ideal) in counts.iter().zip(ideal) {
        let expected = ideal / total * f64::from(PICKS);
        let error = (f64::from(*count) - expected).abs();
        assert!(
            error <= expected / 100.0,
            "{policy} of {weights:?} without {out:?}, {stay} live: {counts:?}, not {ideal} of {total}"
        );
    }
}

#[test]
fn what_goes_by_weight_does_so_exactly() {
    for policy in [Policy::Random, Policy::Wrr, Policy::Mh] {
        check(policy, &SET, &[4], 0, &BY_WEIGHT);
        check(policy, &[9; 5], &[1, 3], 0, &[1.0, 0.0, 1.0, 0.0, 1.0]);
    }
}

#[test]
fn what_asks_for_connections_per_weight_goes_by_weight() {
    for policy in [Policy::Wlc, Policy::Nq, Policy::Twos] {
        check(policy, &SET, &[4], 0, &BY_WEIGHT);
        check(policy, &SET, &[4], 8000, &BY_WEIGHT);
    }
    check(Policy::Sed, &SET, &[4], 8000, &BY_WEIGHT);
    check(Policy::P2c, &SET[..4], &[], 8000, &BY_WEIGHT[..4]);
}

#[test]
fn what_goes_round_gives_equal_shares_also_of_the_turns_of_pods_that_are_out() {
    check(
        Policy::Rr,
        &[1, 2, 5, 0, 3],
        &[4],
        0,
        &[1.0, 1.0, 1.0, 0.0, 0.0],
    );
    // Every turn of theirs is odd.
    check(Policy::Rr, &[1; 4], &[1, 3], 0, &[1.0, 0.0, 1.0, 0.0]);
    check(
        Policy::Lc,
        &[1, 2, 5, 0, 3],
        &[4],
        0,
        &[1.0, 1.0, 1.0, 0.0, 0.0],
    );
    check(
        Policy::Lc,
        &[1, 2, 5, 0, 3],
        &[4],
        3000,
        &[1.0, 1.0, 1.0, 0.0, 0.0],
    );
}

#[test]
fn what_prefers_one_prefers_it() {
    check(Policy::Ordered, &[1, 2, 5], &[], 0, &[1.0, 0.0, 0.0]);
    check(Policy::Ordered, &[0, 2, 5], &[1], 0, &[0.0, 0.0, 1.0]);
    check(
        Policy::Fo,
        &[1, 2, 5, 0, 9],
        &[4],
        0,
        &[0.0, 0.0, 1.0, 0.0, 0.0],
    );
    check(Policy::Sed, &[1, 2, 5], &[], 0, &[0.0, 0.0, 1.0]);
    check(Policy::Ovf, &[1, 2, 5], &[], 4, &[0.0, 0.0, 1.0]);
    // Seven live: five at the heaviest, two at the next.
    check(Policy::Ovf, &[1, 2, 5], &[], 7, &[0.0, 2.0, 5.0]);
}

#[test]
fn idle_pods_of_p2c_are_drawn_alike_and_win_by_weight() {
    // Each of the three pairs is as likely; of a pair each wins by its weight.
    let [a, b, c] = [1.0, 2.0, 5.0];
    let wins = |one: f64, others: [f64; 2]| -> f64 {
        others.iter().map(|other| one / (one + other)).sum()
    };
    let ideal = [wins(a, [b, c]), wins(b, [a, c]), wins(c, [a, b]), 0.0];
    check(Policy::P2c, &SET[..4], &[], 0, &ideal);
    check(Policy::P2c, &[3; 5], &[], 0, &[1.0; 5]);
}

/// The shares of `sh`, from its definition alone: per bucket the shortest of exponential times, by the library's logarithm.
fn shares_of_buckets(weights: &[u32]) -> Vec<f64> {
    let mut shares = vec![0.0; weights.len()];
    for bucket in 1..=4096 {
        let times = pods(weights).into_iter().map(|(identity, weight)| {
            let bits = hash::mix(hash::mix(bucket) ^ identity.rotate_left(32));
            let uniform = f64::from(u32::try_from(bits >> 32).unwrap()) / f64::from(u32::MAX);
            -uniform.ln() / f64::from(weight)
        });
        let shortest = times.enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b));
        shares[shortest.expect("pods").0] += 1.0;
    }
    shares
}

#[test]
fn sh_gives_each_pod_its_buckets_and_these_go_by_weight_roughly() {
    for weights in [&[1, 2, 5][..], &[1; 3], &[4; 10], &[1; 50]] {
        let shares = shares_of_buckets(weights);
        // A share of a fiftieth is drawn too seldom for 1 %.
        if weights.len() <= 10 {
            check(Policy::Sh, weights, &[], 0, &shares);
        }
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let errors = shares.iter().zip(weights).map(|(share, weight)| {
            let fair = 4096.0 * f64::from(*weight) / total;
            (share - fair).abs() / fair
        });
        let worst = errors.fold(0.0, f64::max);
        println!(
            "sh of {} pods: a share is off by {:.1} % at most",
            weights.len(),
            worst * 100.0
        );
        assert!(worst < 0.35);
    }
}
