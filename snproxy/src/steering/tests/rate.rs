//! The token bucket of a port.

use super::*;

/// Connects so many times, as fast as it goes, and gives how many were let through.
fn let_through(to: &str, listener: &TcpListener, tries: u32) -> u32 {
    let to = addr(to);
    let mut through = 0;
    for _ in 0..tries {
        match TcpStream::connect_timeout(&to, Duration::from_secs(2)) {
            Ok(_client) => {
                drop(accepted(listener));
                through += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}"),
        }
    }
    through
}

/// The handshake's last packet may still be on its way when connecting returns.
fn accepted(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[track_caller]
fn counted(ebpf: &Ebpf, steered: u64, limited: u64) {
    let expected = SteerCounts {
        steered,
        limited,
        ..SteerCounts::default()
    };
    assert_eq!(ebpf.counters().counts().unwrap(), expected);
}

#[test]
fn a_port_takes_its_burst_and_then_its_rate_and_no_other_port_feels_it() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        let mut ebpf = steer(&ours, &[(1025, Action::Steer)]);
        // One in a million seconds or so: none comes back during the test.
        let limit = RateLimit {
            interval: 1 << 50,
            burst: 10 << 50,
        };
        ebpf.limit(&[(1024, limit)]).unwrap();
        ebpf.write(&[(1024, Action::SteerLimited)]).unwrap();
        assert_eq!(let_through("127.0.0.1:1024", &ours, 50), 10);
        assert_eq!(let_through("127.0.0.1:1025", &ours, 50), 50);
        counted(&ebpf, 60, 40);
        let limited = ebpf.counters().limited([1024, 1025]).unwrap();
        assert_eq!(limited, [(1024, 40)].into());
        let lookups = ebpf.counters().lookups().unwrap();
        assert_eq!((lookups[1024], lookups[1025]), (50, 50));

        // A faster rate holds at once, and the count goes on.
        ebpf.limit(&[(1024, RateLimit::new(1000, 5))]).unwrap();
        assert_eq!(let_through("127.0.0.1:1024", &ours, 1), 1);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(let_through("127.0.0.1:1024", &ours, 4), 4);
        ebpf.limit(&[(1024, limit)]).unwrap();
        let_through("127.0.0.1:1024", &ours, 20);
        let limited = ebpf.counters().limited([1024]).unwrap()[&1024];
        assert!(limited > 40, "{limited}");
        let counts = ebpf.counters().counts().unwrap();
        assert_eq!((counts.limited, counts.steered), (limited, 125 - limited));

        // Without the rate it takes everybody again.
        ebpf.write(&[(1024, Action::Steer)]).unwrap();
        ebpf.unlimit(&[1024]).unwrap();
        ebpf.unlimit(&[1024]).unwrap();
        assert_eq!(let_through("127.0.0.1:1024", &ours, 50), 50);
        assert!(ebpf.counters().limited([1024]).unwrap().is_empty());
    });
}

#[test]
fn over_a_second_as_many_pass_as_the_rate_says() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        let mut ebpf = steer(&ours, &[]);
        ebpf.limit(&[(1024, RateLimit::new(200, 10))]).unwrap();
        ebpf.write(&[(1024, Action::SteerLimited)]).unwrap();
        let start = Instant::now();
        let mut through = 0;
        while start.elapsed() < Duration::from_secs(1) {
            through += let_through("127.0.0.1:1024", &ours, 10);
        }
        let most = 10.0 + 200.0 * start.elapsed().as_secs_f64() + 1.0;
        println!("{through} passed, at most {most:.0}");
        assert!(f64::from(through) <= most, "{through} of {most}");
        assert!(through >= 100, "{through}");
        let limited = ebpf.counters().counts().unwrap().limited;
        assert_eq!(ebpf.counters().limited([1024]).unwrap()[&1024], limited);
    });
}

#[test]
fn every_cluster_port_can_have_a_rate() {
    in_own_namespace(|| {
        let ours = listen("127.0.0.1:32767", false);
        let mut ebpf = steer(&ours, &[]);
        let limit = RateLimit::new(1, 1);
        let ports: Vec<u16> = (1024..=29999).chain(32768..=65535).collect();
        let limits: Vec<_> = ports.iter().map(|port| (*port, limit)).collect();
        let start = Instant::now();
        ebpf.limit(&limits).unwrap();
        let written = start.elapsed();
        let actions: Vec<_> = ports
            .iter()
            .map(|port| (*port, Action::SteerLimited))
            .collect();
        ebpf.write(&actions).unwrap();
        for port in [1024, 29999, 32768, 65535] {
            let to = format!("127.0.0.1:{port}");
            assert_eq!(let_through(&to, &ours, 2), 1, "{port}");
        }
        let start = Instant::now();
        let counts = ebpf.counters().limited(ports.iter().copied()).unwrap();
        assert_eq!(counts.len(), ports.len());
        assert_eq!(counts.values().sum::<u64>(), 4);
        let read = start.elapsed();
        let start = Instant::now();
        ebpf.unlimit(&ports).unwrap();
        println!(
            "{} rates written in {written:?}, read in {read:?}, removed in {:?}",
            ports.len(),
            start.elapsed()
        );
    });
}
