use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn found(addrs: &[&str], ttl: u64) -> Answer {
    Answer::Addresses {
        addrs: addrs.iter().map(|ip| ip.parse().unwrap()).collect(),
        ttl: Duration::from_secs(ttl),
    }
}

fn failed() -> Answer {
    Answer::Failed(io::ErrorKind::TimedOut.into())
}

fn shown(name: &Name) -> String {
    let addrs = name.addrs();
    let addrs: Vec<String> = addrs.iter().map(IpAddr::to_string).collect();
    addrs.join(" ")
}

#[test]
fn parse_looks_up_new_names_only() {
    let addresses = Addresses::default();
    let now = Instant::now();
    let mut known = Name::new(Families::BOTH, now);
    known.take("localhost", IpVersion::V4, found(&["10.0.0.1"], 0), now);
    known.take("localhost", IpVersion::V6, Answer::Empty, now);
    addresses.lock().names.insert("localhost".to_owned(), known);
    let resolve = |name, families| addresses.resolve(&[name], families).remove(0);
    let addr: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(resolve("localhost", Families::BOTH).unwrap(), [addr]);
    let v6 = Families {
        v4: false,
        v6: true,
    };
    let none = resolve("localhost", v6).unwrap_err();
    assert_eq!(none.kind(), io::ErrorKind::NotFound);
    // No name server is asked for names of this host.
    let loopback = resolve("new.localhost", v6).unwrap();
    assert!(loopback.iter().all(IpAddr::is_loopback) && !loopback.is_empty());
    addresses.expire();
    let fresh = resolve("localhost", Families::BOTH).unwrap();
    assert!(fresh.iter().all(IpAddr::is_loopback));
}

#[test]
fn answer_of_one_family_replaces_that_family_alone() {
    let now = Instant::now();
    let mut name = Name::new(Families::BOTH, now);
    let mut second = 0;
    let mut take = |version, answer| {
        second += 1;
        let is_changed = name.take("a.test", version, answer, now + second * SECOND);
        (is_changed, shown(&name))
    };
    let said = |is_changed, addrs: &str| (is_changed, addrs.to_owned());
    assert_eq!(take(IpVersion::V6, failed()), said(false, ""));
    assert_eq!(
        take(IpVersion::V4, found(&["10.0.0.1"], 9)),
        said(true, "10.0.0.1")
    );
    assert_eq!(
        take(IpVersion::V6, found(&["::1"], 9)),
        said(true, "10.0.0.1 ::1")
    );
    assert_eq!(take(IpVersion::V6, failed()), said(false, "10.0.0.1 ::1"));
    assert_eq!(
        take(IpVersion::V4, found(&["10.0.0.2"], 9)),
        said(true, "10.0.0.2 ::1")
    );
    assert_eq!(take(IpVersion::V4, failed()), said(false, "10.0.0.2 ::1"));
    assert_eq!(take(IpVersion::V6, Answer::Empty), said(true, "10.0.0.2"));
}

#[test]
fn name_is_due_by_its_ttl_or_after_a_failure() {
    let now = Instant::now();
    let mut name = Name::new(Families::BOTH, now);
    let mut due = |answer, ttl: Option<u64>, min_age| {
        name.take("a.test", IpVersion::V4, answer, now);
        name.settle(ttl.map(Duration::from_secs), min_age, now);
        (name.due - now).as_secs()
    };
    assert_eq!(due(found(&["10.0.0.1"], 0), Some(0), SECOND), 1);
    assert_eq!(due(found(&["10.0.0.1"], 60), Some(60), SECOND), 60);
    assert_eq!(
        due(found(&["10.0.0.1"], 1 << 31), Some(1 << 31), SECOND),
        3600
    );
    assert_eq!(
        due(found(&["10.0.0.1"], 0), Some(0), 40 * SECOND),
        40,
        "4,000 names"
    );
    for retry in [5, 10, 20, 40, 60, 60] {
        assert_eq!(due(failed(), None, SECOND), retry);
    }
    // The family that answers is followed at its own pace.
    assert_eq!(due(failed(), Some(3), SECOND), 3);
    assert_eq!(due(found(&["10.0.0.1"], 60), Some(60), SECOND), 60);
    assert_eq!(due(failed(), None, SECOND), 5);
}

#[test]
fn changed_file_makes_all_names_due() {
    let addresses = Addresses::default();
    addresses.resolve(&["a.localhost"], Families::BOTH);
    assert!(addresses.take_changed() && !addresses.take_changed());
    let due = |addresses: &Addresses| addresses.lock().names["a.localhost"].due;
    let before = due(&addresses);
    addresses.note_files(Stamp::default());
    assert_eq!(due(&addresses), before);
    addresses.note_files(Stamp::now());
    assert!(due(&addresses) < before);
}
