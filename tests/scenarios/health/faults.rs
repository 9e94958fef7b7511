//! nginx and HAProxy as pods of one port; each fails in its own way while clients come, and comes back.

use super::{SOON, is_up};
use snproxy_tests::{Conn, Ended, Host, Net, Process, eventually};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

const CLIENTS: usize = 16;
/// By each of them, during each fault.
const REQUESTS: usize = 20;
/// A client that hears nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(2);
const REQUEST: &str = "GET / HTTP/1.0\r\n\r\n";
const CHECKED: &str =
    r#"tcp/300ms timeout=500ms send="GET / HTTP/1.0\r\n\r\n" expect="HTTP/1.1 200""#;

/// What five pods of port 1024 are, by host port.
struct Pods<'h> {
    host: &'h Host,
    frozen: Process,
    killed: RefCell<Option<Process>>,
    _others: [Process; 3],
}

impl<'h> Pods<'h> {
    fn start(host: &'h Host) -> Self {
        let pods = Self {
            host,
            frozen: host.nginx(30000, "", "30000"),
            killed: RefCell::new(Some(haproxy(host, 30001))),
            _others: [
                haproxy(host, 30002),
                host.nginx(30003, "", "30003"),
                host.nginx(30004, "", "30004"),
            ],
        };
        host.namespace().nft("add table ip faults");
        host.namespace()
            .nft("add chain ip faults in { type filter hook input priority 0; }");
        pods
    }
}

/// HAProxy that answers every request by itself.
fn haproxy(host: &Host, port: u16) -> Process {
    let body = format!(
        "frontend here\n mode http\n bind *:{port}\n http-request return status 200 content-type text/plain string \"{port}\\n\"\n"
    );
    host.namespace().haproxy(port, &body)
}

/// A way to fail, and back.
struct Fault {
    name: &'static str,
    port: u16,
    /// Connections to it cannot be made: no client must notice.
    at_connect: bool,
    begin: fn(&Pods<'_>),
    end: fn(&Pods<'_>),
}

const FAULTS: [Fault; 4] = [
    Fault {
        name: "stopped (accepts, never answers)",
        port: 30000,
        at_connect: false,
        begin: |pods| pods.frozen.freeze(),
        end: |pods| pods.frozen.thaw(),
    },
    Fault {
        name: "killed",
        port: 30001,
        at_connect: true,
        begin: |pods| drop(pods.killed.take()),
        end: |pods| drop(pods.killed.replace(Some(haproxy(pods.host, 30001)))),
    },
    Fault {
        name: "rejected with RST",
        port: 30002,
        at_connect: true,
        begin: |pods| {
            // Only what is new: who is inside has a connection.
            let rule = "add rule ip faults in tcp dport 30002 tcp flags & (syn | ack) == syn reject with tcp reset";
            pods.host.namespace().nft(rule);
        },
        end: |pods| pods.host.namespace().nft("flush chain ip faults in"),
    },
    Fault {
        name: "blackholed",
        port: 30003,
        at_connect: true,
        begin: |pods| {
            let rule = "add rule ip faults in tcp dport 30003 tcp flags & (syn | ack) == syn drop";
            pods.host.namespace().nft(rule);
        },
        end: |pods| pods.host.namespace().nft("flush chain ip faults in"),
    },
];

/// What clients came to.
#[derive(Debug, Default)]
struct Outcomes {
    /// By what the pod says of itself.
    served: BTreeMap<String, usize>,
    /// Refused, or not connected in time.
    not_connected: usize,
    /// Connected, and no whole answer: reset, or silence.
    unanswered: usize,
    slowest: Duration,
}

impl Outcomes {
    fn failed(&self) -> usize {
        self.not_connected + self.unanswered
    }

    fn all(&self) -> usize {
        self.failed() + self.served.values().sum::<usize>()
    }
}

/// One client's request.
fn ask(to: SocketAddr, outcomes: &Mutex<Outcomes>) {
    let start = Instant::now();
    let conn = Conn::connect(to, PATIENCE);
    let answer = conn.map(|conn| {
        // Of a connection that is reset meanwhile the read tells.
        let _ = (&mut conn.stream()).write_all(REQUEST.as_bytes());
        conn.rest(PATIENCE)
    });
    let mut outcomes = outcomes.lock().expect("outcomes");
    outcomes.slowest = outcomes.slowest.max(start.elapsed());
    match answer {
        Ok((bytes, Ended::Eof)) if !bytes.is_empty() => {
            let text = String::from_utf8_lossy(&bytes);
            let name = text.trim_end().rsplit('\n').next().unwrap_or_default();
            *outcomes.served.entry(name.to_owned()).or_default() += 1;
        }
        Err(_) => outcomes.not_connected += 1,
        Ok(_) => outcomes.unanswered += 1,
    }
}

fn load(net: &Net, to: SocketAddr) -> Outcomes {
    let outcomes = Mutex::default();
    net.client().run(|| {
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| (0..REQUESTS).for_each(|_| ask(to, &outcomes)));
            }
        });
    });
    outcomes.into_inner().expect("outcomes")
}

fn print_row(health: &str, what: &str, when: &str, outcomes: &Outcomes) {
    let (failed, all) = (outcomes.failed(), outcomes.all());
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let share = 100.0 * failed as f64 / all as f64;
    let line = format!(
        "{health:<8} {what:<33} {when:<9} {share:>5.1} % of {all} failed ({} at connect, {} without an answer), slowest {:.0?}\n",
        outcomes.not_connected, outcomes.unanswered, outcomes.slowest
    );
    // Not eprintln!: the harness would keep it back.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// All faults one after the other, each under load from its first moment, and the return.
#[track_caller]
fn suffer(name: &str, health: &str) {
    let net = Net::one();
    let host = net.host("host");
    let pods = Pods::start(host);
    let mappings: Vec<_> = (30000..30005)
        .map(|port| format!("1024:{port}:900:false\n"))
        .collect();
    host.conf("HEALTH", health)
        .conf("CONNECTTIMEOUT", "1s")
        .conf("FIRSTBYTETIMEOUT", "700ms")
        .mappings(&mappings.concat())
        .start();
    let to = host.port(1024);
    let generation = host.count("/generation");
    let served_by_all = |outcomes: &Outcomes| outcomes.served.len() == 5;
    let before = load(&net, to);
    assert!(before.failed() == 0 && served_by_all(&before), "{before:?}");

    for fault in FAULTS {
        (fault.begin)(&pods);
        let at_once = load(&net, to);
        print_row(name, fault.name, "at once", &at_once);
        assert_eq!(at_once.not_connected, 0, "{}: {at_once:?}", fault.name);
        if fault.at_connect {
            assert_eq!(at_once.failed(), 0, "{}: {at_once:?}", fault.name);
        }
        eventually(SOON, "it is known to be down", || !is_up(host, fault.port));
        let after = load(&net, to);
        print_row(name, fault.name, "noticed", &after);
        assert_eq!(after.not_connected, 0, "{}: {after:?}", fault.name);
        // That its kernel accepts brings a stopped one back for a client or two, where no answer is asked for.
        if fault.at_connect || name == "active" {
            assert_eq!(after.failed(), 0, "{}: {after:?}", fault.name);
        }
        assert!(!after.served.contains_key(&fault.port.to_string()));
        // What the proxy could not connect to any pod, it reset.
        let not_carried = host.ends("no_upstream") + host.ends("busy");
        assert_eq!(not_carried, 0, "{}", fault.name);

        (fault.end)(&pods);
        let back = eventually(3 * SOON, "it is up again", || is_up(host, fault.port));
        let after = load(&net, to);
        print_row(name, fault.name, "back", &after);
        let _ = io::stderr()
            .write_all(format!("{name:<8} {:<33} up after {back:.1?}\n", fault.name).as_bytes());
        assert!(after.failed() == 0 && served_by_all(&after), "{after:?}");
    }
    // Nobody touched a file.
    assert_eq!(host.count("/generation"), generation);
}

#[test]
fn dials_alone_keep_clients_from_pods_that_cannot_be_reached() {
    suffer("passive", "passive");
}

#[test]
fn checks_keep_clients_from_pods_that_do_not_answer() {
    suffer("active", CHECKED);
}
