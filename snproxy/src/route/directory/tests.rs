use super::view::{Freshness, View};
use super::*;
use crate::wire::directory::{encode_block, encode_name};

const NEVER: Option<Instant> = None;

fn addr(host: u8) -> SocketAddr {
    SocketAddr::new([10, 0, 0, host].into(), 32767)
}

fn key(host: u8, block: Option<u8>) -> Key {
    Key {
        host: addr(host),
        block,
    }
}

fn serves(pods: u16) -> Serves {
    Serves {
        pods,
        is_full: false,
    }
}

fn block(runs: &[(u16, u16, u16)]) -> String {
    let runs: Vec<Run> = runs
        .iter()
        .map(|(first, last, pods)| Run {
            first: *first,
            last: *last,
            serves: serves(*pods),
        })
        .collect();
    encode_block(&runs)
}

/// A host with these ports in the second block.
fn publish(directory: &mut Directory, host: u8, runs: &[(u16, u16, u16)]) {
    let value = block(runs);
    assert_eq!(
        directory.put(key(host, Some(1)), value.as_bytes()).1,
        Ok(())
    );
    let name = encode_name("host");
    assert_eq!(directory.put(key(host, None), name.as_bytes()).1, Ok(()));
}

fn view(directory: &Directory, freshness: Freshness) -> View {
    let number = |at: SocketAddr| (1..=3).position(|host| addr(host) == at);
    View::build(directory, 3, number, freshness, None)
}

#[test]
fn a_host_publishes_once_its_own_key_is_there() {
    let mut directory = Directory::default();
    let value = block(&[(1024, 1030, 2)]);
    let (touched, read) = directory.put(key(1, Some(1)), value.as_bytes());
    assert_eq!(
        (touched.hosts, touched.blocks, read),
        (false, 1 << 1, Ok(()))
    );
    assert_eq!(directory.hosts().count(), 0);
    let (touched, _) = directory.put(key(1, None), encode_name("a").as_bytes());
    assert_eq!(touched, Touched::ALL);
    let (at, host) = directory.hosts().next().unwrap();
    assert_eq!((at, host.name()), (addr(1), Some("a")));
    for (port, expected) in [
        (1023, None),
        (1024, Some(serves(2))),
        (1030, Some(serves(2))),
        (1031, None),
        (5000, None),
    ] {
        assert_eq!(host.serves(port), expected, "{port}");
    }
}

#[test]
fn what_cannot_be_read_makes_its_host_one_that_is_asked() {
    let mut directory = Directory::default();
    publish(&mut directory, 1, &[(1024, 1030, 2)]);
    publish(&mut directory, 2, &[(1024, 1030, 2)]);
    let (touched, read) = directory.put(key(1, Some(2)), b"2\nwhatever it is\n");
    assert!(read.is_err());
    assert_eq!(touched, Touched::ALL);
    assert_eq!(directory.hosts().count(), 1);
    let told = view(&directory, Freshness::Current).told(1024, None);
    assert!(told.of(0).is_none());
    assert_eq!(told.of(1).unwrap().serves, Some(serves(2)));
    // Mended.
    let (touched, read) = directory.put(key(1, Some(2)), b"1\n");
    assert_eq!((touched, read), (Touched::ALL, Ok(())));
    assert_eq!(directory.hosts().count(), 2);
    // Its own key.
    assert!(directory.put(key(1, None), b"2 a").1.is_err());
    assert_eq!(directory.hosts().count(), 1);
    directory.delete(key(1, None), NEVER);
    directory.delete(key(1, Some(1)), NEVER);
    directory.delete(key(1, Some(2)), NEVER);
    assert!(directory.host(addr(1)).is_none());
}

#[test]
fn a_host_that_left_while_etcd_was_away_is_kept_for_a_while() {
    let start = Instant::now();
    let grace = Duration::from_secs(10);
    let mut directory = Directory::default();
    publish(&mut directory, 1, &[(1024, 1030, 2)]);
    publish(&mut directory, 2, &[(1024, 1024, 1)]);
    let name = encode_name("host");
    let value = block(&[(1024, 1024, 3)]);
    let read = [
        (key(2, None), name.as_bytes()),
        (key(2, Some(1)), value.as_bytes()),
    ];
    assert!(directory.replace(read, Some(start)).is_empty());
    let seen = view(&directory, Freshness::Current);
    assert!(seen.has_missing() && seen.serves(1030));
    let told = seen.told(1024, None);
    let (missing, there) = (told.of(0).unwrap(), told.of(1).unwrap());
    assert_eq!((missing.serves, missing.is_sure), (Some(serves(2)), false));
    assert_eq!((there.serves, there.is_sure), (Some(serves(3)), true));
    assert!(
        directory
            .drop_missing(grace, start + grace / 2)
            .is_nothing()
    );
    assert_eq!(directory.drop_missing(grace, start + grace), Touched::ALL);
    assert!(!view(&directory, Freshness::Current).serves(1030));
    // Without an outage what is not there is gone at once.
    assert!(directory.replace([], NEVER).is_empty());
    assert_eq!((directory.hosts().count(), directory.runs), (0, 0));
}

#[test]
fn a_host_that_is_missing_and_comes_back_says_anew_what_it_has() {
    let start = Instant::now();
    let mut directory = Directory::default();
    publish(&mut directory, 1, &[(1024, 1030, 2)]);
    // As a lease that ends right after etcd is back.
    assert_eq!(directory.delete(key(1, None), Some(start)), Touched::ALL);
    assert!(directory.delete(key(1, Some(1)), Some(start)).is_nothing());
    assert!(directory.host(addr(1)).unwrap().is_missing());
    assert!(view(&directory, Freshness::Current).serves(1030));
    publish(&mut directory, 1, &[(1024, 1024, 1)]);
    let seen = view(&directory, Freshness::Current);
    assert!(!seen.has_missing() && seen.serves(1024) && !seen.serves(1030));
    assert!(directory.drop_missing(Duration::ZERO, start).is_nothing());
    assert_eq!(directory.runs, 1);
}

#[test]
fn a_view_is_made_anew_where_something_was_touched_only() {
    let mut directory = Directory::default();
    publish(&mut directory, 1, &[(1024, 1030, 2)]);
    publish(&mut directory, 2, &[(2047, 2047, 1)]);
    let first = view(&directory, Freshness::Current);
    let told = first.told(1024, None);
    let other = first.told(9000, None);
    let _ = directory.put(key(2, Some(1)), block(&[(1024, 1024, 7)]).as_bytes());
    let number = |at: SocketAddr| (1..=3).position(|host| addr(host) == at);
    let next = View::build(&directory, 3, number, Freshness::Current, Some(&first));
    assert!(next.serves(1024) && !next.serves(2047));
    let now = next.told(1024, Some(&told));
    assert_eq!(now.of(1).unwrap().serves, Some(serves(7)));
    assert!(Arc::ptr_eq(&next.told(9000, Some(&other)), &other));
    // Stale: nothing is sure any more.
    directory.turn();
    let stale = View::build(&directory, 3, number, Freshness::Stale, Some(&next));
    let told = stale.told(9000, Some(&other)).of(1).unwrap();
    assert_eq!((told.serves, told.is_sure), (None, false));
    assert!(stale.serves(1024));
}

#[test]
fn what_was_told_of_a_port_keeps_no_host_alive() {
    let mut directory = Directory::default();
    publish(&mut directory, 1, &[(1024, 1030, 2)]);
    let host = Arc::downgrade(directory.hosts().next().unwrap().1);
    let told = view(&directory, Freshness::Current).told(1024, None);
    let _ = directory.put(key(1, Some(9)), b"1\n");
    assert_eq!(told.of(0).unwrap().serves, Some(serves(2)));
    assert!(host.upgrade().is_none());
}

#[test]
fn a_changed_host_has_its_other_blocks_still() {
    let mut directory = Directory::default();
    publish(&mut directory, 1, &[(1024, 1030, 2)]);
    let before = Arc::clone(directory.hosts().next().unwrap().1);
    let _ = directory.put(key(1, Some(9)), b"1\n");
    let after = directory.host(addr(1)).unwrap();
    assert!(Arc::ptr_eq(&before.blocks[&1], &after.blocks[&1]));
}

#[test]
fn keys_of_a_host_are_known_whatever_is_in_them() {
    let mut directory = Directory::default();
    publish(&mut directory, 1, &[(1024, 1030, 2)]);
    assert!(directory.put(key(1, Some(9)), b"").1.is_err());
    let keys: Vec<_> = directory.keys(addr(1));
    assert_eq!(
        keys,
        [key(1, None), key(1, Some(1)), key(1, Some(9))],
        "in the order of keys"
    );
}

#[test]
fn a_host_too_many_is_one_that_may_serve() {
    let mut directory = Directory::default();
    let host = |at: usize| {
        let low = u16::try_from(at).unwrap().to_be_bytes();
        let host = SocketAddr::new([10, 1, low[0], low[1]].into(), 32767);
        Key { host, block: None }
    };
    for at in 0..MAX_HOSTS {
        assert_eq!(directory.put(host(at), b"1 host").1, Ok(()));
    }
    assert!(!directory.is_overfull());
    let (touched, read) = directory.put(host(MAX_HOSTS), b"1 host");
    assert_eq!((touched.hosts, read), (true, Err(Unusable::Hosts)));
    assert!(directory.is_overfull());
    let (touched, _) = directory.put(host(MAX_HOSTS), b"1 host");
    assert!(touched.is_nothing(), "as before");
    directory.replace([(host(0), &b"1 host"[..])], NEVER);
    assert!(!directory.is_overfull());
}
