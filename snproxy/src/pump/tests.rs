use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::TcpListener;

use super::*;

mod timeouts;

/// Far above what anything here takes: only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(20);

/// A pump between two blocking applications: (client's end, pod's end, how it stopped).
struct Pumped {
    client: std::net::TcpStream,
    pod: std::net::TcpStream,
    stop: tokio::task::JoinHandle<(Stop, u64, u64)>,
}

async fn pair() -> (std::net::TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let far = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (near, _) = listener.accept().await.unwrap();
    let near = Stream::new(near.into_std().unwrap()).unwrap();
    let far = far.into_std().unwrap();
    far.set_nonblocking(false).unwrap();
    far.set_read_timeout(Some(LIMIT)).unwrap();
    far.set_write_timeout(Some(LIMIT)).unwrap();
    (far, near)
}

fn rule(timeouts: Timeouts) -> Rule {
    Rule {
        mechanism: Mechanism::Adaptive,
        timeouts: timeouts.boxed(),
    }
}

async fn pumped(first: impl Future<Output = First> + Send + 'static) -> Pumped {
    pumped_behind(BytesMut::new(), first, Timeouts::default()).await
}

/// A pump whose caller has read `early` from the pod already.
async fn pumped_behind(
    early: BytesMut,
    first: impl Future<Output = First> + Send + 'static,
    timeouts: Timeouts,
) -> Pumped {
    let (client, client_leg) = pair().await;
    let (pod, pod_leg) = pair().await;
    let stop = tokio::spawn(async move {
        let meter = Meter::default();
        let never = std::future::pending::<()>();
        let stop = run(
            &client_leg,
            &pod_leg,
            Box::pin(first),
            early,
            rule(timeouts),
            never,
            &meter,
        )
        .await;
        (
            stop.unwrap(),
            meter.up.load(Relaxed),
            meter.down.load(Relaxed),
        )
    });
    Pumped { client, pod, stop }
}

fn nothing_first() -> std::future::Ready<First> {
    std::future::ready(First::Bytes {
        bytes: BytesMut::new(),
        read: 0,
        header: 0,
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::time::timeout(LIMIT, tokio::task::spawn_blocking(work))
        .await
        .unwrap()
        .unwrap()
}

fn reset(stream: std::net::TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

/// Reads to the end: the bytes, and whether the end was a reset.
fn read_out(mut stream: std::net::TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let was_reset = match stream.read_to_end(&mut bytes) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            true
        }
    };
    (bytes, was_reset)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_client_still_gets_the_whole_answer() {
    let Pumped {
        mut client,
        mut pod,
        stop,
    } = pumped(nothing_first()).await;
    let request = pattern(3 << 20);
    let answer = pattern(5 << 20);
    let (asked, answered) = (request.clone(), answer.clone());
    let serving = blocking(move || {
        let mut got = Vec::new();
        pod.read_to_end(&mut got).unwrap();
        pod.write_all(&answered).unwrap();
        got
    });
    let asking = blocking(move || {
        client.write_all(&asked).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        read_out(client)
    });
    let (got, (answer_got, was_reset)) = tokio::join!(serving, asking);
    assert!(got == request && answer_got == answer && !was_reset);
    assert_eq!(stop.await.unwrap(), (Stop::Clean, 3 << 20, 5 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_either_end_arrives_as_a_reset_behind_the_bytes_before_it() {
    for client_resets in [true, false] {
        let Pumped { client, pod, stop } = pumped(nothing_first()).await;
        let (mut from, mut to) = if client_resets {
            (client, pod)
        } else {
            (pod, client)
        };
        let (bytes, was_reset) = blocking(move || {
            from.write_all(b"last words").unwrap();
            let mut heard = [0; 10];
            to.read_exact(&mut heard).unwrap();
            reset(from);
            let (rest, was_reset) = read_out(to);
            assert!(rest.is_empty());
            (heard, was_reset)
        })
        .await;
        assert_eq!(&bytes, b"last words");
        assert!(was_reset);
        let side = if client_resets {
            Side::Client
        } else {
            Side::Upstream
        };
        assert_eq!(stop.await.unwrap().0, Stop::Reset(side));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_a_half_close_is_noticed_although_nobody_reads() {
    for client_resets in [true, false] {
        let Pumped { client, pod, stop } = pumped(nothing_first()).await;
        let (from, mut to) = if client_resets {
            (client, pod)
        } else {
            (pod, client)
        };
        let was_reset = blocking(move || {
            from.shutdown(Shutdown::Write).unwrap();
            assert_eq!(to.read(&mut [0; 1]).unwrap(), 0, "the FIN comes through");
            reset(from);
            // The write fails once the reset is here; until then it only fills buffers.
            let deadline = std::time::Instant::now() + LIMIT;
            while std::time::Instant::now() < deadline {
                if to.write(&[0; 1]).is_err() {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            false
        })
        .await;
        assert!(was_reset);
        let side = if client_resets {
            Side::Client
        } else {
            Side::Upstream
        };
        assert_eq!(stop.await.unwrap().0, Stop::Reset(side));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_while_the_pod_does_not_read_is_noticed() {
    let Pumped {
        mut client,
        pod,
        stop,
    } = pumped(nothing_first()).await;
    blocking(move || {
        client
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        // Until every buffer on the way is full.
        while client.write(&[7; 16384]).is_ok() {}
        reset(client);
    })
    .await;
    let (ended, ..) = tokio::time::timeout(LIMIT, stop).await.unwrap().unwrap();
    assert_eq!(ended, Stop::Reset(Side::Client));
    drop(pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_sent_before_the_upstream_reset_reaches_the_client() {
    // An HTTP server that refuses an upload: it answers, and closes with bytes unread, which is a reset.
    let Pumped {
        mut client,
        mut pod,
        stop,
    } = pumped(nothing_first()).await;
    let (answer, was_reset) = blocking(move || {
        client.write_all(&[1; 4096]).unwrap();
        pod.read_exact(&mut [0; 16]).unwrap();
        pod.write_all(b"413 too large").unwrap();
        let mut answer = [0; 13];
        client.read_exact(&mut answer).unwrap();
        drop(pod);
        (answer, read_out(client).1)
    })
    .await;
    assert_eq!(&answer, b"413 too large");
    assert!(was_reset);
    assert_eq!(stop.await.unwrap().0, Stop::Reset(Side::Upstream));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_the_clients_fin_takes_nothing_back_either() {
    let Pumped {
        client,
        mut pod,
        stop,
    } = pumped(nothing_first()).await;
    let answer = pattern(1 << 20);
    let sent = answer.clone();
    let client = blocking(move || {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(pod.read(&mut [0; 1]).unwrap(), 0, "the FIN comes through");
        pod.write_all(&sent).unwrap();
        while sys::socket::unsent(&pod).unwrap() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(200));
        reset(pod);
        std::thread::sleep(Duration::from_millis(300));
        client
    })
    .await;
    let (got, was_reset) = blocking(move || read_out(client)).await;
    assert!(got == answer, "{} of {} bytes", got.len(), answer.len());
    assert!(was_reset);
    assert_eq!(stop.await.unwrap().0, Stop::Reset(Side::Upstream));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_as_well_is_not_waited_for() {
    let Pumped {
        client,
        mut pod,
        stop,
    } = pumped(nothing_first()).await;
    blocking(move || {
        pod.set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        // Until every buffer on the way is full: the client reads nothing.
        while pod.write(&[7; 16384]).is_ok() {}
        reset(pod);
        std::thread::sleep(Duration::from_millis(300));
        reset(client);
    })
    .await;
    let (ended, ..) = tokio::time::timeout(LIMIT, stop).await.unwrap().unwrap();
    assert_eq!(ended, Stop::Reset(Side::Upstream));
}

/// Reads and writes by turns until the stream ends, and says how: by a FIN or by a reset.
fn chatter(mut stream: std::net::TcpStream) -> &'static str {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, WouldBlock};
    stream.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    loop {
        let read = stream.read(&mut bytes);
        let written = if matches!(read, Ok(0)) {
            Ok(0)
        } else {
            stream.write(&bytes)
        };
        match (read, written) {
            (Ok(0), _) => return "fin",
            (Err(error), _) | (_, Err(error)) if error.kind() == ConnectionReset => return "reset",
            // The reset that caused it was told to nobody else.
            (_, Err(error)) if error.kind() == BrokenPipe => return "fin",
            (Err(error), _) | (_, Err(error)) if error.kind() != WouldBlock => panic!("{error}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_under_load_never_arrives_as_a_finished_stream() {
    for round in 0..60 {
        let Pumped { client, pod, stop } = pumped(nothing_first()).await;
        let (mut resets, stays) = if round % 2 == 0 {
            (client, pod)
        } else {
            (pod, client)
        };
        let staying = std::thread::spawn(|| chatter(stays));
        blocking(move || {
            for _ in 0..20 + round % 7 {
                assert!(resets.read(&mut [0; 16384]).unwrap() > 0);
            }
            reset(resets);
        })
        .await;
        let heard = blocking(move || staying.join().unwrap()).await;
        assert_eq!(heard, "reset", "round {round}");
        assert!(matches!(stop.await.unwrap().0, Stop::Reset(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_gone_for_good_takes_nothing_back_from_a_slow_client() {
    // A server answers and closes; a minute later its kernel resets what is left of the connection.
    let Pumped {
        client,
        mut pod,
        stop,
    } = pumped(nothing_first()).await;
    let answer = pattern(1 << 20);
    let sent = answer.clone();
    blocking(move || {
        pod.write_all(&sent).unwrap();
        pod.shutdown(Shutdown::Write).unwrap();
        while sys::socket::unsent(&pod).unwrap() > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        reset(pod);
        std::thread::sleep(Duration::from_millis(300));
    })
    .await;
    assert!(!stop.is_finished(), "the client has read nothing yet");
    let (got, _) = blocking(move || read_out(client)).await;
    assert!(got == answer, "{} of {} bytes", got.len(), answer.len());
    assert_eq!(stop.await.unwrap().0, Stop::Reset(Side::Upstream));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_go_ahead_and_the_answer_does_not_wait_for_them() {
    let (decide, decided) = tokio::sync::oneshot::channel::<First>();
    let first = async { decided.await.unwrap() };
    let Pumped {
        mut client,
        mut pod,
        stop,
    } = pumped(first).await;
    let (client, pod) = blocking(move || {
        client.write_all(b"payload").unwrap();
        pod.write_all(b"banner").unwrap();
        let mut banner = [0; 6];
        client.read_exact(&mut banner).unwrap();
        assert_eq!(
            &banner, b"banner",
            "nothing is decided yet, and the pod speaks all the same"
        );
        (client, pod)
    })
    .await;
    decide
        .send(First::Bytes {
            bytes: BytesMut::from("HEADER "),
            read: 0,
            header: 0,
        })
        .unwrap();
    blocking(move || {
        client.shutdown(Shutdown::Both).unwrap();
        assert_eq!(read_out(pod), (b"HEADER payload".to_vec(), false));
    })
    .await;
    assert_eq!(stop.await.unwrap(), (Stop::Clean, 7, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_were_read_ahead_reach_the_client_before_all_others() {
    let Pumped { client, pod, stop } = pumped_behind(
        BytesMut::from("early "),
        nothing_first(),
        Timeouts::default(),
    )
    .await;
    let (mut sender, mut reader) = (pod, client);
    let got = blocking(move || {
        sender.write_all(b"and late").unwrap();
        drop(sender);
        let mut got = String::new();
        reader.read_to_string(&mut got).unwrap();
        got
    })
    .await;
    assert_eq!(got, "early and late");
    assert_eq!(stop.await.unwrap(), (Stop::Clean, 0, 14));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_does_not_read_is_bounded_by_the_sockets_and_one_buffer() {
    let (mut client, client_leg) = pair().await;
    let (pod, pod_leg) = pair().await;
    for leg in [&client_leg, &pod_leg] {
        SockRef::from(leg).set_recv_buffer_size(64 << 10).unwrap();
        SockRef::from(leg).set_send_buffer_size(64 << 10).unwrap();
    }
    let meter = Arc::new(Meter::default());
    let counted = Arc::clone(&meter);
    let pump = tokio::spawn(async move {
        run(
            &client_leg,
            &pod_leg,
            nothing_first(),
            BytesMut::new(),
            rule(Timeouts::default()),
            std::future::pending::<()>(),
            &*counted,
        )
        .await
    });
    let offered = blocking(move || {
        client
            .set_write_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut offered = 0;
        while let Ok(written) = client.write(&[7; 16384]) {
            offered += written;
            assert!(offered < 256 << 20, "no backpressure");
        }
        offered
    })
    .await;
    let taken = usize::try_from(meter.up.load(Relaxed)).unwrap();
    println!("offered {offered} bytes, the pump took {taken}");
    assert!(taken <= offered && offered < 64 << 20);
    pump.abort();
    drop(pod);
}
