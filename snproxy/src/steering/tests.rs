//! The program in a real kernel, each time in a network namespace of its own.

mod rate;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use caps::{CapSet, CapsHashSet};
use rustix::thread::UnshareFlags;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::addr::{Action, canonical};
use crate::sys::privileges::{self, Capability};

/// Descriptors are the process's: a test that looks at them must be the only one that makes some.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs `scenario` on a thread that alone is in a new network namespace, with `lo` up and
/// `fd00::1` on it. Without the rights to make one: says so and returns, or fails if
/// `SNPROXY_TEST_STRICT=1`.
fn in_own_namespace(scenario: impl FnOnce() + Send + 'static) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let lacking: Vec<Capability> = [
        Capability::CAP_SYS_ADMIN,
        Capability::CAP_NET_ADMIN,
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
    ]
    .into_iter()
    .filter(|capability| !privileges::has(*capability))
    .collect();
    if !lacking.is_empty() {
        let strict = std::env::var_os("SNPROXY_TEST_STRICT").is_some_and(|value| value == "1");
        assert!(!strict, "this test needs {lacking:?}");
        eprintln!("skipped: this test needs {lacking:?}");
        return;
    }
    let namespace = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let outside = namespace();
    let ended = std::thread::spawn(move || {
        #[expect(
            deprecated,
            reason = "the safe form; a network namespace alone breaks no promise"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        // What is attached outside would take the machine's own connections away.
        assert_ne!(namespace(), outside);
        ip("link set lo up");
        ip("address add fd00::1/128 dev lo nodad");
        scenario();
    })
    .join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A listener as the daemon makes one; `v6_only` for IPv6 addresses.
fn listen(at: &str, v6_only: bool) -> TcpListener {
    let at = addr(at);
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    if at.is_ipv6() {
        socket.set_only_v6(v6_only).unwrap();
    }
    socket.set_reuse_address(true).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.listen(128).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

/// Loaded for the listener's address, with these actions, attached.
fn steer(listener: &TcpListener, actions: &[(u16, Action)]) -> Ebpf {
    let at = listener.local_addr().unwrap();
    let mut ebpf = Ebpf::load(canonical(at), None).unwrap();
    ebpf.set_listener(listener).unwrap();
    ebpf.write(actions).unwrap();
    ebpf.attach().unwrap();
    ebpf
}

/// Connects to `to`; the connection comes out of `listener`, which sees the address that was asked for.
#[track_caller]
fn reaches(to: &str, listener: &TcpListener) {
    let to = addr(to);
    let mut client = TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap();
    // The handshake is done, so on loopback the connection waits to be accepted.
    let (mut accepted, from) = listener.accept().unwrap();
    assert_eq!(canonical(accepted.local_addr().unwrap()), to);
    assert_eq!(canonical(from), client.local_addr().unwrap());
    accepted.set_nonblocking(false).unwrap();
    client.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    accepted.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

#[track_caller]
fn is_refused(to: &str) {
    let error = TcpStream::connect_timeout(&addr(to), Duration::from_secs(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
}

#[test]
fn each_port_of_our_address_goes_its_way_and_all_else_is_untouched() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        let passed = listen("127.0.0.1:1026", false);
        let foreign = listen("127.0.0.2:1024", false);
        let foreign_refuse = listen("127.0.0.2:1025", false);
        let foreign_family = listen("[::1]:1024", true);
        let datagrams = UdpSocket::bind("127.0.0.1:1024").unwrap();
        // Something sits on the port that is refused: it must not be reached.
        let _beneath = listen("127.0.0.1:1025", false);
        let ebpf = steer(
            &ours,
            &[
                (1024, Action::Steer),
                (1025, Action::Refuse),
                (1026, Action::Pass),
                (65535, Action::Steer),
            ],
        );
        let counters = ebpf.counters();

        reaches("127.0.0.1:1026", &passed);
        reaches("127.0.0.1:32767", &ours);
        is_refused("127.0.0.1:1027");
        reaches("127.0.0.2:1024", &foreign);
        reaches("127.0.0.2:1025", &foreign_refuse);
        is_refused("127.0.0.2:65535");
        reaches("[::1]:1024", &foreign_family);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(b"udp", "127.0.0.1:1024").unwrap();
        assert_eq!(datagrams.recv(&mut [0; 8]).unwrap(), 3);
        assert_eq!(counters.counts().unwrap(), SteerCounts::default());
        assert!(counters.lookups().unwrap().iter().all(|count| *count == 0));

        reaches("127.0.0.1:1024", &ours);
        reaches("127.0.0.1:1024", &ours);
        reaches("127.0.0.1:65535", &ours);
        is_refused("127.0.0.1:1025");
        let expected = SteerCounts {
            steered: 3,
            refused: 1,
            ..SteerCounts::default()
        };
        assert_eq!(counters.counts().unwrap(), expected);
        let lookups = counters.lookups().unwrap();
        assert_eq!(lookups.len(), 65_536);
        let counted: Vec<(usize, u64)> = lookups.into_iter().enumerate().collect();
        let counted: Vec<_> = counted
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(counted, [(1024, 2), (1025, 1), (65535, 1)]);
    });
}

#[test]
fn every_address_of_the_family_is_ours_when_host_is_any() {
    in_own_namespace(|| {
        let ours = listen("0.0.0.0:32767", false);
        let other_family = listen("[::1]:1024", true);
        let _ebpf = steer(&ours, &[(1024, Action::Steer)]);
        reaches("127.0.0.1:1024", &ours);
        reaches("127.9.9.9:1024", &ours);
        reaches("[::1]:1024", &other_family);
    });
}

#[test]
fn one_ipv6_address_is_ours_and_the_others_are_not() {
    in_own_namespace(|| {
        let ours = listen("[fd00::1]:32767", true);
        let foreign = listen("[::1]:1024", true);
        let other_family = listen("127.0.0.1:1024", false);
        let ebpf = steer(&ours, &[(1024, Action::Steer), (1025, Action::Refuse)]);
        reaches("[fd00::1]:1024", &ours);
        is_refused("[fd00::1]:1025");
        reaches("[::1]:1024", &foreign);
        reaches("127.0.0.1:1024", &other_family);
        let counts = ebpf.counters().counts().unwrap();
        assert_eq!((counts.steered, counts.refused), (1, 1));
    });
}

#[test]
fn a_dual_stack_listener_takes_both_families() {
    in_own_namespace(|| {
        let ours = listen("[::]:32767", false);
        let _ebpf = steer(&ours, &[(1024, Action::Steer)]);
        reaches("[::1]:1024", &ours);
        reaches("[fd00::1]:1024", &ours);
        reaches("127.0.0.1:1024", &ours);
        reaches("127.0.0.2:1024", &ours);
    });
}

#[test]
fn a_port_is_refused_while_no_listener_can_take_it() {
    in_own_namespace(|| {
        // Something sits on the port: passing would reach it.
        let _beneath = listen("127.0.0.1:1024", false);
        let mut ebpf = Ebpf::load(addr("0.0.0.0:32767"), None).unwrap();
        ebpf.write(&[(1024, Action::Steer)]).unwrap();
        ebpf.attach().unwrap();
        is_refused("127.0.0.1:1024");

        let first = listen("0.0.0.0:32767", false);
        ebpf.set_listener(&first).unwrap();
        reaches("127.0.0.1:1024", &first);
        // The slot is given on, and emptied by closing the socket.
        let second = listen("0.0.0.0:32768", false);
        ebpf.set_listener(&second).unwrap();
        drop(first);
        reaches("127.0.0.1:1024", &second);
        drop(second);
        is_refused("127.0.0.1:1024");

        // A socket that takes no IPv4: the kernel does not assign it.
        let wrong = listen("[::]:32767", true);
        ebpf.set_listener(&wrong).unwrap();
        is_refused("127.0.0.1:1024");
        let expected = SteerCounts {
            steered: 2,
            no_listener: 2,
            failed: 1,
            ..SteerCounts::default()
        };
        assert_eq!(ebpf.counters().counts().unwrap(), expected);
        assert_eq!(ebpf.counters().lookups().unwrap()[1024], 5);

        let idle = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let error = ebpf.set_listener(&idle).unwrap_err();
        assert_eq!(error.to_string(), "write bpf map LISTENER");
        assert_eq!(error.missing(), None);
    });
}

#[test]
fn dropping_it_detaches_it_and_counters_stay_readable() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        let beneath = listen("127.0.0.1:1024", false);
        let mut ebpf = steer(&ours, &[(1024, Action::Steer)]);
        assert!(ebpf.attach().is_err());
        reaches("127.0.0.1:1024", &ours);
        let counters = ebpf.counters();
        drop(ebpf);
        reaches("127.0.0.1:1024", &beneath);
        assert_eq!(counters.counts().unwrap().steered, 1);
    });
}

#[test]
fn actions_change_while_it_is_attached() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        let beneath = listen("127.0.0.1:1024", false);
        let mut ebpf = steer(&ours, &[]);
        let mut known = Known::new();
        for (action, changes) in [(Action::Steer, 1), (Action::Steer, 0), (Action::Refuse, 1)] {
            let made = known.bring([(1024, action)], |changes| ebpf.write(changes));
            assert_eq!(made.unwrap(), changes);
        }
        is_refused("127.0.0.1:1024");
        ebpf.write(&[(1024, Action::Steer)]).unwrap();
        reaches("127.0.0.1:1024", &ours);
        ebpf.write(&[(1024, Action::Pass)]).unwrap();
        reaches("127.0.0.1:1024", &beneath);
    });
}

#[test]
fn all_cluster_ports_are_written_at_once() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        let mut ebpf = steer(&ours, &[]);
        let ports: Vec<(u16, Action)> = (1024..=29999)
            .chain(32768..=65535)
            .map(|port| (port, Action::Steer))
            .collect();
        assert_eq!(ports.len(), 61_744);
        let start = Instant::now();
        ebpf.write(&ports).unwrap();
        let written = start.elapsed();
        let start = Instant::now();
        let lookups = ebpf.counters().lookups().unwrap();
        println!(
            "{} actions written in {written:?}, {} lookups read in {:?}",
            ports.len(),
            lookups.len(),
            start.elapsed()
        );
        for port in [1024, 1025, 29999, 32768, 50000, 65535] {
            reaches(&format!("127.0.0.1:{port}"), &ours);
        }
        for port in [1, 1023, 30000, 32766] {
            is_refused(&format!("127.0.0.1:{port}"));
        }
        assert_eq!(ebpf.counters().counts().unwrap().steered, 6);
    });
}

/// Leaves the calling thread these capabilities and no others.
fn keep_only(kept: &[Capability]) {
    let kept: CapsHashSet = kept.iter().copied().collect();
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).unwrap();
    }
}

#[test]
fn two_capabilities_are_enough_to_start_and_none_to_go_on() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        keep_only(&[Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
        let mut ebpf = steer(&ours, &[]);
        privileges::drop_all(&[]).unwrap();
        assert!(!privileges::has(Capability::CAP_NET_ADMIN));

        ebpf.write(&[(1024, Action::Steer)]).unwrap();
        reaches("127.0.0.1:1024", &ours);
        let successor = listen("127.0.0.1:32768", false);
        ebpf.set_listener(&successor).unwrap();
        reaches("127.0.0.1:1024", &successor);
        let counters = ebpf.counters();
        assert_eq!(counters.counts().unwrap().steered, 2);
        assert_eq!(counters.lookups().unwrap()[1024], 2);
        drop(ebpf);
        is_refused("127.0.0.1:1024");
    });
}

#[test]
fn what_a_start_lacks_is_named() {
    let lacks = |kept: &'static [Capability], lacking: &'static [Capability]| {
        in_own_namespace(move || {
            keep_only(kept);
            let Err(error) = Ebpf::load(addr("127.0.0.1:32767"), None) else {
                panic!("loaded with {kept:?}");
            };
            let missing = Missing::Capabilities(lacking.to_vec());
            assert_eq!(error.missing(), Some(&missing), "{error}");
            assert!(error.to_string().contains("missing CAP_"), "{error}");
        });
    };
    lacks(&[], &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
    lacks(&[Capability::CAP_BPF], &[Capability::CAP_NET_ADMIN]);
    lacks(&[Capability::CAP_NET_ADMIN], &[Capability::CAP_BPF]);
}

#[test]
fn a_log_works_without_perfmon_or_says_that_it_is_missing() {
    in_own_namespace(|| {
        keep_only(&[Capability::CAP_BPF, Capability::CAP_NET_ADMIN]);
        match Ebpf::load(addr("127.0.0.1:32767"), Some(LogLevel::Error)) {
            Ok(mut ebpf) => assert!(ebpf.logger().is_some()),
            Err(error) => {
                let missing = Missing::Capabilities(vec![Capability::CAP_PERFMON]);
                assert_eq!(error.missing(), Some(&missing), "{error}");
            }
        }
    });
}

#[test]
fn only_maps_and_link_stay_open_and_none_is_inherited() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        let ebpf = steer(&ours, &[]);
        let mut kinds = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
            let Ok(kind) = std::fs::read_link(entry.path()) else {
                continue;
            };
            let Some(kind) = kind
                .to_str()
                .and_then(|kind| kind.strip_prefix("anon_inode:"))
            else {
                continue;
            };
            if !kind.contains("bpf") && !kind.contains("btf") {
                continue;
            }
            kinds.push(kind.to_owned());
            let info = std::path::Path::new("/proc/self/fdinfo").join(entry.file_name());
            let info = std::fs::read_to_string(info).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:\t"));
            let flags = i32::from_str_radix(flags.unwrap(), 8).unwrap();
            assert_ne!(flags & libc::O_CLOEXEC, 0, "{kind}");
        }
        kinds.sort_unstable();
        // ACTIONS, LISTENER, COUNTS, LOOKUPS, RATES, BUCKETS.
        let mut expected = vec!["bpf-map"; 6];
        expected.push("bpf_link");
        assert_eq!(kinds, expected);
        drop(ebpf);
    });
}

#[test]
fn what_should_never_happen_is_logged_when_asked_for() {
    in_own_namespace(|| {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer({
                let lines = lines.clone();
                move || lines.clone()
            })
            .with_ansi(false)
            .finish();
        let mut ebpf = Ebpf::load(addr("0.0.0.0:32767"), Some(LogLevel::Error)).unwrap();
        ebpf.write(&[(1024, Action::Steer)]).unwrap();
        ebpf.attach().unwrap();
        let log = ebpf.logger().unwrap();
        assert!(ebpf.logger().is_none());
        is_refused("127.0.0.1:1024");
        let wrong = listen("[::]:32767", true);
        ebpf.set_listener(&wrong.as_fd()).unwrap();

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tracing::subscriber::with_default(subscriber, || {
            runtime.block_on(async {
                let log = log.run();
                let both = async {
                    // The second line comes while the log is being waited for.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    is_refused("127.0.0.1:1024");
                    let limit = Instant::now() + Duration::from_secs(5);
                    while lines.text().lines().count() < 2 && Instant::now() < limit {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::select! {
                    error = log => panic!("{error}"),
                    () = both => {}
                }
            });
        });
        let text = lines.text();
        for errno in [libc::ENOENT, libc::EAFNOSUPPORT] {
            let line = format!(
                "ERROR snproxy::bpf: refused, listener not assigned: port 1024 family 2 errno {errno}"
            );
            assert!(text.contains(&line), "{text}");
        }
    });
}

/// What a subscriber wrote.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
