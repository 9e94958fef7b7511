//! Clients that flood a port, and one that opens another port at a modest pace meanwhile.

use super::{
    hello::{HELLO, Hello},
    latency::Latency,
};
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes of a request, and of its answer.
const SIZE: usize = 64;
/// Longest wait of a modest client; what takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Threads of the modest client: so many of its connections may be late before one begins late.
const MODEST: u64 = 64;

#[derive(Clone, clap::Args)]
pub(crate) struct Flood {
    #[arg(long)]
    to: SocketAddr,
    /// Clients at once.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Flooded {
    /// Connections that were opened, sent their request, and were closed at once.
    pub(crate) opened: u64,
    /// Those that were not let in, or reset before they had sent.
    pub(crate) failed: u64,
}

#[derive(Clone, clap::Args)]
pub(crate) struct Modest {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 200)]
    per_second: u32,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// How long the modest client's connections took, from the moment when each was due.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Served {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) connect_p50_us: f64,
    pub(crate) connect_p99_us: f64,
    /// Until the first byte of the answer.
    pub(crate) answer_p50_us: f64,
    pub(crate) answer_p99_us: f64,
}

impl Flood {
    /// Opens, sends and closes as fast as it goes, without a look at what comes back.
    pub(crate) fn run(&self) -> Flooded {
        let (opened, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let end = Instant::now() + Duration::from_secs_f64(self.seconds);
        let request = request();
        thread::scope(|scope| {
            for _ in 0..self.clients {
                scope.spawn(|| {
                    while Instant::now() < end {
                        // A full queue lets SYNs go unanswered: it must not hold the client beyond the end.
                        let left = end.saturating_duration_since(Instant::now());
                        let left = left.max(Duration::from_millis(1));
                        let sent = TcpStream::connect_timeout(&self.to, left)
                            .and_then(|mut stream| stream.write_all(&request));
                        let count = if sent.is_ok() { &opened } else { &failed };
                        count.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        Flooded {
            opened: opened.into_inner(),
            failed: failed.into_inner(),
        }
    }
}

impl Modest {
    /// Errors: nothing was answered, so that there is no figure.
    pub(crate) fn run(&self) -> anyhow::Result<Served> {
        let begin = Instant::now();
        let total = self.seconds * f64::from(self.per_second);
        let apart = Duration::from_secs(1) / self.per_second;
        let next = AtomicU64::new(0);
        let times = Mutex::new((Latency::new(), Latency::new()));
        let (answered, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..MODEST {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Relaxed);
                        if super::to_f64(index) >= total {
                            break;
                        }
                        let due = begin + apart * u32::try_from(index).unwrap_or(u32::MAX);
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        // A wake-up that was late is the machine's, not the proxy's; a wait for a free thread is.
                        let start = Instant::now();
                        let late = start.saturating_duration_since(due);
                        let since = if late > PATIENCE / 20 { due } else { start };
                        match self.ask(since) {
                            Ok((connect, answer)) => {
                                answered.fetch_add(1, Relaxed);
                                let mut times = times.lock().expect("no panic");
                                times.0.add(connect);
                                times.1.add(answer);
                            }
                            Err(_) => {
                                failed.fetch_add(1, Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let (connect, answer) = times.into_inner().context("a panic")?;
        let answered = answered.into_inner();
        ensure!(answered > 0, "no answer from {}", self.to);
        Ok(Served {
            answered,
            failed: failed.into_inner(),
            connect_p50_us: connect.quantile_us(0.5),
            connect_p99_us: connect.quantile_us(0.99),
            answer_p50_us: answer.quantile_us(0.5),
            answer_p99_us: answer.quantile_us(0.99),
        })
    }

    /// One connection: the times until it was there, and until its answer began.
    fn ask(&self, since: Instant) -> anyhow::Result<(Duration, Duration)> {
        let mut stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
        let connected = since.elapsed();
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = request();
        stream.write_all(&request)?;
        let mut answer = [0; SIZE];
        let count = stream.read(&mut answer)?;
        let answered = since.elapsed();
        stream.read_exact(&mut answer[count..])?;
        ensure!(count > 0 && answer == request, "a wrong byte in the answer");
        Ok((connected, answered))
    }
}

fn request() -> [u8; SIZE] {
    let mut request = [b'x'; SIZE];
    request[..HELLO].copy_from_slice(&Hello::Echo(64).encode());
    request
}
