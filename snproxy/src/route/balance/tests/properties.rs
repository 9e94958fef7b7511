//! What holds of every policy, whatever the pods.

use proptest::prelude::*;

use super::*;

/// One pod: identity, weight, whether it may be taken, live connections.
type Case = (u64, u32, bool, u32);

fn cases() -> impl Strategy<Value = Vec<Case>> {
    let weight = prop_oneof![Just(0_u32), Just(1), 0..=MAX_WEIGHT, Just(u32::MAX)];
    let load = prop_oneof![Just(0_u32), 0..8_u32, Just(u32::MAX)];
    prop::collection::vec((any::<u64>(), weight, any::<bool>(), load), 0..40)
}

fn draws() -> impl Strategy<Value = Draw> {
    (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(random, turn, key)| Draw {
        random,
        turn,
        key,
    })
}

proptest! {
    // Most of the time is the tables of `mh`.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_pick_is_open_found_where_there_is_one_and_the_same_each_time(
        cases in cases(),
        draw in draws(),
        strict in any::<bool>(),
    ) {
        let pods: Vec<(u64, u32)> = cases.iter().map(|case| (case.0, case.1)).collect();
        let is_open = |pod: usize| cases[pod].1 > 0 && cases[pod].2;
        for &policy in Policy::ALL {
            let pick = || {
                let scheme = Scheme::build(policy, strict, &pods);
                scheme.pick(pods.len(), |pod| cases[pod].2, |pod| cases[pod].3, draw)
            };
            let picked = pick();
            prop_assert_eq!(picked, pick(), "{}", policy);
            let expected = (0..cases.len()).find(|pod| is_open(*pod));
            let may_refuse = strict && [Policy::Sh, Policy::Mh].contains(&policy);
            prop_assert!(picked.is_some() || may_refuse || expected.is_none(), "{}", policy);
            prop_assert!(picked.is_none_or(is_open), "{} gives {:?}", policy, picked);
        }
    }

    #[test]
    fn policies_that_ask_all_pods_take_one_that_none_beats(cases in cases(), draw in draws()) {
        let pods: Vec<(u64, u32)> = cases.iter().map(|case| (case.0, case.1)).collect();
        let open: Vec<usize> = (0..cases.len()).filter(|pod| cases[*pod].1 > 0 && cases[*pod].2).collect();
        let weight = |pod: usize| u64::from(cases[pod].1.min(MAX_WEIGHT));
        let load = |pod: usize| u64::from(cases[pod].3);
        for policy in [Policy::Lc, Policy::Wlc, Policy::Sed, Policy::Nq, Policy::Fo] {
            let scheme = Scheme::build(policy, false, &pods);
            let picked = scheme.pick(pods.len(), |pod| cases[pod].2, |pod| cases[pod].3, draw);
            let Some(picked) = picked else { continue };
            for other in &open {
                let beaten = match policy {
                    Policy::Lc => load(*other) < load(picked),
                    Policy::Wlc => load(*other) * weight(picked) < load(picked) * weight(*other),
                    Policy::Nq if load(picked) == 0 => false,
                    Policy::Nq if load(*other) == 0 => true,
                    Policy::Fo => weight(*other) > weight(picked),
                    _ => (load(*other) + 1) * weight(picked) < (load(picked) + 1) * weight(*other),
                };
                prop_assert!(!beaten, "{}: {} beats {}", policy, other, picked);
            }
        }
    }

    #[test]
    fn a_group_that_is_picked_has_pods(
        groups in prop::collection::vec((any::<u64>(), 0..9_u32, 0..50_u32), 0..20),
        draw in draws(),
    ) {
        let weights: Vec<u32> = groups.iter().map(|group| group.1).collect();
        for &policy in Policy::ALL {
            let pick = || weighted::pick(policy, &weights, |group| groups[group].0, |group| groups[group].2, draw);
            let picked = pick();
            prop_assert_eq!(picked, pick(), "{}", policy);
            prop_assert_eq!(picked.is_some(), weights.iter().any(|weight| *weight > 0), "{}", policy);
            prop_assert!(picked.is_none_or(|group| weights[group] > 0), "{}", policy);
        }
    }
}

#[test]
fn loads_that_change_during_a_pick_leave_no_pick_without_a_pod() {
    for &policy in Policy::ALL {
        let pods = pods(&[1, 3]);
        let scheme = Scheme::build(policy, false, &pods);
        // Another worker opens a connection whenever this one looks.
        let load = std::cell::Cell::new(0);
        for number in 0..100 {
            let picked = scheme.pick(
                pods.len(),
                |_| true,
                |_| load.replace(load.get() + 1),
                draw(number),
            );
            assert!(picked.is_some(), "{policy}");
        }
    }
}
