mod groups;
mod properties;
mod shares;
mod stability;
mod vectors;

use super::*;
use crate::conf::Policy;

/// Bits of a number, the same in every run.
fn bits(number: u64) -> u64 {
    hash::mix(number ^ 0xFEED)
}

/// Pods at one address each, with these weights.
fn pods(weights: &[u32]) -> Vec<(u64, u32)> {
    (30_000..)
        .zip(weights)
        .map(|(port, weight)| (identity(([127, 0, 0, 1], port).into()), *weight))
        .collect()
}

/// A pick where nothing happened before and nobody is out.
fn draw(number: u32) -> Draw {
    Draw {
        random: bits(number.into()),
        turn: number,
        key: key(number.to_be_bytes().into(), None),
    }
}

#[test]
fn a_service_of_one_pod_or_equal_weights_has_nothing_prepared() {
    for &policy in Policy::ALL {
        for weights in [&[][..], &[0], &[1], &[256]] {
            let scheme = Scheme::build(policy, false, &pods(weights));
            assert!(!scheme.has_table(), "{policy} of {weights:?}");
        }
        let equal = Scheme::build(policy, false, &pods(&[7; 300]));
        let hashes = [Policy::Sh, Policy::Mh].contains(&policy);
        assert_eq!(equal.has_table(), hashes, "{policy}");
    }
}

#[test]
fn a_reload_that_changes_nothing_keeps_tables_and_any_other_is_as_if_built_anew() {
    for policy in [Policy::Sh, Policy::Mh] {
        for weights in [&[1, 2, 3][..], &[5; 3]] {
            let old = Scheme::build(policy, false, &pods(weights));
            assert!(old.rebuild(policy, true, &pods(weights)).shares_table(&old));
            let mut others = pods(weights);
            others[1].0 += 1;
            let changed = [&pods(weights)[..2], &pods(&[1, 2, 4]), &others];
            for pods in changed {
                let new = old.rebuild(policy, false, pods);
                assert!(!new.shares_table(&old), "{policy}: {pods:?}");
                assert_eq!(
                    format!("{new:?}"),
                    format!("{:?}", Scheme::build(policy, false, pods))
                );
            }
            let other = if policy == Policy::Sh {
                Policy::Mh
            } else {
                Policy::Sh
            };
            assert!(!old.rebuild(other, false, &pods(weights)).shares_table(&old));
        }
    }
}

#[test]
fn the_hashes_are_those_that_other_hosts_and_versions_have() {
    // Reference: xxhash 4.1.0 (PyPI), `xxh3_64_intdigest`, of the bytes that `key` documents.
    let client = "192.0.2.7".parse().unwrap();
    assert_eq!(key(client, None), 0x54E8_211E_31DB_05C1);
    assert_eq!(key(client, Some(443)), 0x0DEF_05EF_1AA8_421D);
    assert_eq!(
        key("::ffff:192.0.2.7".parse().unwrap(), None),
        key(client, None)
    );
    assert_eq!(
        key("2001:db8::7".parse().unwrap(), None),
        0x223D_514B_ACC6_AF55
    );
    assert_eq!(
        identity("10.0.0.1:30000".parse().unwrap()),
        0x66A6_2759_1DE8_118D
    );
    assert_eq!(
        identity("[2001:db8::7]:30000".parse().unwrap()),
        0x6702_90D1_5307_0B34
    );
    assert_eq!(name("host-1.example", 32767), 0x2425_FC31_CCBF_CF01);
}
