use super::*;

/// Seeded bits: the same picks in every run.
fn bits(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.max(1);
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.wrapping_mul(0x2545_F491_4F6C_DD1D))
    })
}

const POLICIES: [Policy; 4] = [Policy::P2c, Policy::Rr, Policy::Random, Policy::Ordered];

/// How often each of `loads` is picked in `picks` picks among those that are eligible.
fn spread(policy: Policy, loads: &[u32], eligible: &[bool], picks: u32) -> Vec<u32> {
    let mut counts = vec![0; loads.len()];
    for (turn, random) in (0..picks).zip(bits(42)) {
        let picked = pick(
            policy,
            loads.len(),
            |pod| eligible[pod],
            |pod| loads[pod],
            Draw { random, turn },
        );
        counts[picked.expect("one is eligible")] += 1;
    }
    counts
}

#[test]
fn equal_pods_get_equal_shares_except_in_order() {
    for policy in [Policy::P2c, Policy::Rr, Policy::Random] {
        for count in spread(policy, &[3; 5], &[true; 5], 100_000) {
            assert!((19_000..=21_000).contains(&count), "{policy:?}: {count}");
        }
    }
    assert_eq!(
        spread(Policy::Ordered, &[3; 5], &[true; 5], 100),
        [100, 0, 0, 0, 0]
    );
}

#[test]
fn shares_of_a_pod_that_is_out_go_to_all_others_alike() {
    for policy in [Policy::Rr, Policy::Random, Policy::P2c] {
        let counts = spread(policy, &[0; 4], &[true, false, true, true], 90_000);
        assert_eq!(counts[1], 0, "{policy:?}");
        for pod in [0, 2, 3] {
            assert!(
                (27_000..=33_000).contains(&counts[pod]),
                "{policy:?}: {counts:?}"
            );
        }
    }
}

#[test]
fn nobody_eligible_gives_nothing_whatever_the_policy() {
    for policy in POLICIES {
        for count in [0, 1, 7] {
            let draw = Draw {
                random: u64::MAX,
                turn: u32::MAX,
            };
            assert_eq!(
                pick(policy, count, |_| false, |_| 0, draw),
                None,
                "{policy:?} of {count}"
            );
        }
    }
}

#[test]
fn every_policy_finds_the_only_eligible_pod() {
    for policy in POLICIES {
        for only in 0..9 {
            for (turn, random) in (0..50).zip(bits(7)) {
                let picked = pick(policy, 9, |pod| pod == only, |_| 5, Draw { random, turn });
                assert_eq!(picked, Some(only), "{policy:?}");
            }
        }
    }
}

#[test]
fn two_choices_never_take_the_most_loaded_of_three() {
    let counts = spread(Policy::P2c, &[9, 1, 5], &[true; 3], 30_000);
    // Pairs are equally likely: the least loaded wins two of three, the middle one the third.
    assert_eq!(counts[0], 0);
    assert!((19_000..=21_000).contains(&counts[1]), "{counts:?}");
}

#[test]
fn round_robin_goes_round() {
    let order: Vec<_> = (0..6)
        .map(|turn| pick(Policy::Rr, 3, |_| true, |_| 0, Draw { random: 0, turn }))
        .collect();
    assert_eq!(
        order,
        [Some(0), Some(1), Some(2), Some(0), Some(1), Some(2)]
    );
}

/// How often each of two groups is picked where the connections of the second one stay in the books for `stay` picks.
fn spread_over_groups(weights: [u32; 2], stay: usize) -> [u32; 2] {
    let mut counts = [0; 2];
    let mut crossing = std::collections::VecDeque::from(vec![false; stay]);
    for (turn, random) in (0..12_000).zip(bits(7)) {
        let live = crossing.iter().filter(|crosses| **crosses).count();
        let live = u32::try_from(live).expect("few");
        let load = |group| if group == 0 { 0 } else { live };
        let draw = Draw { random, turn };
        let group = weighted::pick(Policy::P2c, &weights, load, draw).expect("one has weight");
        counts[group] += 1;
        crossing.pop_front();
        crossing.push_back(group == 1);
    }
    counts
}

#[test]
fn a_host_whose_connections_end_a_little_later_keeps_its_share() {
    for (weights, fair) in [([1, 1], 6000), ([1, 2], 4000), ([3, 1], 9000)] {
        let [here, _] = spread_over_groups(weights, 2);
        assert!(here.abs_diff(fair) < 200, "{weights:?}: {here}, not {fair}");
    }
    // Many that stay are load.
    let [here, there] = spread_over_groups([1, 1], 100);
    assert!(here > there * 2, "{here} here, {there} there");
}
