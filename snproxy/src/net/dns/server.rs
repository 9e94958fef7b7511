//! One question to one name server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use super::message::{Question, Reply, Said, UDP_SIZE};

/// How long a server that did not answer is asked after the others.
const SILENCE_MEMORY: Duration = Duration::from_secs(30);
/// How long a server without EDNS is asked without it: it may be replaced.
const EDNS_MEMORY: Duration = Duration::from_mins(10);

/// A name server, and how it answered.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When it last left a question without an answer.
    silent: Option<Instant>,
    /// When it last showed that it does not know EDNS.
    plain: Option<Instant>,
}

/// Whether a message has an EDNS record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Edns,
    Plain,
}

impl Server {
    pub(super) fn new(addr: SocketAddr) -> Self {
        let state = Mutex::default();
        Self { addr, state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that it has not answered in time.
    pub(super) fn note_silence(&self) {
        self.state().silent = Some(Instant::now());
    }

    /// Whether another server is asked first.
    pub(super) fn is_silent(&self) -> bool {
        let silent = self.state().silent;
        silent.is_some_and(|at| at.elapsed() < SILENCE_MEMORY)
    }

    /// The form of message that it is known to understand; EDNS until it shows otherwise.
    pub(super) fn form(&self) -> Form {
        match self.state().plain {
            Some(at) if at.elapsed() < EDNS_MEMORY => Form::Plain,
            _ => Form::Edns,
        }
    }

    fn note_answer(&self) {
        self.state().silent = None;
    }

    /// Records that it answers messages without EDNS only.
    pub(super) fn note_plain(&self) {
        self.state().plain = Some(Instant::now());
    }

    /// Asks the server. Has no limit in time: a late answer is as good as another.
    ///
    /// # Errors
    ///
    /// Returns why another server must be asked.
    ///
    /// # Cancel safety
    ///
    /// Yes; the question is lost.
    pub(super) async fn ask(
        &self,
        question: &Question,
        form: Form,
        use_tcp: bool,
    ) -> Result<Said, Failure> {
        let mut form = form;
        loop {
            let mut reply = Reply::Truncated;
            if !use_tcp {
                reply = self.by_udp(question, form).await?;
            }
            if matches!(reply, Reply::Truncated) {
                reply = self.by_tcp(question, form).await?;
            }
            self.note_answer();
            match reply {
                Reply::Said(said) => return Ok(said),
                Reply::NoEdns if form == Form::Edns => {
                    self.note_plain();
                    form = Form::Plain;
                }
                Reply::NoEdns => return Err(self.refusal("does not understand the question")),
                Reply::Failure(rcode) => return Err(self.refusal(&format!("answers {rcode}"))),
                Reply::Referral => return Err(self.refusal("refers to other servers")),
                Reply::Foreign | Reply::Truncated => {
                    return Err(self.refusal("answers another question"));
                }
            }
        }
    }

    async fn by_udp(&self, question: &Question, form: Form) -> io::Result<Reply> {
        let (id, bytes) = encode(question, form)?;
        let any: IpAddr = match self.addr {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // A port of its own for each question: with the identifier that is what a forger must guess.
        let socket = UdpSocket::bind((any, 0)).await?;
        // The kernel drops what others send, and reports a port on which no server listens.
        socket.connect(self.addr).await?;
        socket.send(&bytes).await?;
        let mut buffer = [0; UDP_SIZE as usize];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let reply = question.decode(id, &buffer[..length])?;
            if !matches!(reply, Reply::Foreign) {
                return Ok(reply);
            }
        }
    }

    /// Layout: each message follows its length, two bytes. Source: RFC 1035 section 4.2.2.
    async fn by_tcp(&self, question: &Question, form: Form) -> io::Result<Reply> {
        let (id, bytes) = encode(question, form)?;
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut stream = TcpStream::connect(self.addr).await?;
        let message = [&length.to_be_bytes(), &*bytes].concat();
        stream.write_all(&message).await?;
        let length = stream.read_u16().await?;
        // 64 KiB at most.
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await?;
        question.decode(id, &reply)
    }

    fn refusal(&self, why: &str) -> Failure {
        Failure {
            error: io::Error::other(format!("name server {} {why}", self.addr.ip())),
            is_answer: true,
        }
    }
}

fn encode(question: &Question, form: Form) -> io::Result<(u16, Vec<u8>)> {
    let with_edns = form == Form::Edns;
    question.encode(with_edns).map_err(io::Error::other)
}

/// Why a server is of no use for a question.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: io::Error,
    /// Whether a server answered: for another name it may have more to say.
    pub(super) is_answer: bool,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let is_answer = false;
        Self { error, is_answer }
    }
}
