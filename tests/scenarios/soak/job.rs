//! One connection of the soak: what its client and its pod do, both from the same few numbers.

use snproxy_tests::{Conn, Ended, Guest, Heard, Noise};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::AtomicU64,
    thread::{self, sleep},
    time::Duration,
};

/// What the client sends first.
pub(super) const HEAD: usize = 25;
const ACK: &[u8] = b"k";
/// How often one that is slow stops.
const PAUSES: u64 = 6;
const PAUSE: Duration = Duration::from_millis(400);

/// What both ends of a connection do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    /// One question, one answer.
    Churn,
    /// Many small ones, one after the other.
    Rounds,
    /// The same with long pauses.
    Lasting,
    /// Both ways at once.
    Stream,
    /// The pod answers only behind the client's FIN.
    HalfClose,
    /// The client stops reading now and then.
    SlowClient,
    /// The pod does.
    SlowPod,
    /// Reset by the client when the pod has all of it.
    ClientResets,
    /// Reset by the pod when the client has all of it.
    PodResets,
    /// Reset by the client in the middle of its bytes.
    ClientTears,
    /// Reset by the pod in the middle of its bytes.
    PodTears,
}

impl Kind {
    pub(super) const ALL: [Self; 11] = [
        Self::Churn,
        Self::Rounds,
        Self::Lasting,
        Self::Stream,
        Self::HalfClose,
        Self::SlowClient,
        Self::SlowPod,
        Self::ClientResets,
        Self::PodResets,
        Self::ClientTears,
        Self::PodTears,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Churn => "question and answer, 1 byte to 1 MiB",
            Self::Rounds => "many small questions and answers",
            Self::Lasting => "one connection for all the time",
            Self::Stream => "streams both ways at once",
            Self::HalfClose => "half-close, then the answer",
            Self::SlowClient => "client that reads slowly",
            Self::SlowPod => "pod that reads slowly",
            Self::ClientResets => "reset by the client, all heard",
            Self::PodResets => "reset by the pod, all heard",
            Self::ClientTears => "reset by the client in the middle",
            Self::PodTears => "reset by the pod in the middle",
        }
    }

    /// How the proxy that the client opened must call its end.
    pub(super) fn end(self) -> &'static str {
        match self {
            Self::ClientResets | Self::ClientTears => "client",
            Self::PodResets | Self::PodTears => "upstream",
            _ => "clean",
        }
    }

    /// Whether not all that was sent must have arrived.
    pub(super) fn is_torn(self) -> bool {
        matches!(self, Self::ClientTears | Self::PodTears)
    }
}

/// The numbers that both ends go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) kind: Kind,
    /// Each job has its own.
    pub(super) seed: u64,
    pub(super) up: u64,
    pub(super) down: u64,
    /// Times that `up` and `down` are exchanged.
    pub(super) rounds: u16,
    /// What the client waits after each time; the pod does not know.
    pub(super) pause: Duration,
}

impl Job {
    /// Sizes of this kind.
    pub(super) fn drawn(kind: Kind, seed: u64, random: &mut fastrand::Rng) -> Self {
        let mut any = |magnitudes: std::ops::Range<u32>| {
            let magnitude = random.u32(magnitudes);
            random.u64(1 << magnitude..=2 << magnitude)
        };
        let (up, down, rounds) = match kind {
            Kind::Churn => (any(0..20), any(0..20), 1),
            Kind::Rounds | Kind::Lasting => (any(0..10), any(0..12), 100),
            Kind::Stream => (any(22..24), any(22..24), 1),
            Kind::HalfClose => (any(0..22), any(0..23), 1),
            Kind::SlowClient => (1, any(23..24), 1),
            Kind::SlowPod => (any(23..24), 1, 1),
            Kind::ClientResets | Kind::ClientTears => (any(10..22), 0, 1),
            Kind::PodResets | Kind::PodTears => (0, any(10..22), 1),
        };
        Self {
            kind,
            seed,
            up,
            down,
            rounds,
            pause: Duration::from_millis(2),
        }
    }

    /// What the proxy takes from the client and from the pod, acknowledgements included.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let rounds = u64::from(self.rounds);
        let (up, down) = (HEAD as u64 + self.up * rounds, self.down * rounds);
        match self.kind {
            Kind::ClientResets | Kind::ClientTears => (up, down + 1),
            Kind::PodResets => (up + 1, down),
            _ => (up, down),
        }
    }

    fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let kind = Kind::ALL.iter().position(|kind| *kind == self.kind);
        head[0] = u8::try_from(kind.unwrap_or_default()).unwrap_or_default();
        head[1..9].copy_from_slice(&self.seed.to_le_bytes());
        head[9..16].copy_from_slice(&self.up.to_le_bytes()[..7]);
        head[16..23].copy_from_slice(&self.down.to_le_bytes()[..7]);
        head[23..].copy_from_slice(&self.rounds.to_le_bytes());
        head
    }

    /// Reads the head of a connection; `None` where nobody is left to send one.
    pub(super) fn read(guest: &Guest) -> Option<Self> {
        let mut head = [0; HEAD];
        guest.stream().read_exact(&mut head).ok()?;
        let number = |at: std::ops::Range<usize>| {
            let mut bytes = [0; 8];
            bytes[..at.len()].copy_from_slice(&head[at]);
            u64::from_le_bytes(bytes)
        };
        Some(Self {
            kind: *Kind::ALL.get(usize::from(head[0]))?,
            seed: number(1..9),
            up: number(9..16),
            down: number(16..23),
            rounds: u16::from_le_bytes([head[23], head[24]]),
            pause: Duration::ZERO,
        })
    }

    /// Plays the client. Errors: what was not as it should be.
    pub(super) fn play(&self, conn: Conn) -> Result<(), String> {
        let stream = conn.stream();
        let mut sent = self.ups();
        let mut due = self.downs();
        // In one segment with what follows where that is small.
        let mut first = self.head().to_vec();
        let begun = if self.kind == Kind::ClientTears {
            0
        } else {
            self.up.min(1000)
        };
        while first.len() < HEAD + usize::try_from(begun).unwrap_or_default() {
            let most = HEAD + usize::try_from(begun).unwrap_or_default() - first.len();
            first.extend_from_slice(sent.next(most));
        }
        send(stream, &first)?;
        match self.kind {
            Kind::Churn | Kind::Rounds | Kind::Lasting => {
                say(stream, &mut sent, self.up - begun)?;
                hear_some(stream, &mut due, self.down)?;
                for _ in 1..self.rounds {
                    say(stream, &mut sent, self.up)?;
                    hear_some(stream, &mut due, self.down)?;
                    sleep(self.pause);
                }
                finish(stream);
                hear_fin(stream, &mut due, 0)
            }
            Kind::Stream => thread::scope(|scope| {
                let talking = scope.spawn(|| {
                    let said = say(stream, &mut sent, self.up - begun);
                    finish(stream);
                    said
                });
                let heard = hear_fin(stream, &mut due, self.down);
                joined(talking).and(heard)
            }),
            Kind::HalfClose | Kind::SlowPod => {
                say(stream, &mut sent, self.up - begun)?;
                finish(stream);
                hear_fin(stream, &mut due, self.down)
            }
            Kind::SlowClient => {
                hear_slowly(stream, &mut due, self.down)?;
                finish(stream);
                hear_fin(stream, &mut due, 0)
            }
            Kind::ClientResets => {
                say(stream, &mut sent, self.up - begun)?;
                hear_ack(stream)?;
                conn.reset();
                Ok(())
            }
            Kind::ClientTears => {
                hear_ack(stream)?;
                say(stream, &mut sent, self.up)?;
                conn.reset();
                Ok(())
            }
            Kind::PodResets => {
                hear_some(stream, &mut due, self.down)?;
                send(stream, ACK)?;
                hear_reset(stream, &mut due, 0)
            }
            Kind::PodTears => hear_reset(stream, &mut due, self.down),
        }
    }

    /// Plays the pod, behind the head. Errors: what was not as it should be.
    pub(super) fn serve(&self, guest: &Guest) -> Result<(), String> {
        let stream = guest.stream();
        let mut due = self.ups();
        let mut sent = self.downs();
        match self.kind {
            Kind::Churn | Kind::Rounds | Kind::Lasting => {
                for _ in 0..self.rounds {
                    hear_some(stream, &mut due, self.up)?;
                    say(stream, &mut sent, self.down)?;
                }
                hear_fin(stream, &mut due, 0)
            }
            Kind::Stream => thread::scope(|scope| {
                let talking = scope.spawn(|| {
                    let said = say(stream, &mut sent, self.down);
                    finish(stream);
                    said
                });
                let heard = hear_fin(stream, &mut due, self.up);
                joined(talking).and(heard)
            }),
            Kind::HalfClose => {
                hear_fin(stream, &mut due, self.up)?;
                say(stream, &mut sent, self.down)
            }
            Kind::SlowClient => {
                hear_some(stream, &mut due, self.up)?;
                say(stream, &mut sent, self.down)?;
                hear_fin(stream, &mut due, 0)
            }
            Kind::SlowPod => {
                hear_slowly(stream, &mut due, self.up)?;
                hear_fin(stream, &mut due, 0)?;
                say(stream, &mut sent, self.down)
            }
            Kind::ClientResets => {
                hear_some(stream, &mut due, self.up)?;
                send(stream, ACK)?;
                hear_reset(stream, &mut due, 0)
            }
            Kind::ClientTears => {
                send(stream, ACK)?;
                hear_reset(stream, &mut due, self.up)
            }
            Kind::PodResets => {
                say(stream, &mut sent, self.down)?;
                hear_ack(stream)?;
                guest.reset_on_close();
                Ok(())
            }
            Kind::PodTears => {
                say(stream, &mut sent, self.down)?;
                guest.reset_on_close();
                Ok(())
            }
        }
    }

    fn ups(&self) -> Noise {
        Noise::new(self.seed * 2)
    }

    fn downs(&self) -> Noise {
        Noise::new(self.seed * 2 + 1)
    }
}

fn joined(talking: thread::ScopedJoinHandle<'_, Result<(), String>>) -> Result<(), String> {
    talking
        .join()
        .unwrap_or_else(|_| Err("the talking thread panicked".to_owned()))
}

fn send(to: &TcpStream, bytes: &[u8]) -> Result<(), String> {
    let mut to = to;
    to.write_all(bytes)
        .map_err(|error| format!("send {} bytes: {error}", bytes.len()))
}

fn say(to: &TcpStream, noise: &mut Noise, count: u64) -> Result<(), String> {
    let sent = AtomicU64::new(0);
    noise
        .pour(to, count, &sent)
        .map_err(|error| format!("send: {error} after {} of {count}", sent.into_inner()))
}

fn finish(to: &TcpStream) {
    let _ = to.shutdown(Shutdown::Write);
}

fn hear(from: &TcpStream, noise: &mut Noise, most: u64) -> Heard {
    noise.hear(from, most, &AtomicU64::new(0))
}

fn due(heard: &Heard, bytes: u64, ended: Ended) -> Result<(), String> {
    let due = Heard {
        bytes,
        wrong_at: None,
        ended,
    };
    if *heard == due {
        return Ok(());
    }
    Err(format!("heard {heard:?}, due {due:?}"))
}

/// Exactly this much, and nothing of an end.
fn hear_some(from: &TcpStream, noise: &mut Noise, count: u64) -> Result<(), String> {
    due(&hear(from, noise, count), count, Ended::Open)
}

fn hear_fin(from: &TcpStream, noise: &mut Noise, count: u64) -> Result<(), String> {
    due(&hear(from, noise, u64::MAX), count, Ended::Eof)
}

/// A reset, behind at most this much.
fn hear_reset(from: &TcpStream, noise: &mut Noise, most: u64) -> Result<(), String> {
    let heard = hear(from, noise, u64::MAX);
    let bytes = heard.bytes.min(most);
    due(&heard, bytes, Ended::Reset)
}

fn hear_slowly(from: &TcpStream, noise: &mut Noise, count: u64) -> Result<(), String> {
    for at in 0..PAUSES {
        let part = count / PAUSES + u64::from(at < count % PAUSES);
        hear_some(from, noise, part)?;
        sleep(PAUSE);
    }
    Ok(())
}

fn hear_ack(mut from: &TcpStream) -> Result<(), String> {
    let mut ack = [0; ACK.len()];
    from.read_exact(&mut ack)
        .map_err(|error| format!("acknowledgement: {error}"))?;
    if ack == ACK {
        Ok(())
    } else {
        Err("another acknowledgement".to_owned())
    }
}
