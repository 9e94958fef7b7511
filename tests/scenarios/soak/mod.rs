//! Everything at once, for a while, at a bounded rate: nothing is lost, and nothing grows.
//!
//! Two hosts; clients open both, for pods of that host, of the other one, and of both. `cargo xtask soak` runs it for
//! longer than the minute that it is a scenario.

mod job;
mod ledger;
mod operator;
mod report;

use job::{Job, Kind};
use ledger::{Done, Ledger, Tallies};
use operator::Passing;
use report::{Sample, Watched};
use snproxy_tests::{Conn, Guest, Host, Net, Pod, eventually};
use std::{
    env, fs,
    io::{Write, stderr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, sleep},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);
/// Served by a pod of each host.
const BOTH: u16 = 1024;
/// Served by the pod of one host.
const OWN: [u16; 2] = [1025, 1026];
/// Served by a pod of each host, one of which is away in order now and then.
const FLEETING: u16 = 1027;
/// The same, but its pods go without a word.
const ABRUPT: u16 = 1028;
/// From here on ports come and go.
const CHANGING: u16 = 2000;
/// Connections that live as long as the soak.
const LASTING: usize = 24;

/// Who opens connections of which kinds, and how long after each other.
const WORKERS: &[(&[Kind], Duration)] = &[
    (&[Kind::Churn], Duration::from_millis(25)),
    (&[Kind::Churn], Duration::from_millis(25)),
    (&[Kind::Churn], Duration::from_millis(25)),
    (&[Kind::Rounds], Duration::from_millis(100)),
    (&[Kind::Rounds], Duration::from_millis(100)),
    (&[Kind::Stream], Duration::from_secs(1)),
    (&[Kind::Stream], Duration::from_secs(1)),
    (&[Kind::HalfClose], Duration::from_millis(500)),
    (
        &[Kind::SlowClient, Kind::SlowPod],
        Duration::from_millis(500),
    ),
    (
        &[Kind::SlowPod, Kind::SlowClient],
        Duration::from_millis(500),
    ),
    (
        &[Kind::ClientResets, Kind::PodResets],
        Duration::from_millis(100),
    ),
    (
        &[Kind::ClientTears, Kind::PodTears],
        Duration::from_millis(100),
    ),
];

/// What `cargo xtask soak` asks for.
struct Settings {
    length: Duration,
    seed: u64,
    /// Where a report is wanted.
    report: Option<String>,
}

impl Settings {
    /// From the variables `SNPROXY_SOAK_SECONDS`, `SNPROXY_SOAK_SEED` and `SNPROXY_SOAK_REPORT`.
    fn read() -> Self {
        let number = |name: &str| {
            let value = env::var(name).ok()?;
            let number = value.parse().ok();
            Some(number.unwrap_or_else(|| panic!("{name} is no number: {value}")))
        };
        Self {
            length: Duration::from_secs(number("SNPROXY_SOAK_SECONDS").unwrap_or(60)),
            seed: number("SNPROXY_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32)),
            report: env::var("SNPROXY_SOAK_REPORT").ok(),
        }
    }
}

/// What all threads of a soak share.
struct Soak<'n> {
    hosts: &'n [Host],
    seed: u64,
    end: Instant,
    ledger: Arc<Ledger>,
    tallies: Tallies,
    /// Jobs so far.
    jobs: AtomicU64,
    reloads: AtomicU64,
    /// Stops without a word, and comings back from them.
    stops: AtomicU64,
}

#[test]
fn nothing_is_lost_and_nothing_grows_while_everything_happens() {
    let settings = Settings::read();
    let length = settings.length;
    say(&format!("{} s, seed {}", length.as_secs(), settings.seed));
    let net = Net::hosts(["a", "b"]);
    let hosts = net.all_hosts();
    let ledger = Arc::new(Ledger::default());
    let passing: Vec<_> = hosts
        .iter()
        .zip(0..)
        .map(|(host, at)| pods(host, at, &ledger))
        .collect();
    let soak = Soak {
        hosts,
        seed: settings.seed,
        end: Instant::now() + length,
        ledger,
        tallies: Tallies::default(),
        jobs: AtomicU64::new(0),
        reloads: AtomicU64::new(0),
        stops: AtomicU64::new(0),
    };
    for (at, host) in hosts.iter().enumerate() {
        host.mappings(&operator::mappings(at, true, None));
        host.conf("LOGLEVEL", "debug").start();
    }
    let mut watched = Watched::new(hosts);

    net.client().run(|| {
        thread::scope(|scope| {
            for (number, (kinds, pace)) in WORKERS.iter().enumerate() {
                let soak = &soak;
                scope.spawn(move || soak.work(number as u64, kinds, *pace));
            }
            scope.spawn(|| soak.last());
            scope.spawn(|| soak.operate(&passing));
            while soak.goes_on() {
                sleep(report::interval(length));
                let sample = Sample::take(length.saturating_sub(soak.left()), hosts, &soak);
                say(&sample.to_string());
                watched.add(sample);
            }
        });
    });

    for host in hosts {
        // Beside those of clients there are the other proxy's own.
        eventually(SOON, "all are gone", || {
            host.status()["pods"]
                .as_array()
                .expect("pods")
                .iter()
                .all(|pod| pod["active"] == 0)
        });
    }
    watched.end(hosts);
    let faults = soak.ledger.close(hosts);
    let report = report::written(&settings, &soak, &watched, &faults);
    say(&report);
    if let Some(path) = &settings.report {
        fs::write(path, &report).expect("the file that SNPROXY_SOAK_REPORT names");
    }
    assert!(faults.is_empty(), "seed {}: {faults:#?}", settings.seed);
    assert!(soak.ledger.connections() > 0);
    watched.check();
}

/// Starts the pods of a host; what they see goes to the books.
fn pods(host: &Host, at: usize, ledger: &Arc<Ledger>) -> Passing {
    let pod = || {
        let ledger = Arc::clone(ledger);
        Pod::serving(move |guest| serve(guest, at, &ledger))
    };
    host.pod(30000, pod());
    Passing {
        fleeting: host.pod(30001, pod()),
        abrupt: host.pod(30002, pod()),
    }
}

fn serve(guest: &Guest, at: usize, ledger: &Ledger) {
    let stream = guest.stream();
    let _ = stream.set_read_timeout(Some(SOON));
    let _ = stream.set_write_timeout(Some(SOON));
    if let Some(job) = Job::read(guest) {
        ledger.served(&job, at, job.serve(guest));
    }
}

impl Soak<'_> {
    fn goes_on(&self) -> bool {
        !self.left().is_zero() && !self.ledger.has_failed()
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// A seed that no other job has.
    fn next_seed(&self) -> u64 {
        self.seed + (1 << 32) * (1 + self.jobs.fetch_add(1, Relaxed))
    }

    /// Opens connections of these kinds in turn, to random ports of random hosts.
    fn work(&self, number: u64, kinds: &[Kind], pace: Duration) {
        let mut random = fastrand::Rng::with_seed(self.seed ^ (number + 1));
        for kind in kinds.iter().cycle() {
            if !self.goes_on() {
                break;
            }
            let start = Instant::now();
            let entry = random.usize(0..self.hosts.len());
            let passing = matches!(kind, Kind::Churn | Kind::Rounds);
            let ports = [OWN[0], OWN[1], BOTH, FLEETING, ABRUPT];
            let port = ports[random.usize(0..if passing { 5 } else { 3 })];
            self.carry(
                Job::drawn(*kind, self.next_seed(), &mut random),
                entry,
                port,
            );
            // Half to three halves of the pace.
            let pause = pace.mul_f64(0.5 + random.f64());
            sleep(pause.saturating_sub(start.elapsed()).min(self.left()));
        }
    }

    /// Carries out a job and enters it in the books.
    fn carry(&self, job: Job, entry: usize, port: u16) {
        let stops = self.stops.load(Relaxed);
        let to = self.hosts[entry].port(port);
        let conn = match Conn::connect(to, SOON) {
            Ok(conn) => conn,
            Err(error) => return self.ledger.fault(format!("connect to {to}: {error}")),
        };
        let client = conn.local();
        let result = job.play(conn);
        let done = Done {
            job,
            entry,
            client,
            port,
            cut: port == ABRUPT && result.is_err() && self.stops.load(Relaxed) != stops,
        };
        if let Some(tally) = self.ledger.played(done, &result) {
            self.tallies.add(job.kind, tally);
        }
    }

    /// Connections that live until the end, mostly idle.
    fn last(&self) {
        const PAUSE: Duration = Duration::from_secs(2);
        let mut random = fastrand::Rng::with_seed(self.seed ^ 0x1a57);
        let rounds = u16::try_from(self.left().as_secs() / PAUSE.as_secs()).unwrap_or(u16::MAX);
        thread::scope(|scope| {
            for at in 0..LASTING {
                let job = Job {
                    // A little longer than all others, so that the last sample is like the first.
                    rounds: rounds.saturating_add(2),
                    pause: PAUSE,
                    ..Job::drawn(Kind::Lasting, self.next_seed(), &mut random)
                };
                let port = [OWN[0], OWN[1], BOTH][at % 3];
                scope.spawn(move || self.carry(job, at % 2, port));
            }
        });
    }
}

/// Seen also when the test passes, and by who waits for it.
fn say(text: &str) {
    let _ = stderr().write_all(format!("soak: {text}\n").as_bytes());
}
