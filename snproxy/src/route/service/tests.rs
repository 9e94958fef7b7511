//! What holds of every pick, whatever the pods and the policy.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::conf::{Balance, Policy};
use crate::route::balance;

/// One pod: weight, whether it is up, maxConn, live connections.
type Case = (u32, bool, u32, u32);

fn cases() -> impl Strategy<Value = Vec<Case>> {
    prop::collection::vec((0..5_u32, any::<bool>(), 0..4_u32, 0..4_u32), 1..12)
}

fn pods(cases: &[Case], now: Instant) -> (Vec<Pod>, Vec<Permit>) {
    let mut held = Vec::new();
    let ports = 30_000_u16..;
    let pods = cases.iter().zip(ports).map(|(case, port)| {
        let &(weight, is_up, max_conn, active) = case;
        let upstream = Arc::new(Upstream::new(([127, 0, 0, 1], port).into()));
        if !is_up {
            upstream.report(false, now);
        }
        let load = Arc::new(Load::default());
        held.extend((0..active).filter_map(|_| load.admit(Limit::new(None, 100))));
        Pod {
            upstream,
            load,
            weight,
            max_conn,
            send_proxy: SendProxy::No,
        }
    });
    (pods.collect(), held)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_taken_is_up_has_weight_and_was_not_full_and_nothing_leaks(
        cases in cases(),
        random in any::<u64>(),
        key in any::<u64>(),
        strict in any::<bool>(),
        slow_start in any::<bool>(),
        kept in 0..12_u16,
    ) {
        let now = Instant::now();
        for &policy in Policy::ALL {
            let (pods, held) = pods(&cases, now);
            let weighed: Vec<_> = pods
                .iter()
                .map(|pod| (balance::identity(pod.upstream.addr), pod.weight))
                .collect();
            let conf = PortConf {
                balance: Balance { policy, port: false, strict },
                slow_start: slow_start.then_some(Duration::from_secs(9)),
                ..PortConf::default()
            };
            let scheme = Scheme::build(policy, strict, &weighed);
            let turn = AtomicU32::new(0);
            let service = Service {
                port: ClusterPort::new(1024).unwrap(),
                conf: &conf,
                scheme: &scheme,
                pods: &pods,
                is_app: false,
                turn: &turn,
            };
            let open = |pod: usize| service.standing(pod) == Standing::Open;
            let before: Vec<u32> = pods.iter().map(|pod| pod.load.active()).collect();
            let mut tried = Tried::default();
            let mut taken = Vec::new();
            let asker = Asker {
                key,
                kept: Some(([127, 0, 0, 1], 30_000 + kept).into()),
            };
            loop {
                let could: Vec<usize> = (0..pods.len())
                    .filter(|pod| open(*pod) && !tried.contains(*pod))
                    .collect();
                match service.take(asker, random, now, &mut tried) {
                    Ok((pod, permit)) => {
                        let at = tried.0[tried.len() - 1];
                        prop_assert!(could.contains(&at), "{policy}: {at} of {could:?}");
                        let (weight, is_up, max_conn, _) = cases[at];
                        prop_assert!(weight > 0 && is_up && before[at] < max_conn);
                        prop_assert!(std::ptr::eq(pod, &raw const pods[at]));
                        taken.push(permit);
                    }
                    Err(none) => {
                        let may_refuse = strict && policy.hashes();
                        prop_assert!(could.is_empty() || may_refuse, "{policy}: {could:?}");
                        let is_full = |pod: usize| service.standing(pod) == Standing::Full;
                        let full = (0..pods.len()).any(|pod| is_full(pod) && !tried.contains(pod));
                        prop_assert_eq!(none == Exhausted::Full, full);
                        break;
                    }
                }
            }
            drop(taken);
            let after: Vec<u32> = pods.iter().map(|pod| pod.load.active()).collect();
            prop_assert_eq!(before, after);
            drop(held);
            prop_assert!(pods.iter().all(|pod| pod.load.active() == 0));
        }
    }
}
