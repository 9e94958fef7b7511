//! In paused time: it goes on only while everything waits, and each limit is met to the millisecond.

use std::io::ErrorKind;

use tokio::time::sleep;

use super::*;

const LIMIT: Duration = Duration::from_secs(1);
/// Well below the limit.
const MOMENT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_mins(1);

struct Timed {
    client: std::net::TcpStream,
    pod: std::net::TcpStream,
    stop: tokio::task::JoinHandle<(Stop, Duration)>,
}

impl Timed {
    async fn new(timeouts: Timeouts) -> Self {
        Self::behind(nothing_first(), timeouts).await
    }

    async fn behind(
        first: impl Future<Output = First> + Send + 'static,
        timeouts: Timeouts,
    ) -> Self {
        let start = Instant::now();
        let Pumped { client, pod, stop } = pumped_behind(BytesMut::new(), first, timeouts).await;
        for end in [&client, &pod] {
            end.set_nonblocking(true).unwrap();
        }
        let stop = tokio::spawn(async move {
            let (stop, ..) = stop.await.unwrap();
            (stop, start.elapsed())
        });
        Self { client, pod, stop }
    }

    /// This end and the other one.
    fn ends(&mut self, side: Side) -> (&mut std::net::TcpStream, &mut std::net::TcpStream) {
        match side {
            Side::Client => (&mut self.client, &mut self.pod),
            Side::Upstream => (&mut self.pod, &mut self.client),
        }
    }

    /// A byte from this side to the other one.
    async fn send(&mut self, side: Side) {
        let (from, to) = self.ends(side);
        from.write_all(b"x").unwrap();
        assert_eq!(read(to, 2).await, Ok(1));
    }

    /// A FIN from this side to the other one.
    async fn end(&mut self, side: Side) {
        let (from, to) = self.ends(side);
        from.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read(to, 1).await, Ok(0));
    }

    /// A byte of this side per moment, for so many of them.
    async fn chat(&mut self, sides: &[Side], moments: u32) {
        for _ in 0..moments {
            for side in sides {
                self.send(*side).await;
            }
            sleep(MOMENT).await;
        }
    }

    /// How it stopped, and after how long; both ends are reset.
    async fn stopped(self) -> (Stop, Duration) {
        let stopped = self.stop.await.unwrap();
        for mut end in [self.client, self.pod] {
            assert_eq!(read(&mut end, 1).await, Err(ErrorKind::ConnectionReset));
        }
        stopped
    }

    async fn assert_lives(&self) {
        sleep(LONG).await;
        assert!(!self.stop.is_finished());
    }
}

/// Reads once there is something, while the clock stands still: the kernel has its own time.
async fn read(from: &mut std::net::TcpStream, most: usize) -> Result<usize, ErrorKind> {
    let mut bytes = vec![0; most];
    loop {
        match from.read(&mut bytes).map_err(|error| error.kind()) {
            Err(ErrorKind::WouldBlock) => {
                std::thread::sleep(Duration::from_micros(50));
                tokio::task::yield_now().await;
            }
            read => return read,
        }
    }
}

/// Within the grain of the runtime's timer and of what is remembered.
#[track_caller]
fn assert_at(stopped: (Stop, Duration), timeout: Timeout, at: Duration) {
    assert_eq!(stopped.0, Stop::Timeout(timeout));
    let off = stopped.1.abs_diff(at);
    assert!(
        off <= Duration::from_millis(40),
        "{:?}, not {at:?}",
        stopped.1
    );
}

#[tokio::test(start_paused = true)]
async fn only_silence_of_both_is_idle() {
    let timeouts = Timeouts {
        idle: Some(LIMIT),
        ..Timeouts::default()
    };
    for side in [Side::Client, Side::Upstream] {
        let mut timed = Timed::new(timeouts).await;
        timed.chat(&[side], 10).await;
        assert_at(timed.stopped().await, Timeout::Idle, MOMENT * 9 + LIMIT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_sends_nothing_is_idle_while_the_other_one_talks() {
    for (silent, timeout) in [
        (Side::Client, Timeout::ClientIdle),
        (Side::Upstream, Timeout::UpstreamIdle),
    ] {
        let talks = match silent {
            Side::Client => Side::Upstream,
            Side::Upstream => Side::Client,
        };
        let timeouts = Timeouts {
            client_idle: (silent == Side::Client).then_some(LIMIT),
            upstream_idle: (silent == Side::Upstream).then_some(LIMIT),
            ..Timeouts::default()
        };
        let mut timed = Timed::new(timeouts).await;
        timed.chat(&[Side::Client, Side::Upstream], 10).await;
        timed.chat(&[talks], 3).await;
        assert_at(timed.stopped().await, timeout, MOMENT * 9 + LIMIT);

        // After its FIN nothing is waited for from it.
        let mut timed = Timed::new(timeouts).await;
        timed.end(silent).await;
        timed.chat(&[talks], 10).await;
        timed.assert_lives().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_whose_bytes_nobody_takes_is_not_idle() {
    let timeouts = Timeouts {
        client_idle: Some(LIMIT),
        ..Timeouts::default()
    };
    let mut timed = Timed::new(timeouts).await;
    let mut offered = 0;
    // What was written may yet go further on its way.
    let mut full = 0;
    while full < 250 {
        if let Ok(written) = timed.client.write(&[7; 16384]) {
            offered += written;
            full = 0;
        } else {
            full += 1;
            std::thread::sleep(Duration::from_millis(1));
            // The runtime looks for events once in 61 turns, and bytes that the kernel paces are none to it.
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
        }
    }
    timed.assert_lives().await;
    let mut taken = 0;
    while taken < offered {
        taken += read(&mut timed.pod, 1 << 20).await.unwrap();
    }
    let since = Instant::now();
    let (stop, _) = timed.stopped().await;
    assert_eq!(stop, Stop::Timeout(Timeout::ClientIdle));
    assert!(since.elapsed() <= 2 * LIMIT, "{:?}", since.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_first_byte_is_waited_for_from_the_clients_own_first_byte_on() {
    let timeouts = Timeouts {
        first_byte: Some(LIMIT),
        ..Timeouts::default()
    };
    // Nobody has asked for anything; a header that was made for the client is none of its bytes.
    let header = std::future::ready(First::Bytes {
        bytes: BytesMut::from("HEADER"),
        read: 0,
        header: 0,
    });
    let mut timed = Timed::behind(header, timeouts).await;
    timed.assert_lives().await;
    assert_eq!(read(&mut timed.pod, 7).await, Ok(6));
    // That it goes on asking changes nothing.
    timed.chat(&[Side::Client], 3).await;
    assert_at(timed.stopped().await, Timeout::FirstByte, LONG + LIMIT);

    // One that came ahead of the question is one as well.
    for sides in [
        [Side::Client, Side::Upstream],
        [Side::Upstream, Side::Client],
    ] {
        let mut timed = Timed::new(timeouts).await;
        timed.chat(&sides, 1).await;
        timed.assert_lives().await;
    }
    // So is an end.
    let mut timed = Timed::new(timeouts).await;
    timed.send(Side::Client).await;
    timed.end(Side::Upstream).await;
    timed.assert_lives().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_half_closed_has_so_long_to_close() {
    let timeouts = Timeouts {
        linger: Some(LIMIT),
        ..Timeouts::default()
    };
    for (ends, talks) in [
        (Side::Client, Side::Upstream),
        (Side::Upstream, Side::Client),
    ] {
        let mut timed = Timed::new(timeouts).await;
        timed.assert_lives().await;
        timed.end(ends).await;
        timed.chat(&[talks], 3).await;
        assert_at(timed.stop.await.unwrap(), Timeout::Linger, LONG + LIMIT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_ends_whatever_happens() {
    let timeouts = Timeouts {
        lifetime: Some(MOMENT * 3),
        ..Timeouts::default()
    };
    let mut timed = Timed::new(timeouts).await;
    timed.chat(&[Side::Client, Side::Upstream], 2).await;
    assert_at(timed.stopped().await, Timeout::Lifetime, MOMENT * 3);
}

#[tokio::test(start_paused = true)]
async fn of_several_limits_the_nearest_one_counts() {
    let far = Some(LONG);
    let timeouts = Timeouts {
        idle: far,
        client_idle: far,
        upstream_idle: far,
        first_byte: Some(LIMIT),
        linger: Some(LIMIT / 2),
        lifetime: far,
    };
    // The timer is set to what is far when what is near begins.
    let mut timed = Timed::new(timeouts).await;
    timed.chat(&[Side::Upstream], 2).await;
    timed.end(Side::Client).await;
    assert_at(
        timed.stop.await.unwrap(),
        Timeout::Linger,
        MOMENT * 2 + LIMIT / 2,
    );

    let mut timed = Timed::new(timeouts).await;
    sleep(MOMENT).await;
    timed.send(Side::Client).await;
    assert_at(timed.stopped().await, Timeout::FirstByte, MOMENT + LIMIT);
}

#[test]
fn no_limit_takes_no_room() {
    assert!(Timeouts::default().boxed().is_none());
}
