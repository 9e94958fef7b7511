//! Which connections end when their pods are gone.

use super::super::load::Limit;
use super::super::sentence::{Cause, Sentence, Sentenced, pass_on_down, pass_on_removed};
use super::*;

const KEYS: &str = "ONREMOVE 2000 drain:8s\nONREMOVE 3000 reset\nONDOWN 2000 reset\n";
const ALL: &str = "1000:30001:9:false 2000:30002:9:false 3000:30003:9:false";

fn causes(loads: &[&Arc<Load>]) -> Vec<Option<Cause>> {
    let cause = |load: &&Arc<Load>| load.sentence().map(|sentence| sentence.cause);
    loads.iter().map(cause).collect()
}

fn load_of(table: &Table, port: u16) -> Arc<Load> {
    Arc::clone(&table.service(port).unwrap().pods[0].load)
}

#[test]
fn a_removed_pod_is_judged_as_its_port_was_and_lives_on_when_it_is_back() {
    let now = Instant::now();
    let all = Table::build(conf(KEYS, ALL), None, now);
    let loads = [1000, 2000, 3000].map(|port| load_of(&all, port));
    let loads = loads.each_ref();
    let _open: Vec<_> = loads
        .iter()
        .map(|load| load.admit(Limit::new(None, 100)).unwrap())
        .collect();
    assert_eq!(pass_on_removed(&all, &all, now), Sentenced::default());

    // What the new files say of ports comes too late.
    let none = Table::build(conf("ONREMOVE reset\n", ""), Some(&all), now);
    let two = Sentenced {
        pods: 2,
        connections: 2,
    };
    assert_eq!(pass_on_removed(&all, &none, now), two);
    let removed = Some(Cause::Removed);
    assert_eq!(causes(&loads), [None, removed, removed]);
    // Once: who left long ago is not judged by what is said now.
    let still = Table::build(conf("ONREMOVE reset\n", ""), Some(&none), now);
    assert_eq!(pass_on_removed(&none, &still, now), Sentenced::default());
    assert_eq!(causes(&loads), [None, removed, removed]);

    let back = Table::build(conf(KEYS, "3000:30003:9:false"), Some(&still), now);
    pass_on_removed(&still, &back, now);
    assert_eq!(causes(&loads), [None, removed, None]);
}

#[test]
fn a_pod_that_is_down_is_judged_once_and_lives_on_when_it_is_up() {
    let now = Instant::now();
    let table = Table::build(conf(KEYS, ALL), None, now);
    let loads = [1000, 2000].map(|port| load_of(&table, port));
    let loads = loads.each_ref();
    let report = |port: u16, connected| {
        let upstream = &table.service(port).unwrap().pods[0].upstream;
        upstream.report(connected, now);
    };
    for port in [1000, 2000] {
        report(port, false);
    }
    assert_eq!(pass_on_down(&table, now).pods, 1);
    assert_eq!(pass_on_down(&table, now).pods, 0);
    assert_eq!(causes(&loads), [None, Some(Cause::Down)]);
    report(2000, true);
    assert_eq!(pass_on_down(&table, now).pods, 0);
    assert_eq!(causes(&loads), [None, None]);
}

#[test]
fn cuts_are_spread_over_the_last_quarter() {
    let passed = Instant::now();
    let sentence = |grace| Sentence {
        cause: Cause::Removed,
        passed,
        grace,
    };
    let drain = sentence(Duration::from_secs(8));
    assert_eq!(drain.turn(0), passed + Duration::from_secs(6));
    assert_eq!(drain.turn(1 << 63), passed + Duration::from_secs(7));
    assert!(drain.turn(u64::MAX) <= passed + Duration::from_secs(8));
    assert_eq!(sentence(Duration::ZERO).turn(u64::MAX), passed);
}

#[test]
fn a_connection_that_was_made_to_a_pod_that_is_down_stays() {
    let passed = Instant::now();
    let later = passed + Duration::from_secs(1);
    let is_about = |cause, passed, made| {
        let grace = Duration::ZERO;
        let sentence = Sentence {
            cause,
            passed,
            grace,
        };
        sentence.is_about(made)
    };
    assert!(is_about(Cause::Down, later, passed));
    assert!(!is_about(Cause::Down, passed, later));
    // A pod that was removed gets no new ones but by an old table.
    assert!(is_about(Cause::Removed, passed, later));
}

#[test]
fn the_targets_of_an_app_are_judged_once_and_as_its_first_port() {
    let now = Instant::now();
    let app = |ports: &str, targets: &str| {
        let keys = r#""OnRemove":"reset","OnDown":"reset""#;
        format!(r#"{{"Apps":[{{"Name":"a","Ports":[{ports}],{keys},"Targets":[{targets}]}}]}}"#)
    };
    let (one, other) = (r#""10.0.0.7:1""#, r#""10.0.0.7:2""#);
    let both = format!("{one},{other}");
    let table = Table::build(conf_of_apps(&app("5000,5001", &both)), None, now);
    let pods = table.service(5001).unwrap().pods;
    pods[1].upstream.report(false, now);
    let loads = [0, 1].map(|pod| Arc::clone(&pods[pod].load));
    let one_pod = |sentenced: Sentenced| assert_eq!(sentenced.pods, 1);
    one_pod(pass_on_down(&table, now));
    assert_eq!(pass_on_down(&table, now).pods, 0);
    assert_eq!(causes(&loads.each_ref()), [None, Some(Cause::Down)]);
    let less = Table::build(conf_of_apps(&app("5000,5001", other)), Some(&table), now);
    one_pod(pass_on_removed(&table, &less, now));
    assert_eq!(causes(&loads.each_ref())[0], Some(Cause::Removed));
    // A port that leaves takes no target with it.
    let port = Table::build(conf_of_apps(&app("5001", other)), Some(&less), now);
    assert_eq!(pass_on_removed(&less, &port, now), Sentenced::default());
}
