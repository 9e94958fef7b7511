use std::time::{Duration, Instant};

use crate::addr::{Action, PortSet};
use crate::conf::fixture::Texts;

use super::health::Event;
use super::plan::{Bounds, Lot, Plan, Reason};
use super::service::{Exhausted, Socket, Tried, Upstream};
use super::silence::Source;
use super::*;

mod directory;
mod sentence;

/// A configuration as its files give it; HOST is 10.0.0.1 and pods are at 127.0.0.1 unless `keys` say else.
fn conf(keys: &str, mappings: &str) -> Arc<Conf> {
    conf_among("10.0.0.1:32767\n", keys, mappings)
}

/// The same with these hosts.
fn conf_among(hosts: &str, keys: &str, mappings: &str) -> Arc<Conf> {
    conf_of(hosts, keys, mappings, None)
}

/// One of apps alone.
fn conf_of_apps(apps: &str) -> Arc<Conf> {
    conf_of("10.0.0.1:32767\n", "APPSCONF config.json\n", "", Some(apps))
}

fn conf_of(hosts: &str, keys: &str, mappings: &str, apps: Option<&str>) -> Arc<Conf> {
    let keys = format!("HOST 10.0.0.1\nPODHOST 127.0.0.1\nBALANCE ordered\n{keys}");
    let conf = Texts {
        proxy: &keys,
        mappings,
        hosts,
        apps,
    };
    conf.conf()
}

fn table(mappings: &str) -> Table {
    Table::build(conf("", mappings), None, Instant::now())
}

fn port_of(pod: &Pod) -> u16 {
    pod.upstream.addr.port()
}

#[test]
fn services_are_found_by_port_with_their_pods_in_file_order() {
    let table = table("2000:30002:1:false 1024:30009:1:true\n2000:30001:1:v2 65535:30000:1:false");
    let ports: Vec<u16> = table
        .service(2000)
        .unwrap()
        .pods
        .iter()
        .map(port_of)
        .collect();
    assert_eq!(ports, [30002, 30001]);
    assert_eq!(port_of(&table.service(1024).unwrap().pods[0]), 30009);
    assert_eq!(port_of(&table.service(65535).unwrap().pods[0]), 30000);
    assert!(table.service(1025).is_none() && table.service(0).is_none());
    assert_eq!(table.services().count(), 3);
}

#[test]
fn pods_are_tried_by_policy_and_those_that_are_down_never() {
    let table = table("1024:30000:9:false 1024:30001:9:false 1024:30002:9:false");
    let service = table.service(1024).unwrap();
    service.pods[0].upstream.report(false, Instant::now());
    let mut tried = Tried::default();
    let order: Vec<u16> = std::iter::from_fn(|| {
        service
            .take(Asker::default(), 0, Instant::now(), &mut tried)
            .ok()
            .map(|(pod, _)| port_of(pod))
    })
    .collect();
    assert_eq!(order, [30001, 30002]);
    assert_eq!(
        service
            .take(Asker::default(), 0, Instant::now(), &mut tried)
            .unwrap_err(),
        Exhausted::Tried
    );
}

#[test]
fn with_strict_a_client_gets_its_own_pod_or_none() {
    let mappings = "1024:30000:1:false 1024:30001:1:false";
    let conf = conf("BALANCE sh strict\n", mappings);
    let table = Table::build(conf, None, Instant::now());
    let service = table.service(1024).unwrap();
    let asker = Asker { key: 7, kept: None };
    let now = Instant::now();
    let mut tried = Tried::default();
    let (own, permit) = service.take(asker, 1, now, &mut tried).unwrap();
    let second = service.take(asker, 2, now, &mut tried);
    assert_eq!(second.unwrap_err(), Exhausted::Tried, "it was tried");
    let another = service.take(asker, 3, now, &mut Tried::default());
    assert_eq!(another.unwrap_err(), Exhausted::Full, "it is worth a wait");
    drop(permit);
    let (again, _) = service.take(asker, 4, now, &mut Tried::default()).unwrap();
    assert_eq!(port_of(again), port_of(own));
}

#[test]
fn a_full_pod_is_passed_over_and_a_full_service_says_so() {
    let table = table("1024:30000:1:false 1024:30001:1:false");
    let service = table.service(1024).unwrap();
    let (first, permit) = service
        .take(Asker::default(), 0, Instant::now(), &mut Tried::default())
        .unwrap();
    let (second, _other) = service
        .take(Asker::default(), 0, Instant::now(), &mut Tried::default())
        .unwrap();
    assert_eq!((port_of(first), port_of(second)), (30000, 30001));
    assert_eq!(
        service
            .take(Asker::default(), 0, Instant::now(), &mut Tried::default())
            .unwrap_err(),
        Exhausted::Full
    );
    drop(permit);
    assert_eq!(
        port_of(
            service
                .take(Asker::default(), 0, Instant::now(), &mut Tried::default())
                .unwrap()
                .0
        ),
        30000
    );
}

#[test]
fn permits_count_on_through_reloads_even_of_a_mapping_that_left_for_a_while() {
    let with = "1024:30000:1:false 1024:30001:1:false";
    let first = table(with);
    let (_, permit) = first
        .service(1024)
        .unwrap()
        .take(Asker::default(), 0, Instant::now(), &mut Tried::default())
        .unwrap();
    let without = Table::build(conf("", "1024:30001:1:false"), Some(&first), Instant::now());
    let back = Table::build(conf("", with), Some(&without), Instant::now());
    let service = back.service(1024).unwrap();
    let (pod, _held) = service
        .take(Asker::default(), 0, Instant::now(), &mut Tried::default())
        .unwrap();
    assert_eq!(
        port_of(pod),
        30001,
        "30000 is full: its connection began two tables ago"
    );
    drop(permit);
    assert_eq!(
        port_of(
            service
                .take(Asker::default(), 0, Instant::now(), &mut Tried::default())
                .unwrap()
                .0
        ),
        30000
    );
    assert_eq!(back.generation, 3);
}

#[test]
fn loads_of_mappings_that_left_are_forgotten_when_nothing_holds_them() {
    let mut now = table("1024:30000:1:false");
    let (_, permit) = now
        .service(1024)
        .unwrap()
        .take(Asker::default(), 0, Instant::now(), &mut Tried::default())
        .unwrap();
    for _ in 0..5 {
        now = Table::build(conf("", "1025:30000:1:false"), Some(&now), Instant::now());
        assert_eq!(now.departed.len(), 1);
    }
    drop(permit);
    now = Table::build(conf("", "1025:30000:1:false"), Some(&now), Instant::now());
    assert!(now.departed.is_empty());
}

#[test]
fn a_connection_that_looked_before_a_reload_counts_after_it() {
    let mappings = "1024:30000:1:false";
    let old = table(mappings);
    let new = Table::build(conf("", mappings), Some(&old), Instant::now());
    let late =
        old.service(1024)
            .unwrap()
            .take(Asker::default(), 0, Instant::now(), &mut Tried::default());
    assert!(late.is_ok());
    let full =
        new.service(1024)
            .unwrap()
            .take(Asker::default(), 0, Instant::now(), &mut Tried::default());
    assert_eq!(full.unwrap_err(), Exhausted::Full);
}

#[test]
fn what_is_known_of_an_upstream_outlives_a_reload() {
    let first = table("1024:30000:1:false");
    assert!(first.upstreams()[0].0.report(false, Instant::now()));
    let second = Table::build(
        conf("", "1024:30000:5:true 1025:30000:5:true"),
        Some(&first),
        Instant::now(),
    );
    assert!(!second.service(1024).unwrap().alive() && !second.service(1025).unwrap().alive());
    assert_eq!(second.upstreams().len(), 1, "two mappings, one upstream");
}

#[test]
fn ports_that_check_alike_share_an_upstream_and_others_do_not() {
    let keys = "HEALTH 1025 tcp/1s expect=ok\nHEALTH 1026-1027 passive";
    let mappings = "1024:30000:5:false 1025:30000:5:false 1026:30000:5:false 1027:30000:5:false";
    let first = Table::build(conf(keys, mappings), None, Instant::now());
    let of = |table: &Table, port| Arc::clone(&table.service(port).unwrap().pods[0].upstream);
    assert_eq!(first.upstreams().len(), 3);
    assert!(Arc::ptr_eq(&of(&first, 1026), &of(&first, 1027)));

    let now = Instant::now();
    of(&first, 1025).note(Event::Missed, Some(&"no answer"), 0, now);
    assert!(of(&first, 1024).is_up() && of(&first, 1026).is_up());

    // What was known of the address goes on under another check.
    let now = now + Duration::from_secs(1);
    of(&first, 1024).report(false, now);
    let second = Table::build(conf("HEALTH passive", mappings), Some(&first), now);
    assert_eq!(second.upstreams().len(), 1);
    assert!(Arc::ptr_eq(&of(&first, 1026), &of(&second, 1024)));
    let third = Table::build(
        conf("HEALTH tcp/7s", "1024:30000:5:false"),
        Some(&first),
        now,
    );
    assert!(!Arc::ptr_eq(&of(&first, 1024), &of(&third, 1024)));
}

#[test]
fn a_new_check_begins_with_what_was_known() {
    let first = table("1024:30000:1:false");
    let now = Instant::now();
    let upstream = &first.upstreams()[0].0;
    upstream.note(Event::Missed, Some(&"no answer"), 0, now);
    let second = Table::build(
        conf("HEALTH passive", "1024:30000:1:false"),
        Some(&first),
        now,
    );
    let after = &second.upstreams()[0].0;
    assert!(!Arc::ptr_eq(upstream, after) && !after.is_up());
    assert_eq!(
        (after.health(), after.last()),
        (upstream.health(), upstream.last())
    );
    assert_eq!(after.last().unwrap().error.as_deref(), Some("no answer"));
}

#[test]
fn only_a_connection_that_began_after_a_silence_tells_that_it_is_over() {
    let table = Table::build(
        conf("HEALTH passive fails=2", "1024:30000:1:false"),
        None,
        Instant::now(),
    );
    let addr = table.upstreams()[0].0.addr;
    let [upstream] = table.upstreams_at(addr).collect::<Vec<_>>()[..] else {
        panic!("one upstream");
    };
    let [before, at, after] = [0, 1, 2].map(|secs| Instant::now() + Duration::from_secs(secs));
    assert!(!upstream.was_silent_before(after));
    upstream.note(Event::Silent, Some(&"silent"), 0, at);
    assert!(upstream.is_up());
    assert!(upstream.was_silent_before(after) && !upstream.was_silent_before(before));
    upstream.note(Event::Served, None, 0, after);
    assert!(!upstream.was_silent_before(after), "settled");
    upstream.note(Event::Silent, Some(&"silent"), 0, after);
    assert!(upstream.is_up(), "not in a row");
    assert_eq!(table.upstreams_at(([127, 0, 0, 1], 9).into()).count(), 0);
}

#[test]
fn only_a_change_of_health_is_worth_telling() {
    let upstream = Upstream::new(([127, 0, 0, 1], 1).into());
    let now = Instant::now();
    assert!(!upstream.report(true, now));
    assert!(upstream.report(false, now));
    assert!(!upstream.report(false, now + Duration::from_secs(1)));
    assert!(upstream.report(true, now));
}

#[test]
fn one_probe_at_a_time() {
    let upstream = Arc::new(Upstream::new(([127, 0, 0, 1], 1).into()));
    let probe = upstream.begin_probe();
    assert!(probe.is_some() && upstream.begin_probe().is_none());
    drop(probe);
    assert!(upstream.begin_probe().is_some());
}

/// The kernel of this host refused it, and no socket listens.
fn bring_down(upstream: &Upstream) {
    upstream.set_refused(true);
    upstream.set_socket(Socket::Missing);
    upstream.report(false, Instant::now());
}

#[test]
fn a_port_whose_pods_are_down_is_steered_while_a_dial_may_find_one_back() {
    let conf = conf("", "1024:30000:1:false");
    let table = Table::build(Arc::clone(&conf), None, Instant::now());
    let (pod, _) = &table.upstreams()[0];
    let lot = || plan_of(&table, &PortSet::new(), None).lot(1024);
    bring_down(pod);
    assert_eq!(lot().action, Action::Refuse);
    for (socket, refused) in [
        (Socket::Unknown, true),
        (Socket::Seen, true),
        (Socket::Missing, false),
    ] {
        pod.set_socket(socket);
        pod.set_refused(refused);
        let Lot { action, reason } = lot();
        let expected = (Action::Steer, Reason::PodsDown);
        assert_eq!((action, reason), expected, "{socket:?}, {refused}");
    }
}

#[test]
fn a_pod_of_which_a_check_expects_an_answer_comes_back_by_a_check_only() {
    let conf = conf("HEALTH tcp/1s expect=+PONG", "1024:30000:1:false");
    let table = Table::build(Arc::clone(&conf), None, Instant::now());
    table.upstreams()[0].0.report(false, Instant::now());
    let lot = plan_of(&table, &PortSet::new(), None).lot(1024);
    assert_eq!(lot.action, Action::Refuse);
}

#[track_caller]
fn check_lot(plan: &Plan, port: u16, action: Action, reason: Reason) {
    assert_eq!(plan.lot(port), Lot { action, reason }, "port {port}");
}

/// The plan beside programs on these ports.
fn plan_of(table: &Table, taken: &PortSet, listeners: Option<usize>) -> Plan {
    let bounds = Bounds {
        taken,
        listeners,
        lowest: 0,
    };
    Plan::build(&table.conf, table, bounds)
}

#[test]
fn a_privileged_port_is_left_alone_without_the_right_to_it() {
    let conf = conf_among(TWO, "CLUSTERPORTS 1000-1030", "");
    let table = Table::build(conf, None, Instant::now());
    let bounds = Bounds {
        taken: &PortSet::new(),
        listeners: None,
        lowest: 1024,
    };
    let plan = Plan::build(&table.conf, &table, bounds);
    check_lot(&plan, 1023, Action::Pass, Reason::Privileged);
    check_lot(&plan, 1024, Action::Steer, Reason::OtherHosts);
}

#[test]
fn the_rules_of_the_plan_in_their_order() {
    let conf = conf(
        "CLUSTERPORTS 1000-1009,32767",
        "1000:30000:1:false 1001:30001:1:false 1002:30000:1:false",
    );
    let table = Table::build(Arc::clone(&conf), None, Instant::now());
    bring_down(&table.service(1001).unwrap().pods[0].upstream);
    let taken: PortSet = [1002, 1003].into_iter().collect();
    let plan = plan_of(&table, &taken, None);
    check_lot(&plan, 999, Action::Pass, Reason::Foreign);
    check_lot(&plan, 1000, Action::Steer, Reason::Mapped);
    check_lot(&plan, 1001, Action::Refuse, Reason::PodsDown);
    check_lot(&plan, 1002, Action::Pass, Reason::Held);
    check_lot(&plan, 1003, Action::Pass, Reason::Conflict);
    check_lot(&plan, 1004, Action::Pass, Reason::NotMapped);
    check_lot(&plan, 32767, Action::Pass, Reason::ProxyPort);
}

#[test]
fn a_pods_own_port_at_a_steered_address_is_never_steered() {
    let same = conf(
        "PODHOST 10.0.0.1\nCLUSTERPORTS 1000-1009",
        "1000:1005:1:false",
    );
    let table = Table::build(Arc::clone(&same), None, Instant::now());
    let plan = plan_of(&table, &[1005].into_iter().collect(), None);
    check_lot(&plan, 1000, Action::Steer, Reason::Mapped);
    check_lot(&plan, 1005, Action::Pass, Reason::PodListens);
}

#[track_caller]
fn check_unmapped(hosts: &str, keys: &str, one_by_one: bool, action: Action, reason: Reason) {
    let conf = conf_among(hosts, &format!("CLUSTERPORTS 1000-1009\n{keys}"), "");
    let table = Table::build(Arc::clone(&conf), None, Instant::now());
    let listeners = one_by_one.then_some(100);
    let plan = plan_of(&table, &PortSet::new(), listeners);
    check_lot(&plan, 1004, action, reason);
}

const ALONE: &str = "10.0.0.1:32767\n";
const TWO: &str = "10.0.0.1:32767\n10.0.0.2:32767\n";

#[test]
fn what_is_not_mapped_here_is_steered_where_other_hosts_may_serve_it() {
    check_unmapped(TWO, "", false, Action::Steer, Reason::OtherHosts);
    check_unmapped(ALONE, "", false, Action::Pass, Reason::NotMapped);
    check_unmapped(TWO, "LOCALITY only", false, Action::Pass, Reason::NotMapped);
    check_unmapped(
        TWO,
        "LOCALITY prefer",
        false,
        Action::Steer,
        Reason::OtherHosts,
    );
    // A listener for each of 61,744 ports is not meant.
    check_unmapped(TWO, "", true, Action::Pass, Reason::NotMapped);
}

#[test]
fn unmapped_says_what_becomes_of_what_is_not_mapped_here() {
    let steer = "UNMAPPED steer";
    check_unmapped(TWO, steer, false, Action::Steer, Reason::OtherHosts);
    check_unmapped(TWO, steer, true, Action::Steer, Reason::OtherHosts);
    check_unmapped(ALONE, steer, false, Action::Steer, Reason::NotMapped);
    for hosts in [ALONE, TWO] {
        let refuse = "UNMAPPED refuse";
        check_unmapped(hosts, refuse, false, Action::Refuse, Reason::NotMapped);
    }
}

#[test]
fn the_other_rules_stand_above_the_other_hosts() {
    let conf = conf_among(
        TWO,
        "CLUSTERPORTS 1000-1009,32767\nPODHOST 10.0.0.1",
        "1000:1005:1:false",
    );
    let table = Table::build(Arc::clone(&conf), None, Instant::now());
    let plan = plan_of(&table, &[1003].into_iter().collect(), None);
    check_lot(&plan, 999, Action::Pass, Reason::Foreign);
    check_lot(&plan, 1000, Action::Steer, Reason::Mapped);
    check_lot(&plan, 1003, Action::Pass, Reason::Conflict);
    check_lot(&plan, 1005, Action::Pass, Reason::PodListens);
    check_lot(&plan, 32767, Action::Pass, Reason::ProxyPort);
}

#[test]
fn a_port_whose_pods_are_down_is_refused_only_where_no_other_host_can_serve_it() {
    let lot = |hosts: &str, keys: &str| {
        let conf = conf_among(hosts, keys, "1024:30000:1:false");
        let table = Table::build(Arc::clone(&conf), None, Instant::now());
        bring_down(&table.upstreams()[0].0);
        let Lot { action, reason } = plan_of(&table, &PortSet::new(), None).lot(1024);
        (action, reason)
    };
    let refused = (Action::Refuse, Reason::PodsDown);
    let steered = (Action::Steer, Reason::OtherHosts);
    assert_eq!(lot(ALONE, ""), refused);
    assert_eq!(lot(TWO, "LOCALITY only"), refused);
    assert_eq!(lot(TWO, ""), steered);
    assert_eq!(lot(TWO, "UNMAPPED refuse"), steered);
    // A name without an address is no host that could serve.
    assert_eq!(lot("10.0.0.1:32767\nb.example:32767\n", ""), refused);
}

/// How many of `picks` connections each pod gets at `now`, while none of them stays.
fn shares(service: Service<'_>, picks: u64, now: Instant) -> Vec<u32> {
    let mut shares = vec![0; service.pods.len()];
    for turn in 0..picks {
        let random = (turn + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let random = (random ^ random >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let (pod, _) = service
            .take(Asker::default(), random, now, &mut Tried::default())
            .unwrap();
        let of = |at: &Pod| at.upstream.addr == pod.upstream.addr;
        shares[service.pods.iter().position(of).unwrap()] += 1;
    }
    shares
}

#[test]
fn a_pod_that_comes_has_more_and_more_of_its_share() {
    let start = Instant::now();
    for policy in ["rr", "random", "lc", "p2c", "wlc", "twos"] {
        let keys = format!("SLOWSTART 100s\nBALANCE {policy}");
        let one = "1024:30000:9:false";
        let two = "1024:30000:9:false 1024:30001:9:false";
        let old = Table::build(conf(&keys, one), None, start);
        let new = Table::build(conf(&keys, two), Some(&old), start);
        let at = |secs| {
            shares(
                new.service(1024).unwrap(),
                10_000,
                start + Duration::from_secs(secs),
            )
        };
        let [early, half, late] = [1, 50, 100].map(|secs| at(secs)[1]);
        assert!(
            early < 1000 && early > 100,
            "{policy}: {early} of 10,000 at once"
        );
        assert!(
            half > early && half < late,
            "{policy}: {early} {half} {late}"
        );
        assert!(
            (4800..=5200).contains(&late),
            "{policy}: {late} when its time is over"
        );
        // All are new to who was not there before.
        let first = Table::build(conf(&keys, two), None, start);
        let share = shares(first.service(1024).unwrap(), 10_000, start)[1];
        assert!((4800..=5200).contains(&share), "{policy}: {share}");
    }
}

#[test]
fn a_client_that_is_kept_goes_where_it_was_while_that_takes_it() {
    let table = table("1024:30000:1:false 1024:30001:1:false");
    let service = table.service(1024).unwrap();
    let asker = Asker {
        kept: Some(service.pods[1].upstream.addr),
        ..Asker::default()
    };
    let take = |tried: &mut Tried| {
        let (pod, permit) = service.take(asker, 0, Instant::now(), tried)?;
        Ok::<_, Exhausted>((port_of(pod), permit))
    };
    let mut tried = Tried::default();
    let (port, held) = take(&mut tried).unwrap();
    assert_eq!(port, 30001);
    assert_eq!(take(&mut Tried::default()).unwrap().0, 30000, "it is full");
    drop(held);
    assert_eq!(take(&mut tried).unwrap().0, 30000, "it was tried");
    service.pods[1].upstream.report(false, Instant::now());
    assert_eq!(take(&mut Tried::default()).unwrap().0, 30000, "it is down");
}

#[test]
fn a_reload_keeps_the_tables_of_policies_that_hash() {
    let two = "1024:30000:9:false 1024:30001:9:false 1025:30000:9:false 1025:30001:9:false";
    let three = format!("{two} 1025:30002:9:false");
    for policy in ["sh", "mh"] {
        let keys = format!("BALANCE {policy}");
        let old = Table::build(conf(&keys, two), None, Instant::now());
        let new = Table::build(conf(&keys, &three), Some(&old), Instant::now());
        let is_kept = |port| {
            let scheme = |table| Table::service(table, port).unwrap().scheme;
            scheme(&new).shares_table(scheme(&old))
        };
        assert!(is_kept(1024), "{policy}: nothing changed");
        assert!(!is_kept(1025), "{policy}: a pod came");
    }
}

#[test]
fn silence_takes_pods_down_by_distinct_sources_up_to_ejectmax() {
    let conf = conf(
        "HEALTH passive fails=2",
        "1024:30000:1:false 1024:30001:1:false 1024:30002:1:false 1024:30003:1:false",
    );
    let table = Table::build(Arc::clone(&conf), None, Instant::now());
    let service = table.service(1024).unwrap();
    let source = |last: u8| Source::of([192, 0, 2, last].into());
    let silent = |pod: usize, source: Source| {
        let upstream = &service.pods[pod].upstream;
        let may_go_down = service.may_eject(upstream, source);
        upstream.note_silence(source, &"silent", may_go_down, Instant::now())
    };
    assert!(!silent(0, source(1)) && !silent(0, source(1)), "one source");
    assert!(silent(0, source(2)));
    // These two took one down: they take no part in another one.
    assert!(!silent(1, source(3)) && !silent(1, source(1)) && !silent(1, source(2)));
    assert!(silent(1, source(4)));
    // Half of four are down.
    assert!(!silent(2, source(5)) && !silent(2, source(6)));
    assert!(
        service.pods[2].upstream.report(false, Instant::now()) || {
            // What is really seen has no such bound.
            service.pods[2].upstream.report(false, Instant::now())
        }
    );
    // An answer ends a row.
    let pod = &service.pods[3].upstream;
    assert!(!silent(3, source(7)));
    pod.note(Event::Served, None, 0, Instant::now());
    assert!(!silent(3, source(8)));
}
