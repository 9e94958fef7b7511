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

/// A limit of 20 by MAXCONN auto, and 18 connections of port 1024 from one source.
async fn flooded(keys: &str) -> (Arc<Shared>, Vec<Places>) {
    let shared = Arc::new(Shared::new(table(keys, None), 1));
    shared.limits.set_capacity(20);
    let mut flood = Vec::new();
    for port in 1..=18 {
        flood.push(admit(&shared, 1024, &mut wanted(port)).await.unwrap());
    }
    (shared, flood)
}

fn other(port: u16) -> Wanted<'static> {
    Wanted {
        client: SocketAddr::from(([10, 0, 9, 9], port)),
        ..wanted(port)
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_tenth_is_not_behind_the_queue_of_a_flood() {
    let (shared, mut flood) = flooded("MAXCONN auto\nQUEUE 2\n").await;
    let mut waiting = JoinSet::new();
    for port in 19..=20 {
        let shared = Arc::clone(&shared);
        waiting.spawn(async move { admit(&shared, 1024, &mut wanted(port)).await });
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(shared.limits.line.len(), 2);
    let soon = Duration::from_secs(1);
    let mut two = Vec::new();
    for port in 1..=2 {
        let admitted = timeout(soon, async { admit(&shared, 1025, &mut other(port)).await }).await;
        two.push(admitted.expect("does not wait").ok().unwrap());
    }
    // All are taken: the next ones wait for each other, and not for the flood.
    let mut others = JoinSet::new();
    for port in [1026, 1027] {
        let shared = Arc::clone(&shared);
        others.spawn(async move {
            let mut wanted = Wanted {
                client: SocketAddr::from(([10, 1, 0, 1], port)),
                ..wanted(port)
            };
            admit(&shared, port, &mut wanted).await
        });
    }
    sleep(Duration::from_millis(1)).await;
    drop(two.pop());
    let place = timeout(soon, others.join_next()).await.expect("has a turn");
    assert_eq!(shared.limits.all(), 20);
    drop(place);
    let place = timeout(soon, others.join_next()).await.expect("has a turn");
    drop((place, two));
    assert_eq!((shared.limits.all(), shared.limits.line.len()), (18, 2));
    // Those of the flood lose no turn by this.
    flood.truncate(16);
    for _ in 0..2 {
        let joined = timeout(soon, waiting.join_next()).await;
        flood.push(joined.expect("has a turn").unwrap().unwrap().ok().unwrap());
    }
    assert!(shared.limits.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn peers_leave_the_last_tenth_to_clients() {
    let shared = Arc::new(Shared::new(table("MAXCONN auto\n", None), 1));
    shared.limits.set_capacity(20);
    let brought: Vec<_> = (0..20)
        .map_while(|_| admit_peer(&shared, 1024).ok())
        .collect();
    assert_eq!(brought.len(), 18);
    assert!(admit(&shared, 1025, &mut other(1)).await.is_ok());
}
