use super::*;
use crate::addr::ClusterPort;
use crate::conf::{Policy, SendProxy};
use crate::route::balance::Scheme;
use crate::route::directory::Directory;
use crate::route::directory::view::{Freshness, View};
use crate::route::load::Load;
use crate::route::peers::Answer;
use crate::route::service::{Socket, Upstream};
use crate::wire::directory::{Key, Run, Serves, block_of, encode_block, encode_name};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Pods here and other hosts, as one connection sees them.
struct Cluster {
    pods: Vec<Pod>,
    turn: AtomicU32,
    peers: Arc<Peers>,
    answers: Arc<Answers>,
    scheme: Scheme,
    now: Instant,
    conf: PortConf,
}

impl Cluster {
    /// `pods` pods here with room for `max_conn` each, and hosts of which nothing is known.
    fn new(pods: u16, max_conn: u32, hosts: u16) -> Self {
        let addr = |port| ([127, 0, 0, 1], port).into();
        let now = Instant::now();
        let peers = (0..hosts).map(|host| ("host", addr(40_000 + host)));
        let peers = Peers::build(peers, Vec::new(), None, now);
        Self {
            pods: (0..pods)
                .map(|pod| Pod {
                    upstream: Arc::new(checked(addr(30_000 + pod))),
                    load: Arc::new(Load::default()),
                    weight: 1,
                    max_conn,
                    send_proxy: SendProxy::No,
                })
                .collect(),
            scheme: Scheme::build(Policy::P2c, false, &vec![(0, 1); pods.into()]),
            turn: AtomicU32::new(0),
            answers: peers.answers(61_000, now).unwrap(),
            peers,
            now,
            conf: PortConf::default(),
        }
    }

    fn search(&self) -> Search<'_> {
        let service = Service {
            is_app: false,
            port: ClusterPort::new(61_000).unwrap(),
            conf: &self.conf,
            scheme: &self.scheme,
            pods: &self.pods,
            turn: &self.turn,
        };
        Search::new(
            (!self.pods.is_empty()).then_some(service),
            &self.peers,
            Arc::clone(&self.answers),
            &self.conf,
            0,
            Asker::default(),
        )
    }

    fn note(&self, host: usize, answer: Answer) -> &Self {
        self.answers.note(host, answer, self.now);
        self
    }

    fn down(&self, host: usize) -> &Self {
        self.peers.list()[host].upstream.report(false, self.now);
        self
    }

    /// The steps of one connection of which every candidate fails.
    fn all_steps(&self, random: u64) -> Vec<String> {
        let mut search = self.search();
        let mut steps = Vec::new();
        loop {
            let step = match search.next(true, random, self.now) {
                Step::Pod(pod, ..) => format!("pod {}", pod.upstream.addr.port()),
                Step::Peer(host, _) => format!("host {host}"),
                Step::Await => {
                    search.stop_waiting();
                    "wait".to_owned()
                }
                Step::LastPods(_) => "pods that are down".to_owned(),
                Step::Hold(_) => {
                    steps.push("hold".to_owned());
                    return steps;
                }
                Step::Over(over) => {
                    steps.push(format!("{over:?}"));
                    return steps;
                }
            };
            steps.push(step);
        }
    }
}

/// An upstream under `HEALTH tcp/5s`: under `passive` a missing socket tells nothing.
fn checked(addr: std::net::SocketAddr) -> Upstream {
    let check = crate::conf::Check {
        interval: Some(Duration::from_secs(5)),
        ..crate::route::health::passive()
    };
    Upstream::under(addr, Arc::new(check), None, None, None)
}

#[test]
fn a_port_that_all_hosts_deny_is_nobodys_without_a_call() {
    let cluster = Cluster::new(0, 0, 2);
    cluster.note(0, Answer::NotHere).note(1, Answer::Pods(0));
    assert_eq!(cluster.all_steps(7), ["NotMapped"]);
}

#[test]
fn hosts_of_which_nothing_is_known_are_waited_for_and_then_tried() {
    let cluster = Cluster::new(0, 0, 2);
    let steps = cluster.all_steps(7);
    assert_eq!(steps[0], "wait");
    assert!(steps[1..3].contains(&"host 0".to_owned()));
    assert!(steps[1..3].contains(&"host 1".to_owned()));
    assert_eq!(steps[3..], ["NotMapped"]);

    // Whoever serves it for sure is not kept waiting by the others.
    cluster.note(1, Answer::Pods(3));
    assert_eq!(cluster.all_steps(7)[..2], ["host 1", "wait"]);
    // One that counts no pods can only be tried.
    let plain = Cluster::new(0, 0, 1);
    plain.peers.note_plain(&plain.peers.list()[0], plain.now);
    assert_eq!(plain.all_steps(7), ["host 0", "NotMapped"]);
}

#[test]
fn hosts_that_are_away_are_left_out_unless_they_may_be_the_only_ones() {
    let cluster = Cluster::new(0, 0, 3);
    cluster.note(0, Answer::Pods(1)).note(1, Answer::NotHere);
    // Hosts 0 and 2 failed just now: they may be slow and no more.
    cluster.down(0).down(2).note(2, Answer::NotHere);
    assert_eq!(cluster.all_steps(7), ["host 0", "host 2", "NoUpstream"]);
    let later = Cluster {
        now: cluster.now + Duration::from_mins(1),
        ..cluster
    };
    // Whatever is remembered of them; but not host 1, which is up and says no.
    later.note(1, Answer::NotHere);
    assert_eq!(later.all_steps(7), ["host 0", "host 2", "NoUpstream"]);
}

#[test]
fn connections_that_have_no_other_candidate_share_dials_of_one_that_is_down() {
    let cluster = Cluster::new(0, 0, 1);
    cluster.down(0);
    assert_eq!(cluster.all_steps(7), ["host 0", "NoUpstream"]);
    assert_eq!(cluster.all_steps(7), ["hold"]);
    let mut search = cluster.search();
    let Step::Hold(until) = search.next(true, 7, cluster.now) else {
        panic!("another connection dials it now");
    };
    assert!(matches!(search.next(true, 7, until), Step::Peer(0, _)));
    // One that came before this dial began, which fails.
    let mut other = cluster.search();
    assert!(matches!(other.next(true, 7, cluster.now), Step::Hold(_)));
    cluster.peers.list()[0].upstream.note_failed_dial(until);
    assert!(matches!(
        other.next(true, 7, until),
        Step::Over(Over::NoUpstream)
    ));
    // Nor is it held once the host is up.
    let mut third = cluster.search();
    let later = until + Duration::from_millis(1);
    assert!(matches!(third.next(true, 7, later), Step::Hold(_)));
    cluster.peers.list()[0].upstream.report(true, later);
    cluster.note(0, Answer::Took);
    assert!(matches!(third.next(true, 7, later), Step::Peer(0, _)));
}

#[test]
fn pods_that_are_down_come_before_hosts_that_are_down() {
    let cluster = Cluster::new(2, 9, 1);
    cluster.down(0);
    for pod in &cluster.pods {
        pod.upstream.report(false, cluster.now);
    }
    let steps = cluster.all_steps(7);
    assert_eq!(steps, ["pods that are down", "host 0", "NoUpstream"]);
    let socket = Socket::Missing;
    for pod in &cluster.pods {
        pod.upstream.set_refused(true);
        pod.upstream.set_socket(socket);
    }
    assert_eq!(
        cluster.all_steps(7),
        ["hold"],
        "no pod of this host listens"
    );
}

#[test]
fn a_host_that_was_slow_to_answer_is_left_out_unless_nobody_else_is_left() {
    let cluster = Cluster::new(0, 0, 2);
    cluster.note(0, Answer::Pods(1)).note(1, Answer::Pods(1));
    cluster.note(0, Answer::Silent);
    assert_eq!(cluster.all_steps(7), ["host 1", "host 0", "NotMapped"]);
    let answers = &cluster.answers;
    answers.note(0, Answer::Pods(1), cluster.now);
    assert_eq!(
        answers.standing(0, cluster.now),
        Standing::Silent,
        "that it counts its pods says nothing of them"
    );
}

#[test]
fn an_old_no_is_asked_for_again_before_it_is_believed() {
    let cluster = Cluster::new(0, 0, 1);
    cluster.note(0, Answer::NotHere);
    assert_eq!(cluster.all_steps(7), ["NotMapped"]);
    let later = Cluster {
        now: cluster.now + Duration::from_millis(1500),
        ..cluster
    };
    assert_eq!(later.all_steps(7), ["wait", "NotMapped"]);
}

#[test]
fn of_many_hosts_that_failed_just_now_few_are_tried() {
    let cluster = Cluster::new(0, 0, 90);
    for host in 0..90 {
        cluster.down(host);
    }
    cluster.note(80, Answer::Pods(1));
    let steps = cluster.all_steps(7);
    assert_eq!(steps, ["host 80", "host 0", "host 1", "NoUpstream"]);
    // Others dial other ones.
    let steps = cluster.all_steps(50 << 40);
    assert_eq!(steps, ["host 50", "host 51", "host 52", "NoUpstream"]);
}

#[test]
fn busy_everywhere_is_busy() {
    let cluster = Cluster::new(1, 0, 2);
    cluster.note(0, Answer::Busy).note(1, Answer::NotHere);
    assert_eq!(cluster.all_steps(7), ["Busy"]);
    let mut search = cluster.search();
    search.note(Over::NoUpstream);
    assert!(matches!(
        search.next(true, 7, cluster.now),
        Step::Over(Over::Busy)
    ));
}

#[test]
fn prefer_goes_elsewhere_only_without_a_place_here() {
    let mut cluster = Cluster::new(2, 1, 1);
    cluster.conf.locality = Locality::Prefer;
    cluster.note(0, Answer::Pods(100));
    let mut held = Vec::new();
    let mut steps = Vec::new();
    for random in 0..4 {
        match cluster.search().next(true, random << 60, cluster.now) {
            Step::Pod(pod, permit, _) => {
                held.push(permit);
                steps.push(pod.upstream.addr.port());
            }
            Step::Peer(host, _) => steps.push(u16::try_from(host).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    steps[..2].sort_unstable();
    assert_eq!(steps, [30_000, 30_001, 0, 0]);
}

#[test]
fn a_dial_under_way_leaves_only_other_hosts() {
    let cluster = Cluster::new(2, 9, 1);
    cluster.note(0, Answer::Pods(1));
    let mut search = cluster.search();
    assert!(matches!(
        search.next(false, 7, cluster.now),
        Step::Peer(0, _)
    ));
    assert!(matches!(search.next(false, 7, cluster.now), Step::Over(_)));
    assert!(matches!(search.next(true, 7, cluster.now), Step::Pod(..)));
}

/// Where 12,000 connections go that end at once, or that all stay: by group, this host first.
fn spread(cluster: &Cluster, stay: bool) -> Vec<u32> {
    let mut random = 88_172_645_463_325_252_u64;
    let mut shares = Vec::new();
    let mut counts = BTreeMap::new();
    for _ in 0..12_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (group, held) = match cluster.search().next(true, random, cluster.now) {
            Step::Pod(_, permit, share) => (0, (Some(permit), share)),
            Step::Peer(host, share) => (host + 1, (None, share)),
            other => panic!("{other:?}"),
        };
        *counts.entry(group).or_insert(0) += 1;
        if stay {
            shares.push(held);
        }
    }
    counts.into_values().collect()
}

#[test]
fn connections_are_shared_out_by_the_pods_of_each_host() {
    for policy in [Policy::P2c, Policy::Rr, Policy::Random] {
        for stay in [false, true] {
            let mut cluster = Cluster::new(1, u32::MAX, 2);
            cluster.conf.balance.policy = policy;
            cluster.note(0, Answer::Pods(3)).note(1, Answer::Took);
            let counts = spread(&cluster, stay);
            for (count, fair) in counts.iter().zip([2400, 7200, 2400]) {
                let off = count.abs_diff(fair) * 100 / fair;
                assert!(off <= 5, "{policy:?}, stay {stay}: {counts:?}");
            }
        }
    }
    let mut cluster = Cluster::new(1, u32::MAX, 2);
    cluster.conf.balance.policy = Policy::Ordered;
    cluster.note(0, Answer::Pods(3)).note(1, Answer::Took);
    assert_eq!(spread(&cluster, false), [12_000]);
}

#[test]
fn questions_go_to_hosts_that_are_there_and_count_their_pods() {
    let cluster = Cluster::new(0, 0, 4);
    assert!(cluster.answers.begin_question(3, cluster.now));
    cluster.down(1).note(3, Answer::Pods(1));
    cluster
        .peers
        .note_plain(&cluster.peers.list()[2], cluster.now);
    let later = cluster.now + Duration::from_millis(1);
    assert_eq!(cluster.search().questions(later), [0]);
    assert!(
        cluster.search().questions(later).is_empty(),
        "asked already"
    );
}

impl Cluster {
    /// Hosts publish that they serve the port with so many pods, all full or not; or that they do not.
    fn publish(&self, hosts: &[(usize, Option<(u16, bool)>)], freshness: Freshness) -> &Self {
        let mut directory = Directory::default();
        for (host, serves) in hosts {
            let host = self.peers.list()[*host].addr();
            let runs: Vec<Run> = serves
                .iter()
                .map(|(pods, is_full)| Run {
                    first: 61_000,
                    last: 61_000,
                    serves: Serves {
                        pods: *pods,
                        is_full: *is_full,
                    },
                })
                .collect();
            let block = Some(block_of(61_000));
            let _ = directory.put(Key { host, block }, encode_block(&runs).as_bytes());
            let block = None;
            let _ = directory.put(Key { host, block }, encode_name("x").as_bytes());
        }
        let number = |addr| self.peers.number(addr);
        let count = self.peers.list().len();
        // It is another directory.
        self.peers.set_view(None);
        let view = View::build(&directory, count, number, freshness, None);
        self.peers.set_view(Some(Arc::new(view)));
        // Whoever asks for the answers has them tell what is known by now.
        self.peers.answers(61_000, self.now).unwrap();
        self
    }
}

#[test]
fn hosts_that_publish_are_neither_asked_nor_waited_for() {
    let cluster = Cluster::new(0, 0, 3);
    let serves = Some((2, false));
    cluster.publish(&[(0, None), (1, serves), (2, None)], Freshness::Current);
    assert_eq!(cluster.all_steps(7), ["host 1", "NotMapped"]);
    assert!(cluster.search().questions(cluster.now).is_empty());
    // One that does not publish is asked, beside those that do.
    let mixed = Cluster::new(0, 0, 3);
    mixed.publish(&[(0, None), (1, serves)], Freshness::Current);
    assert_eq!(mixed.search().questions(mixed.now), [2]);
    assert_eq!(
        mixed.all_steps(7),
        ["host 1", "wait", "host 2", "NotMapped"]
    );
}

#[test]
fn a_host_that_says_it_is_full_is_not_called() {
    let cluster = Cluster::new(0, 0, 2);
    cluster.publish(&[(0, Some((3, true))), (1, None)], Freshness::Current);
    assert_eq!(cluster.all_steps(7), ["Busy"]);
    cluster.publish(
        &[(0, Some((3, true))), (1, Some((1, false)))],
        Freshness::Current,
    );
    assert_eq!(cluster.all_steps(7), ["host 1", "Busy"]);
}

#[test]
fn what_a_connection_met_with_counts_for_a_moment_against_what_was_published() {
    let cluster = Cluster::new(0, 0, 1);
    cluster.publish(&[(0, Some((3, false)))], Freshness::Current);
    for (met, steps) in [
        (Answer::Busy, &["Busy"][..]),
        (Answer::NotHere, &["NotMapped"]),
        (Answer::Silent, &["host 0", "NotMapped"]),
    ] {
        cluster.note(0, met);
        assert_eq!(cluster.all_steps(7), steps, "{met:?}");
    }
    let later = Cluster {
        now: cluster.now + Duration::from_millis(1100),
        ..cluster
    };
    assert_eq!(later.all_steps(7), ["host 0", "NotMapped"]);
    // Nor does an old yes count against a published no.
    later.note(0, Answer::Pods(3));
    later.publish(&[(0, None)], Freshness::Current);
    assert_eq!(later.all_steps(7), ["NotMapped"]);
}

#[test]
fn a_stale_directory_says_who_served_the_port_and_everybody_is_asked() {
    let cluster = Cluster::new(0, 0, 2);
    cluster.publish(&[(0, Some((3, false))), (1, None)], Freshness::Stale);
    assert_eq!(cluster.search().questions(cluster.now), [0, 1]);
    let steps = cluster.all_steps(7);
    assert_eq!(steps, ["host 0", "wait", "host 1", "NotMapped"]);
    // What they answer counts.
    cluster.note(0, Answer::NotHere).note(1, Answer::Pods(2));
    assert_eq!(cluster.all_steps(7), ["host 1", "NotMapped"]);
    // Without a directory nothing is left of it.
    cluster.peers.set_view(None);
    let fresh = Cluster::new(0, 0, 1);
    fresh.publish(&[(0, None)], Freshness::Current);
    fresh.peers.set_view(None);
    assert_eq!(fresh.all_steps(7)[0], "wait");
}

#[test]
fn a_host_that_publishes_and_is_away_is_tried_where_it_is_the_only_one() {
    let cluster = Cluster::new(0, 0, 2);
    cluster.publish(&[(0, Some((1, false))), (1, None)], Freshness::Current);
    cluster.down(0).down(1);
    // Host 1 failed just now as well, but it is known not to serve the port.
    assert_eq!(cluster.all_steps(7), ["host 0", "NotMapped"]);
}

#[test]
fn pods_of_other_hosts_weigh_as_many_as_they_publish() {
    let cluster = Cluster::new(0, 0, 2);
    cluster.publish(
        &[(0, Some((9, false))), (1, Some((1, false)))],
        Freshness::Current,
    );
    let first =
        |random: u64| cluster.all_steps(random.wrapping_mul(0x9E37_79B9_7F4A_7C15))[0].clone();
    let many = (0..2000)
        .filter(|random| first(*random) == "host 0")
        .count();
    assert!(
        (1700..=1980).contains(&many),
        "{many} of 2,000 for nine of ten pods"
    );
}
