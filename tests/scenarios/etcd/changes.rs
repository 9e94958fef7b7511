//! A thousand changes in a row: the table follows, and nobody who stays is hurt.

use super::{Etcd, SOON, SRV, proxy, service};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use snproxy_tests::{Conn, Ending, Figure, Host, Net, Pod, eventually, print_figure};
use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const CHANGES: usize = 1000;
/// Between two changes: four thousand a minute.
const PACE: Duration = Duration::from_millis(15);
/// Between two looks at the table.
const LOOK: Duration = Duration::from_millis(2);
/// Nodes that are there at once, besides those that stay.
const PASSING: usize = 10;
const LIMIT: Duration = Duration::from_secs(1);

/// The nodes that stay are first in order: connections that are to be held go to one of them.
const FILE: &str = r#"{"Apps":[
    {"Name":"all","Ports":[5001],"Srv":"/srv/echo","BALANCE":"rr"},
    {"Name":"staying","Ports":[5002],"Srv":"/srv/echo","BALANCE":"ordered","ONREMOVE":"reset"}]}"#;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    Put,
    Delete,
}

/// A node that comes and goes; all of them are one pod.
fn passing(number: usize) -> String {
    format!("10.78.{}.{}:6001", number / 200, number % 200 + 1)
}

/// Nodes come and go in turn.
fn changes() -> Vec<(Change, String)> {
    let passing = |at: usize| match at.checked_sub(PASSING) {
        None => (Change::Put, passing(at)),
        Some(past) if past % 2 == 0 => (Change::Delete, passing(past / 2)),
        Some(past) => (Change::Put, passing(PASSING + past / 2)),
    };
    (0..CHANGES).map(passing).collect()
}

/// Which nodes there are after each change.
fn states(staying: &[String], changes: &[(Change, String)]) -> HashMap<BTreeSet<String>, usize> {
    let mut nodes: BTreeSet<String> = staying.iter().cloned().collect();
    let mut states = HashMap::from([(nodes.clone(), 0)]);
    for (at, (change, node)) in changes.iter().enumerate() {
        match change {
            Change::Put => nodes.insert(node.clone()),
            Change::Delete => nodes.remove(node),
        };
        let before = states.insert(nodes.clone(), at + 1);
        assert_eq!(before, None, "each state is told from the others");
    }
    states
}

/// One connection to etcd's gateway, for many changes.
struct Gateway {
    conn: Conn,
    answers: BufReader<TcpStream>,
}

impl Gateway {
    fn new(etcd: &Etcd<'_>) -> Self {
        let conn = etcd.connect(0);
        let answers = conn.stream().try_clone().expect("a second handle");
        Self {
            answers: BufReader::new(answers),
            conn,
        }
    }

    fn make(&mut self, change: Change, node: &str) {
        let (path, field) = match change {
            Change::Put => ("/v3/kv/put", json!({ "value": "" })),
            Change::Delete => ("/v3/kv/deleterange", json!({})),
        };
        let mut question = field;
        question["key"] = STANDARD.encode(format!("{SRV}/{node}")).into();
        let question = question.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\n\r\n{question}",
            question.len()
        );
        self.conn.send(request);
        let (head, _) = answer(&mut self.answers);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
}

/// Head and body of an HTTP answer whose length is told.
fn answer(stream: &mut impl BufRead) -> (String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let count = stream.read_line(&mut head).expect("an answer");
        assert!(count > 0, "the answer is cut off: {head}");
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().expect("a length"))
    });
    let mut body = vec![0; length.unwrap_or_else(|| panic!("no length: {head}"))];
    stream.read_exact(&mut body).expect("the body");
    (head, body)
}

/// The nodes in the proxy's table. The command would take longer than what is measured.
fn table(host: &Host) -> BTreeSet<String> {
    let mut stream = UnixStream::connect(host.folder().join("admin.sock")).expect("control socket");
    stream
        .write_all(b"GET /routes HTTP/1.1\r\nHost: snproxy\r\n\r\n")
        .expect("ask for the routes");
    let (_, body) = answer(&mut BufReader::new(stream));
    let routes: Value = serde_json::from_slice(&body).expect("JSON");
    let targets = routes["apps"][0]["targets"].as_array().expect("targets");
    let name = |target: &Value| target["target"].as_str().expect("a target").to_owned();
    targets.iter().map(name).collect()
}

#[test]
fn a_thousand_changes_are_followed_and_no_connection_to_a_node_that_stays_fails() {
    let net = Net::hosts(["proxy", "one", "two", "passing"]);
    let [host, one, two, passing] = ["proxy", "one", "two", "passing"].map(|name| net.host(name));
    passing
        .namespace()
        .ip("route add local 10.78.0.0/16 dev lo");
    let way = format!("route add 10.78.0.0/16 via {}", passing.v4());
    host.namespace().ip(&way);
    let pods = [one, two, passing].map(|host| host.pod(6001, Pod::answering(host.name())));
    let etcd = Etcd::start(&net, &["one", "two", "passing"]);
    let staying = [one, two].map(|host| host.port(6001).to_string());
    for node in &staying {
        etcd.put(node);
    }
    proxy(host, &etcd.urls(), FILE);
    let held: Vec<Conn> = (0..20).map(|_| host.open(5002)).collect();
    for held in &held {
        assert_eq!(held.greeting(), "one");
    }

    let changes = changes();
    let states = states(&staying, &changes);
    let made = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let (times, seen) = thread::scope(|scope| {
        let _ending = Ending(&over);
        let look = scope.spawn(|| {
            let mut seen = Vec::new();
            let mut last = None;
            while last != Some(CHANGES) && !over.load(Relaxed) {
                let table = table(host);
                let at = Instant::now();
                let state = states.get(&table);
                let state = *state.unwrap_or_else(|| panic!("etcd never had {table:?}"));
                if last != Some(state) {
                    seen.push((at, state));
                    last = Some(state);
                }
                thread::sleep(LOOK);
            }
            seen
        });
        let clients = scope.spawn(|| {
            let to = host.port(5001);
            net.client().run(|| {
                while !over.load(Relaxed) {
                    // Panics where there is none.
                    Conn::connect(to, SOON).expect("a connection").greeting();
                    made.fetch_add(1, Relaxed);
                    thread::sleep(Duration::from_millis(4));
                }
            });
        });
        let mut gateway = Gateway::new(&etcd);
        let began = Instant::now();
        let mut times = Vec::with_capacity(CHANGES);
        for ((change, node), at) in changes.iter().zip(0..) {
            thread::sleep((PACE * at).saturating_sub(began.elapsed()));
            times.push(Instant::now());
            gateway.make(*change, node);
        }
        print_figure(
            "etcd: time for 1,000 changes",
            Figure::Time(began.elapsed()),
            Figure::Time(Duration::from_mins(1)),
        );
        let seen = look.join().expect("looks at the table");
        over.store(true, Relaxed);
        clients.join().expect("connections that all succeed");
        (times, seen)
    });

    let mut lags: Vec<Duration> = times
        .iter()
        .enumerate()
        .map(|(at, made)| {
            let there = seen.iter().find(|(_, state)| *state > at);
            there.expect("all were seen").0 - *made
        })
        .collect();
    lags.sort_unstable();
    for (name, at) in [
        ("p50", CHANGES / 2),
        ("p99", CHANGES * 99 / 100),
        ("max", CHANGES - 1),
    ] {
        print_figure(
            &format!("etcd: lag from a put to the table, {name}"),
            Figure::Time(lags[at]),
            Figure::Time(LIMIT),
        );
    }
    assert!(
        held.iter()
            .all(|held| held.stays_quiet(Duration::from_millis(20)))
    );
    let made = made.load(Relaxed);
    assert!(made > 100, "{made} connections");
    // Some of them went to nodes that are gone by now.
    assert!(pods[2].accepted() > 0);
    eventually(SOON, "the status tells the same", || {
        service(host)["nodes"] == etcd.nodes().len()
    });
}
