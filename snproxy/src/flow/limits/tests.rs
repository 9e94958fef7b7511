use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;
use crate::conf::fixture::Texts;
use crate::route::Table;

fn table(keys: &str, old: Option<&Table>) -> Table {
    let conf = Texts {
        proxy: keys,
        mappings: "1024:30000:9:false",
        hosts: "10.0.0.1:32767\n",
        apps: None,
    };
    let conf = conf.conf();
    Table::build(conf, old, std::time::Instant::now())
}

/// One client: when it comes, how long it is patient and how long it stays, in milliseconds; a peer asks for no queue.
type Visit = (u64, u64, u64, bool);

fn wanted(port: u16) -> Wanted<'static> {
    Wanted {
        client: SocketAddr::from(([10, 0, 0, 7], port)),
        asked: SocketAddr::from(([10, 0, 0, 1], 1024)),
        until: None,
        has_waited: false,
        preface: None,
    }
}

async fn crowd(keys: &str, visits: Vec<Visit>) {
    let shared = Arc::new(Shared::new(table(keys, None), 1));
    let mut crowd = JoinSet::new();
    for (at, patience, stay, is_peer) in visits {
        let shared = Arc::clone(&shared);
        crowd.spawn(async move {
            sleep(Duration::from_millis(at)).await;
            let mut wanted = wanted(5000);
            let places = if is_peer {
                admit_peer(&shared, 1024)
            } else {
                let patience = Duration::from_millis(patience);
                let admitted = timeout(patience, admit(&shared, 1024, &mut wanted)).await;
                admitted.unwrap_or(Err(End::Client))
            };
            assert!(shared.limits.all() <= 3 && shared.limits.active(1024) <= 2);
            if places.is_ok() {
                sleep(Duration::from_millis(stay)).await;
            }
        });
    }
    // In the middle of it all.
    sleep(Duration::from_millis(50)).await;
    let old = shared.table.load_full();
    shared.table.store(Arc::new(table(keys, Some(&old))));
    shared.limits.look_again();
    while let Some(done) = crowd.join_next().await {
        done.unwrap();
    }
    assert_eq!((shared.limits.all(), shared.limits.active(1024)), (0, 0));
    assert!(shared.limits.lines().is_empty());
    assert_eq!(shared.limits.waiting.load(SeqCst), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whoever_leaves_whenever_leaves_no_place_taken_and_nobody_waiting(
        visits in prop::collection::vec((0..100_u64, 0..40_u64, 0..30_u64, any::<bool>()), 1..60),
        queue in 0..8_u32,
        reopen in prop_oneof![Just(100_u8), Just(50)],
    ) {
        let keys = format!(
            "MAXCONN 3\nPORTMAXCONN 1024 2\nQUEUE {queue}\nQUEUETIMEOUT 25ms\nREOPEN {reopen}%\nSOURCEMAXCONN 40\n"
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(crowd(&keys, visits));
    }
}

#[tokio::test(start_paused = true)]
async fn places_that_come_free_go_to_those_that_waited_longest() {
    let shared = Arc::new(Shared::new(table("MAXCONN 1\nQUEUE 9\n", None), 1));
    let first = admit(&shared, 1024, &mut wanted(1)).await.unwrap();
    let (order, mut came) = tokio::sync::mpsc::unbounded_channel();
    for port in 2..=5 {
        let (shared, order) = (Arc::clone(&shared), order.clone());
        tokio::spawn(async move {
            let _places = admit(&shared, 1024, &mut wanted(port)).await.unwrap();
            order.send(port).unwrap();
        });
        tokio::task::yield_now().await;
    }
    drop(first);
    for port in 2..=5 {
        assert_eq!(came.recv().await, Some(port));
    }
}
