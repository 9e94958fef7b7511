//! What goes in at one end comes out at the other: bytes, FIN and RST, and no more held than must be.
//!
//! One table: each scenario in it runs over each mechanism of the pump, with the pod on the host that is asked and with
//! the pod on another one.

mod applications;
mod churn;
mod crowd;
mod ends;
mod idle;
mod memory;
mod pipes;
mod queue;
mod resets;
mod slow;
mod starts;
mod whole;

use snproxy_tests::{Conn, Heard, Host, Net, Noise, Pod, eventually};
use std::{
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(400);
/// Seeds of what goes to the pod and of what comes from it.
const UP: u64 = 0x5eed_1000;
const DOWN: u64 = 0x5eed_2000;
const MIB: u64 = 1 << 20;

/// Rows of the table.
macro_rules! rows {
    ($way:expr) => {
        rows! { $way =>
            whole: a_gibibyte_each_way_at_once;
            whole: a_hundred_mebibytes_after_a_half_close_of_the_client;
            whole: a_hundred_mebibytes_after_a_half_close_of_the_pod;
            whole: a_pod_whose_fin_waits_behind_bytes_is_read_to_the_end;
            slow: a_client_that_pauses_stops_its_pod_and_misses_nothing;
            slow: a_pod_that_pauses_stops_its_client_and_misses_nothing;
            crowd: three_hundred_half_closed_clients_that_do_not_read;
            resets: before_the_first_byte;
            resets: behind_a_fin_and_behind_bytes_that_nobody_takes;
            resets: where_bulk_begins;
            resets: while_bytes_are_in_flight_both_ways;
            churn: ten_thousand_connections_of_all_sizes;
            starts: bytes_right_behind_a_proxy_header;
            starts: bytes_right_behind_the_line_and_the_answer_of_a_peer;
            ends: a_killed_proxy_is_an_end_at_both_ends;
            ends: the_closing_event_counts_what_the_ends_saw;
            pipes: nothing_is_left_behind_by_bulk_and_by_resets_in_its_middle;
            applications: splice_and_sendfile_at_both_ends;
            applications: a_reader_that_waits_for_all;
            applications: urgent_bytes_stay_in_their_place;
            applications: the_smallest_receive_buffers;
            idle: silence_ends_and_a_slow_stream_does_not;
        }
    };
    ($way:expr => $($area:ident: $row:ident;)*) => {
        $(
            #[test]
            fn $row() {
                super::$area::$row($way);
            }
        )*
    };
}

/// Columns of the table.
macro_rules! columns {
    ($($column:ident: $pump:literal, $place:ident;)*) => {
        $(
            mod $column {
                use super::{Place, Way};

                rows!(Way { pump: $pump, place: Place::$place });
            }
        )*
    };
}

columns! {
    adaptive_on_one_host: "adaptive", OneHost;
    adaptive_across_two: "adaptive", TwoHosts;
    splice_on_one_host: "splice", OneHost;
    splice_across_two: "splice", TwoHosts;
    copy_on_one_host: "copy", OneHost;
    copy_across_two: "copy", TwoHosts;
}

/// A column of the table.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Value of PUMP.
    pump: &'static str,
    place: Place,
}

/// Where the pod is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    OneHost,
    TwoHosts,
}

impl Way {
    fn across(self) -> bool {
        self.place == Place::TwoHosts
    }

    /// As it is said in a figure.
    fn name(self) -> String {
        let place = if self.across() {
            "across two"
        } else {
            "on one host"
        };
        format!("{} {place}", self.pump)
    }

    fn net(self) -> Net {
        if self.across() {
            Net::hosts(["a", "b"])
        } else {
            Net::one()
        }
    }

    /// A net whose proxies run, with this pod on 1024 (no header) and 1025 (v1).
    fn with(self, pod: Pod) -> Ground {
        self.prepared([pod]).start()
    }

    /// The same before the start, with any number of pods: the next one is on 1026 and 1027.
    fn prepared<const N: usize>(self, pods: [Pod; N]) -> Ground {
        let ground = Ground {
            way: self,
            net: self.net(),
        };
        let mut mappings = String::new();
        for (pod, at) in pods.into_iter().zip(0u16..) {
            let (port, at) = (1024 + 2 * at, 30000 + at);
            ground.home().pod(at, pod);
            let own = format!("{port}:{at}:9000:false {}:{at}:9000:true\n", port + 1);
            mappings.push_str(&own);
        }
        ground.home().mappings(&mappings);
        for host in ground.proxies() {
            self.choose(host).conf("LOGLEVEL", "debug");
            // Of many ends that read nothing the buffers come to gigabytes, and the kernel's bound on those of all TCP
            // connections (net.ipv4.tcp_mem) drops segments for so long that others are held up.
            host.namespace()
                .sysctl("ipv4/tcp_rmem", "4096 131072 4194304");
            host.namespace()
                .sysctl("ipv4/tcp_wmem", "4096 16384 1048576");
        }
        ground
    }

    /// Makes this way's mechanism the one of a host.
    fn choose(self, host: &Host) -> &Host {
        host.conf("PUMP", self.pump)
    }
}

/// A net of one way, with proxies and a pod.
struct Ground {
    way: Way,
    net: Net,
}

impl Ground {
    fn start(self) -> Self {
        // The pod's host first: the other one asks it.
        for host in self.proxies().iter().rev() {
            host.start();
        }
        self
    }

    /// All proxies on the way, the one that clients open first.
    fn proxies(&self) -> &[Host] {
        self.net.all_hosts()
    }

    fn entry(&self) -> &Host {
        &self.proxies()[0]
    }

    /// Where the pod is.
    fn home(&self) -> &Host {
        &self.proxies()[self.proxies().len() - 1]
    }

    fn open(&self) -> Conn {
        self.entry().open(1024)
    }

    /// Waits until no connection of a client is left.
    #[track_caller]
    fn wait_for_all_to_be_gone(&self) {
        eventually(SOON, "all are gone", || {
            self.entry().count("/connections/live") == 0
        });
        // Proxies keep connections to each other: on the other host not all that lives is a client's.
        eventually(SOON, "no pod is held", || held(self.home()) == 0);
    }

    /// What the proxies say of the connection of `client` when it is over, the one that was opened first.
    #[track_caller]
    fn closed(&self, client: SocketAddr) -> Vec<Closed> {
        let said = |host: &Host| {
            let mut closed = None;
            eventually(
                SOON,
                &format!("the end of {client} on {}", host.name()),
                || {
                    closed = closings(&host.log())
                        .into_iter()
                        .find(|closed| closed.client == Some(client));
                    closed.is_some()
                },
            );
            closed.expect("just seen")
        };
        self.proxies().iter().map(said).collect()
    }
}

/// Connections that the pods of a host have at the moment.
fn held(host: &Host) -> u64 {
    let status = host.status();
    let pods = status["pods"].as_array().expect("pods");
    pods.iter().filter_map(|pod| pod["active"].as_u64()).sum()
}

/// A closing event.
#[derive(Debug, Eq, PartialEq)]
struct Closed {
    client: Option<SocketAddr>,
    bytes_in: u64,
    bytes_out: u64,
    end: String,
}

fn closings(log: &str) -> Vec<Closed> {
    let closing = |line: &str| {
        let field = |key: &str| {
            let at = line.find(&format!(" {key}="))? + key.len() + 2;
            line.get(at..)?.split_whitespace().next()
        };
        Some(Closed {
            client: field("client")?.parse().ok(),
            bytes_in: field("bytes_in")?.parse().ok()?,
            bytes_out: field("bytes_out")?.parse().ok()?,
            end: field("end")?.to_owned(),
        })
    };
    let lines = log.lines().filter(|line| line.contains(" closed "));
    lines.filter_map(closing).collect()
}

/// What a pod's thread tells the scenario.
struct Told<T>(Mutex<Receiver<T>>);

impl<T> Told<T> {
    #[track_caller]
    fn next(&self) -> T {
        let told = self.0.lock().expect("told").recv_timeout(3 * SOON);
        told.unwrap_or_else(|error| panic!("a pod says nothing: {error}"))
    }

    fn next_within(&self, limit: Duration) -> Option<T> {
        self.0.lock().expect("told").recv_timeout(limit).ok()
    }
}

fn telling<T>() -> (Sender<T>, Told<T>) {
    let (tell, told) = channel();
    (tell, Told(Mutex::new(told)))
}

/// Sends the noise of a seed, then FIN.
fn pour(to: &TcpStream, seed: u64, bytes: u64) {
    // What was not taken is missed by whoever listens.
    let _ = Noise::new(seed).pour(to, bytes, &AtomicU64::new(0));
    let _ = to.shutdown(Shutdown::Write);
}

/// Listens to the end.
fn hear(from: &TcpStream, seed: u64) -> Heard {
    Noise::new(seed).hear(from, u64::MAX, &AtomicU64::new(0))
}

/// Sends the noise of one seed and listens to that of another one at once.
fn talk(stream: &TcpStream, say: (u64, u64), listen: u64) -> Heard {
    thread::scope(|scope| {
        scope.spawn(|| pour(stream, say.0, say.1));
        hear(stream, listen)
    })
}

/// Waits until a count has not moved for a moment, and gives it.
#[track_caller]
fn wait_until_stopped(count: &AtomicU64) -> u64 {
    let (mut last, mut since) = (0, Instant::now());
    eventually(3 * SOON, "it is stopped", || {
        let now = count.load(Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        now > 0 && since.elapsed() > MOMENT
    });
    last
}
