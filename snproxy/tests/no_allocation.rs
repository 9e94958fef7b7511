//! No policy allocates in a pick.
//!
//! Alone in its executable: the allocator that counts is the whole process's.

use snproxy::conf::Policy;
use snproxy::route::balance::{Draw, Scheme, identity, key};

#[test]
fn no_policy_allocates_in_a_pick() {
    for &policy in Policy::ALL {
        for count in [1_u16, 2, 16, 256, 1000] {
            for weight in [|_| 1, |pod: u16| u32::from(pod % 6)] {
                let pods: Vec<(u64, u32)> = (0..count)
                    .map(|pod| (identity(([127, 0, 0, 1], pod).into()), weight(pod)))
                    .collect();
                let scheme = Scheme::build(policy, false, &pods);
                let counted = allocation_counter::measure(|| {
                    for turn in 0..200_u32 {
                        let draw = Draw {
                            random: u64::from(turn).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                            turn,
                            key: key(turn.to_be_bytes().into(), Some(1)),
                        };
                        // Also the way that asks all: two of three are out.
                        let is_up = |pod| turn % 2 == 0 || pod % 3 == 0;
                        let load = |pod| u32::try_from(pod).unwrap_or(0) % 7;
                        std::hint::black_box(scheme.pick(pods.len(), is_up, load, draw));
                    }
                });
                assert_eq!(counted.count_total, 0, "{policy} of {count}");
            }
        }
    }
    // It does count.
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(counted.count_total, 1);
}
