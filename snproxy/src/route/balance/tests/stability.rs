//! Which clients keep their pod when other pods change.

use proptest::prelude::*;

use super::*;

const CLIENTS: u32 = 8000;

/// Where each client goes; pods by identity.
fn homes(policy: Policy, pods: &[(u64, u32)]) -> Vec<u64> {
    let scheme = Scheme::build(policy, false, pods);
    let home = |client| scheme.pick(pods.len(), |_| true, |_| 0, draw(client));
    (0..CLIENTS)
        .map(|client| pods[home(client).expect("pods")].0)
        .collect()
}

/// The part of all clients that moved although their pod is still there.
fn moved(before: &[u64], after: &[u64], changed: u64) -> f64 {
    let pairs = before.iter().zip(after);
    let moved = pairs.filter(|(old, new)| old != new && **old != changed && **new != changed);
    f64::from(u32::try_from(moved.count()).unwrap()) / f64::from(CLIENTS)
}

#[test]
fn without_one_of_fifty_pods_maglev_moves_its_clients_and_two_of_a_hundred_others_at_most() {
    let pods = pods(&[1; 50]);
    let before = homes(Policy::Mh, &pods);
    let mut worst: f64 = 0.0;
    for gone in 0..pods.len() {
        let mut fewer = pods.clone();
        let (gone, _) = fewer.remove(gone);
        worst = worst.max(moved(&before, &homes(Policy::Mh, &fewer), gone));
    }
    println!(
        "mh: of the clients of 49 pods that stay {:.2} % move at most",
        worst * 100.0
    );
    assert!(worst <= 0.02, "{worst}");
}

#[test]
fn the_order_of_the_file_moves_nobody() {
    let pods = pods(&[1, 2, 3, 4, 5, 5, 4]);
    let mut reversed = pods.clone();
    reversed.reverse();
    for policy in [Policy::Sh, Policy::Mh] {
        assert_eq!(homes(policy, &pods), homes(policy, &reversed), "{policy}");
    }
}

#[test]
fn a_client_whose_pod_is_out_goes_where_it_would_be_without_that_pod() {
    let pods = pods(&[1, 2, 3, 4]);
    let scheme = Scheme::build(Policy::Sh, false, &pods);
    let strict = Scheme::build(Policy::Sh, true, &pods);
    let fewer = homes(Policy::Sh, &[pods[0], pods[1], pods[3]]);
    for (client, without) in (0..CLIENTS).zip(fewer) {
        let is_up = |pod| pod != 2;
        let home = scheme.pick(4, |_| true, |_| 0, draw(client));
        let other = scheme.pick(4, is_up, |_| 0, draw(client)).unwrap();
        assert_eq!(pods[other].0, without);
        let own = strict.pick(4, is_up, |_| 0, draw(client));
        assert_eq!(own, home.filter(|pod| *pod != 2));
    }
}

#[test]
fn clients_of_a_pod_that_is_out_are_spread_over_the_others() {
    for policy in [Policy::Sh, Policy::Mh] {
        let weights = [1; 4];
        let scheme = Scheme::build(policy, false, &pods(&weights));
        let mut counts = [0_u32; 4];
        for client in 0..CLIENTS {
            if scheme.pick(4, |_| true, |_| 0, draw(client)) == Some(1) {
                counts[scheme.pick(4, |pod| pod != 1, |_| 0, draw(client)).unwrap()] += 1;
            }
        }
        let total: u32 = counts.iter().sum();
        for pod in [0, 2, 3] {
            assert!(
                counts[pod].abs_diff(total / 3) < total / 10,
                "{policy}: {counts:?}"
            );
        }
    }
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    let one = prop_oneof![Just(1_u32), 1..6_u32, 0..=256_u32];
    prop::collection::vec(one, 2..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever becomes of one pod, no client goes from another to a third.
    #[test]
    fn sh_moves_no_client_between_pods_that_stay(
        weights in weights(),
        pod in any::<prop::sample::Index>(),
        weight in 0..=256_u32,
    ) {
        let before = pods(&weights);
        let mut after = before.clone();
        let pod = pod.index(before.len());
        after[pod].1 = weight;
        let has_weight = |pods: &[(u64, u32)]| pods.iter().any(|(_, weight)| *weight > 0);
        prop_assume!(has_weight(&before) && has_weight(&after));
        let (old, new) = (homes(Policy::Sh, &before), homes(Policy::Sh, &after));
        prop_assert!(moved(&old, &new, before[pod].0).abs() < f64::EPSILON);
    }

    /// Where weights are far apart (1 and 256) more than of equal pods, for the rest of the shares changes much.
    #[test]
    fn mh_moves_few_clients_between_pods_that_stay(
        weights in weights(),
        pod in any::<prop::sample::Index>(),
    ) {
        let before = pods(&weights);
        let mut after = before.clone();
        let (gone, _) = after.remove(pod.index(before.len()));
        let has_weight = |pods: &[(u64, u32)]| pods.iter().any(|(_, weight)| *weight > 0);
        prop_assume!(has_weight(&before) && has_weight(&after));
        let moved = moved(&homes(Policy::Mh, &before), &homes(Policy::Mh, &after), gone);
        prop_assert!(moved <= 0.05, "{moved}");
    }
}
