//! What a pick costs, by policy and number of pods, and what a table does: `cargo bench -p snproxy --bench pick`.
//!
//! CPU time of the thread: what else runs on the machine does not count.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use rustix::time::{ClockId, clock_gettime};
use snproxy::conf::Policy;
use snproxy::route::balance::{Draw, Scheme, identity, key};

const COUNTS: [u16; 4] = [2, 16, 256, 4096];

/// A pod as a service sees it: its load and health are elsewhere in memory.
struct Pod {
    load: Box<AtomicU32>,
    limit: u32,
}

/// Pods of weights 1 to 5.
fn weighed(count: u16) -> Vec<(u64, u32)> {
    (0..count)
        .map(|pod| {
            let weight = 1 + u32::from(pod % 5);
            (identity(([10, 0, 0, 1], pod).into()), weight)
        })
        .collect()
}

fn spent<T>(times: u64, operation: &mut impl FnMut() -> T) -> Duration {
    let start = cpu_time();
    for _ in 0..times {
        black_box(operation());
    }
    cpu_time().saturating_sub(start)
}

fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    spent.try_into().expect("no time is negative")
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for &policy in Policy::ALL {
        let mut group = criterion.benchmark_group(policy.to_string());
        for count in COUNTS {
            let scheme = Scheme::build(policy, false, &weighed(count));
            let pods: Vec<Pod> = (0..count)
                .map(|pod| Pod {
                    load: Box::new(AtomicU32::new(u32::from(pod) * 7 % 11)),
                    limit: 1000,
                })
                .collect();
            let mut turn = 0_u32;
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                let mut pick = || {
                    turn = turn.wrapping_add(1);
                    let draw = Draw {
                        random: u64::from(turn).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                        turn,
                        key: key(turn.to_be_bytes().into(), None),
                    };
                    let eligible = |pod: usize| pods[pod].load.load(Relaxed) < pods[pod].limit;
                    let load = |pod: usize| pods[pod].load.load(Relaxed);
                    scheme.pick(pods.len(), eligible, load, black_box(draw))
                };
                bencher.iter_custom(|picks| spent(picks, &mut pick));
            });
        }
        group.finish();
    }
    for policy in [Policy::Sh, Policy::Mh] {
        let mut group = criterion.benchmark_group(format!("table of {policy}"));
        group.sample_size(10);
        for count in COUNTS {
            let pods = weighed(count);
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                let mut build = || Scheme::build(policy, false, black_box(&pods));
                bencher.iter_custom(|tables| spent(tables, &mut build));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
