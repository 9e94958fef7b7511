//! What a directory changes in the table and in the plan.

use super::*;
use crate::addr::Action;
use crate::route::directory::Directory;
use crate::route::directory::own::{Fullness, offer};
use crate::route::directory::view::{Freshness, View};
use crate::wire::directory::{Key, encode_block, encode_name};

const KEYS: &str = "CLUSTERPORTS 1000-1019\n";

fn further(host: u8) -> (Box<str>, SocketAddr) {
    let addr = SocketAddr::new([10, 0, 0, host].into(), 32767);
    (format!("host-{host}").into(), addr)
}

/// A table of this host, which serves 1000, and of two that the directory names; 1001 and 1002 are served by one of them.
fn table_with(keys: &str, is_complete: bool) -> Table {
    let conf = conf(&format!("{KEYS}{keys}"), "1000:30000:1:false");
    let table = Table::build_among(conf, &[further(2), further(3)], None, Instant::now());
    let mut directory = Directory::default();
    for (host, block) in [(2, &b"1\n1001-1002 1\n"[..]), (3, b"1\n")] {
        let (_, host) = further(host);
        let block_key = Key {
            host,
            block: Some(0),
        };
        assert_eq!(directory.put(block_key, block).1, Ok(()));
        let name = encode_name("host");
        let own = Key { host, block: None };
        assert_eq!(directory.put(own, name.as_bytes()).1, Ok(()));
    }
    let number = |addr| table.peers.number(addr);
    let count = table.peers.list().len();
    let mut view = View::build(&directory, count, number, Freshness::Current, None);
    view.is_complete = is_complete;
    table.peers.set_view(Some(Arc::new(view)));
    table
}

#[track_caller]
fn check_plan(
    keys: &str,
    is_complete: bool,
    listeners: Option<usize>,
    lots: [(Action, Reason); 4],
) {
    let table = table_with(keys, is_complete);
    let plan = plan_of(&table, &PortSet::new(), listeners);
    for (port, (action, reason)) in (1000..).zip(lots) {
        check_lot(&plan, port, action, reason);
    }
}

#[test]
fn where_all_hosts_publish_what_nobody_serves_is_refused() {
    let mapped = (Action::Steer, Reason::Mapped);
    let other = (Action::Steer, Reason::OtherHosts);
    let unserved = (Action::Refuse, Reason::Unserved);
    check_plan("", true, None, [mapped, other, other, unserved]);
    // One that does not publish may serve it.
    check_plan("", false, None, [mapped, other, other, other]);
    let refuse = (Action::Refuse, Reason::NotMapped);
    check_plan(
        "UNMAPPED refuse",
        true,
        None,
        [mapped, refuse, refuse, refuse],
    );
    let steer = (Action::Steer, Reason::NotMapped);
    check_plan("UNMAPPED steer", true, None, [mapped, other, other, steer]);
    let pass = (Action::Pass, Reason::NotMapped);
    check_plan(
        "LOCALITY 1001 only",
        true,
        None,
        [mapped, pass, other, unserved],
    );
}

#[test]
fn ports_of_other_hosts_have_listeners_as_long_as_there_are_some() {
    let mapped = (Action::Steer, Reason::Mapped);
    let other = (Action::Steer, Reason::OtherHosts);
    let none = (Action::Pass, Reason::NoListener);
    let unserved = (Action::Refuse, Reason::Unserved);
    check_plan("", true, Some(9), [mapped, other, other, unserved]);
    check_plan("", true, Some(2), [mapped, other, none, unserved]);
    check_plan("", true, Some(1), [mapped, none, none, unserved]);
    // Nobody listens on all ports in case that somebody serves one; what is known goes on.
    let pass = (Action::Pass, Reason::NotMapped);
    check_plan("", false, Some(9), [mapped, other, other, pass]);
}

#[test]
fn a_port_whose_pods_are_down_is_refused_if_no_other_host_publishes_it() {
    for (port, expected) in [
        (1001, (Action::Steer, Reason::OtherHosts)),
        (1003, (Action::Refuse, Reason::PodsDown)),
    ] {
        let with = table_with("", true);
        let conf = conf(KEYS, &format!("{port}:30000:1:false"));
        let hosts = [further(2), further(3)];
        let table = Table::build_among(conf, &hosts, Some(&with), Instant::now());
        assert!(Arc::ptr_eq(&with.peers, &table.peers));
        let (upstream, _) = &table.upstreams()[0];
        upstream.set_refused(true);
        upstream.set_socket(Socket::Missing);
        for _ in 0..upstream.check.fails {
            upstream.report(false, Instant::now());
        }
        let plan = plan_of(&table, &PortSet::new(), None);
        check_lot(&plan, port, expected.0, expected.1);
    }
}

#[test]
fn hosts_of_the_directory_are_hosts_and_the_generation_stays() {
    let first = table_with("", true);
    assert!(first.has_further(&[further(2), further(3)]));
    assert!(!first.has_further(&[further(2)]));
    assert!(first.peers.has([10, 0, 0, 3].into()) && !first.peers.has([10, 0, 0, 4].into()));
    let less = Table::build_among(
        Arc::clone(&first.conf),
        &[further(2)],
        Some(&first),
        Instant::now(),
    );
    assert_eq!((less.generation, less.peers.list().len()), (1, 1));
    assert!(less.peers.view().is_none(), "made for other numbers");
    let only = conf(&format!("{KEYS}LOCALITY only"), "");
    let alone = Table::build_among(only, &[further(2)], None, Instant::now());
    assert!(alone.peers.is_empty() && alone.has_further(&[further(2)]));
    // It serves them all the same.
    assert!(alone.peers.has([10, 0, 0, 2].into()) && !alone.peers.has([10, 0, 0, 3].into()));
    assert!(!alone.has_further(&[]) && !alone.has_further(&[further(2), further(3)]));
}

#[test]
fn a_host_offers_what_its_pods_take() {
    let mappings = "1000:30000:1:false 1001:30000:1:false 1002:30001:0:false 1003:30002:1:false 1003:30003:1:false \
                    1025:30000:1:false 9000:30000:1:false";
    let keys = "CLUSTERPORTS 1000-1030";
    let table = Table::build(conf(keys, mappings), None, Instant::now());
    let now = Instant::now();
    let mut fullness = Fullness::default();
    let text = |fullness: &mut Fullness, now| {
        let blocks = offer(&table, fullness, now);
        let blocks: Vec<_> = blocks.values().map(|runs| encode_block(runs)).collect();
        blocks.concat()
    };
    // 1002 takes nobody, and 9000 is no cluster port.
    let all = "1\n1000-1001 1\n1003 2\n1\n1025 1\n";
    assert_eq!(text(&mut fullness, now), all);
    let permit = table.service(1000).unwrap().admit(0).unwrap();
    assert_eq!(text(&mut fullness, now), all, "not yet");
    let later = now + Duration::from_secs(1);
    let full = "1\n1000 1 full\n1001 1\n1003 2\n1\n1025 1\n";
    assert_eq!(text(&mut fullness, later), full);
    drop(permit);
    assert_eq!(text(&mut fullness, later), all);
    for (upstream, _) in table.upstreams() {
        if upstream.addr.port() == 30000 {
            upstream.set_refused(true);
            upstream.set_socket(Socket::Missing);
            for _ in 0..upstream.check.fails {
                upstream.report(false, now);
            }
        }
    }
    assert_eq!(text(&mut fullness, later), "1\n1003 2\n");
}
