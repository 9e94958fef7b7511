use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn addr(host: usize) -> SocketAddr {
    SocketAddr::new([10, 0, 0, u8::try_from(host + 1).unwrap()].into(), 32767)
}

fn peers(count: usize, old: Option<&Arc<Peers>>, now: Instant) -> Arc<Peers> {
    let list = (0..count).map(|host| (NAMES[host], addr(host)));
    Peers::build(list, Vec::new(), old, now)
}

#[test]
fn an_answer_is_true_for_its_time_only() {
    let start = Instant::now();
    let peers = peers(3, None, start);
    let answers = peers.answers(61_000, start).unwrap();
    let at = |secs: f64| start + Duration::from_secs_f64(secs);
    assert_eq!(answers.standing(0, start), Standing::Unknown);
    answers.note(0, Answer::Pods(5), at(1.0));
    answers.note(1, Answer::NotHere, at(1.0));
    answers.note(2, Answer::Took, at(1.0));
    assert_eq!(answers.standing(0, at(30.9)), Standing::Serves(5));
    assert_eq!(answers.standing(0, at(31.1)), Standing::Unknown);
    assert_eq!(answers.standing(1, at(5.9)), Standing::NotHere);
    assert_eq!(answers.standing(1, at(6.1)), Standing::Unknown);
    assert_eq!(
        answers.standing(2, at(2.0)),
        Standing::Serves(1),
        "one that does not say counts as one pod"
    );
    assert_eq!(answers.standing(7, at(2.0)), Standing::Unknown);
}

#[test]
fn busy_passes_after_a_second_and_keeps_the_number_of_pods() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let peers = peers(1, None, start);
    let answers = peers.answers(61_000, start).unwrap();
    answers.note(0, Answer::Pods(4), at(1));
    answers.note(0, Answer::Busy, at(2));
    assert_eq!(answers.standing(0, at(900)), Standing::Busy);
    answers.note(0, Answer::Pods(6), at(900));
    assert_eq!(
        answers.standing(0, at(901)),
        Standing::Busy,
        "pods are not places"
    );
    assert_eq!(answers.standing(0, at(1100)), Standing::Serves(6));
    answers.note(0, Answer::Took, at(1200));
    assert_eq!(answers.standing(0, at(1300)), Standing::Serves(6));
    answers.note(0, Answer::Pods(0), at(1400));
    assert_eq!(answers.standing(0, at(1400)), Standing::NotHere);
}

#[test]
fn a_host_is_asked_once_until_its_answer_is_old() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let peers = peers(1, None, start);
    let answers = peers.answers(61_000, start).unwrap();
    assert!(answers.begin_question(0, at(10)));
    assert!(!answers.begin_question(0, at(500)), "it was asked just now");
    assert!(answers.begin_question(0, at(1010)), "it did not answer");
    answers.note(0, Answer::Pods(1), at(1020));
    assert!(!answers.begin_question(0, at(3000)));
    assert!(answers.begin_question(0, at(3020)));
    answers.note(0, Answer::NotHere, at(3030));
    assert!(
        answers.begin_question(0, at(4030)),
        "a no is doubted sooner"
    );

    assert!(answers.begin_look(at(5000)) && !answers.begin_look(at(5050)));
    assert!(answers.begin_look(at(5100)));
}

#[test]
fn other_hosts_forget_all_answers_but_not_who_is_away() {
    let now = Instant::now();
    let before = peers(2, None, now);
    before
        .answers(61_000, now)
        .unwrap()
        .note(0, Answer::Took, now);
    before.list()[0].upstream.report(false, now);
    let same = peers(2, Some(&before), now);
    assert!(Arc::ptr_eq(&before, &same));
    let more = peers(3, Some(&before), now);
    let answers = more.answers(61_000, now).unwrap();
    assert_eq!(answers.standing(0, now), Standing::Unknown);
    assert!(!more.list()[0].is_up() && more.list()[1].is_up());
    assert!(peers(0, Some(&more), now).answers(61_000, now).is_none());
}

#[test]
fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
    let start = Instant::now();
    let names: Vec<_> = (0..100).map(|host| format!("h{host}")).collect();
    let list = names.iter().zip(0..).map(|(name, host)| {
        let ip = [10, 0, 1, host].into();
        (name.as_str(), SocketAddr::new(ip, 32767))
    });
    let peers = Peers::build(list, Vec::new(), None, start);
    for port in 1024..=65_535 {
        let now = start + Duration::from_millis(u64::from(port));
        peers.answers(port, now).unwrap().note(0, Answer::Took, now);
        // A port that is in use all the time is never the oldest.
        peers.answers(1024, now);
    }
    let ports: Vec<_> = peers.remembered().map(|(port, _)| port).collect();
    assert!(ports.len() * 100 <= MAX_CELLS, "{} ports", ports.len());
    assert!(ports.len() * 100 >= MAX_CELLS / 2, "{} ports", ports.len());
    assert_eq!(ports[0], 1024);
    assert_eq!(ports.last(), Some(&65_535));
    assert_eq!(peers.count.load(Relaxed), ports.len());
}

#[test]
fn shares_count_what_lives() {
    let now = Instant::now();
    let peers = peers(2, None, now);
    let answers = peers.answers(61_000, now).unwrap();
    let shares = [None, Some(1), Some(1)].map(|peer| answers.share(peer));
    assert_eq!(
        [None, Some(0), Some(1)].map(|peer| answers.live(peer)),
        [1, 0, 2]
    );
    drop(shares);
    assert_eq!([None, Some(1)].map(|peer| answers.live(peer)), [0, 0]);
}

#[test]
fn a_proxy_that_counts_no_pods_is_asked_again_after_a_minute() {
    let now = Instant::now();
    let peers = peers(1, None, now);
    let peer = &peers.list()[0];
    assert!(!peers.is_plain(peer, now));
    peers.note_plain(peer, now);
    assert!(peers.is_plain(peer, now + Duration::from_secs(59)));
    assert!(!peers.is_plain(peer, now + Duration::from_secs(61)));
}

#[test]
fn a_host_that_takes_connections_all_the_time_is_asked_for_its_pods_all_the_same() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let peers = peers(1, None, start);
    let answers = peers.answers(61_000, start).unwrap();
    let mut asked = Vec::new();
    for now in (10..6000).step_by(10) {
        if answers.begin_question(0, at(now)) {
            asked.push(now);
        }
        answers.note(0, Answer::Took, at(now));
    }
    assert_eq!(asked, [10, 2010, 4010]);
}
