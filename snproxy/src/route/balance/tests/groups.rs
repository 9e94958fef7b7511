//! How connections fall on groups of pods.

use super::*;

/// How often each of two groups is picked where the connections of the second one stay in the books for `stay` picks.
fn spread(policy: Policy, weights: [u32; 2], stay: usize) -> [u32; 2] {
    let mut counts = [0; 2];
    let mut crossing = std::collections::VecDeque::from(vec![false; stay]);
    for number in 0..12_000 {
        let live = crossing.iter().filter(|crosses| **crosses).count();
        let live = u32::try_from(live).expect("few");
        let load = |group| if group == 0 { 0 } else { live };
        let group = weighted::pick(policy, &weights, group_name, load, draw(number));
        let group = group.expect("one has weight");
        counts[group] += 1;
        crossing.pop_front();
        crossing.push_back(group == 1);
    }
    counts
}

fn group_name(group: usize) -> u64 {
    name("host", u16::try_from(group).unwrap())
}

#[test]
fn a_host_whose_connections_end_a_little_later_keeps_its_share() {
    for &policy in Policy::ALL {
        if [Policy::Ordered, Policy::Fo, Policy::Ovf].contains(&policy) {
            continue;
        }
        for (weights, fair) in [([1, 1], 6000), ([1, 2], 4000), ([3, 1], 9000)] {
            let [here, _] = spread(policy, weights, 2);
            assert!(
                here.abs_diff(fair) < 250,
                "{policy} {weights:?}: {here}, not {fair}"
            );
        }
    }
    // Many that stay are load.
    for policy in [
        Policy::P2c,
        Policy::Twos,
        Policy::Lc,
        Policy::Wlc,
        Policy::Sed,
        Policy::Nq,
    ] {
        let [here, there] = spread(policy, [1, 1], 100);
        assert!(here > there * 2, "{policy}: {here} here, {there} there");
    }
}

#[test]
fn policies_that_prefer_a_pod_take_the_first_group() {
    for policy in [Policy::Ordered, Policy::Fo, Policy::Ovf] {
        let picked = weighted::pick(policy, &[0, 1, 9], group_name, |_| 0, draw(3));
        assert_eq!(picked, Some(1), "{policy}");
    }
}

#[test]
fn a_client_goes_to_the_same_group_from_every_host() {
    // Each host lists itself first.
    let orders = [[0, 1, 2], [1, 0, 2], [2, 1, 0]];
    let pods = [1, 4, 2];
    for client in 0..1000 {
        let homes = orders.map(|order| {
            let weights = order.map(|host| pods[host]);
            let name = |group: usize| group_name(order[group]);
            order[weighted::pick(Policy::Mh, &weights, name, |_| 0, draw(client)).unwrap()]
        });
        assert_eq!(homes, [homes[0]; 3]);
    }
}
