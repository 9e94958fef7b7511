//! Another proxy of the original's kind, written here: what it answers is a script, what it hears is remembered.

use crate::{Conn, Ended, Guest, Host, Pod, Visit, conn::PIECE, eventually, process::locked};
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::sleep,
    time::{Duration, Instant},
};

/// Where proxies reach each other unless PORT says otherwise.
pub const PROXY_PORT: u16 = 32767;
/// More than any request; the original read 56 bytes.
const LONGEST_LINE: usize = 4 << 10;
/// How long a scenario waits for what should be there at once.
const PATIENCE: Duration = Duration::from_secs(15);

/// A proxy that a scenario plays itself; clones are the same one. Pods of its own it has only as far as its script goes.
#[derive(Clone)]
pub struct Peer {
    pod: Pod,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    calls: Mutex<Vec<Arc<Call>>>,
    questions: AtomicUsize,
    on_question: OnceLock<Answer>,
    silence: OnceLock<Duration>,
    /// Connections that were accepted and whose line is not whole.
    waiting: AtomicUsize,
}

type Answer = Box<dyn Fn(&Guest) + Send + Sync>;

/// A connection that asked for a cluster port.
pub struct Call {
    line: Vec<u8>,
    reads: usize,
    heard: Instant,
    visit: Arc<Visit>,
}

impl Peer {
    /// Reads one line of each connection, then does this with the cluster port that the line asks for (0 where it names
    /// none); the connection is closed after it.
    ///
    /// Cluster port 0 is what a snproxy asks to count pods: it is answered as the original does, that has no such port.
    pub fn scripted(script: impl Fn(u16, &Guest) + Send + Sync + 'static) -> Self {
        let heard = Arc::<Heard>::default();
        let remembered = Arc::clone(&heard);
        let pod = Pod::serving(move |guest| {
            let silence = remembered.silence.get().copied();
            remembered.waiting.fetch_add(1, Relaxed);
            let request = request(guest, silence);
            remembered.waiting.fetch_sub(1, Relaxed);
            let Some((line, reads)) = request else {
                return;
            };
            if line.ends_with(b" 0\r\n") {
                remembered.questions.fetch_add(1, Relaxed);
                if let Some(answer) = remembered.on_question.get() {
                    answer(guest);
                }
                return;
            }
            let port = cluster_port(&line);
            let call = Call {
                line,
                reads,
                heard: Instant::now(),
                visit: guest.share_visit(),
            };
            locked(&remembered.calls).push(Arc::new(call));
            script(port, guest);
        });
        Self { pod, heard }
    }

    /// Gives every caller this answer and these first bytes of a pod, in one segment, and records what comes then.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::scripted(move |_, guest| {
            let _ = guest.send(&answer);
            guest.read_all();
        })
    }

    /// Serves nothing: it closes without a byte.
    pub fn closing() -> Self {
        Self::scripted(|_, _| ())
    }

    /// Takes every line and says nothing until the caller gives up.
    pub fn silent() -> Self {
        Self::scripted(|_, guest| drop(guest.read_all()))
    }

    /// Does this with a connection that asks how many pods there are, in place of a close.
    #[must_use]
    pub fn questioned(self, answer: impl Fn(&Guest) + Send + Sync + 'static) -> Self {
        let set = self.heard.on_question.set(Box::new(answer));
        assert!(set.is_ok(), "this peer answers questions already");
        self
    }

    /// Closes connections that say nothing for that long.
    #[must_use]
    pub fn closing_after(self, silence: Duration) -> Self {
        let set = self.heard.silence.set(silence);
        assert!(set.is_ok(), "this peer has a limit already");
        self
    }

    /// Connections that neither side has ended, whatever they asked for.
    pub fn inside(&self) -> usize {
        self.pod.inside()
    }

    /// Those of them that have not said what they want.
    pub fn waiting(&self) -> usize {
        self.heard.waiting.load(Relaxed)
    }

    /// Connections that asked for a cluster port, in the order their lines were read.
    pub fn calls(&self) -> Vec<Arc<Call>> {
        locked(&self.heard.calls).clone()
    }

    /// The call that came as number `index`, from 0. Waits for it to come.
    #[track_caller]
    pub fn call(&self, index: usize) -> Arc<Call> {
        let mut call = None;
        eventually(PATIENCE, &format!("call {index} of a peer"), || {
            call = locked(&self.heard.calls).get(index).cloned();
            call.is_some()
        });
        call.expect("it has come")
    }

    /// The calls that asked for this cluster port.
    pub fn calls_for(&self, port: u16) -> Vec<Arc<Call>> {
        let mut calls = self.calls();
        calls.retain(|call| call.port() == port);
        calls
    }

    /// The first call for this cluster port. Waits for it to come.
    #[track_caller]
    pub fn call_for(&self, port: u16) -> Arc<Call> {
        let mut call = None;
        eventually(PATIENCE, &format!("a call for {port}"), || {
            call = self.calls_for(port).into_iter().next();
            call.is_some()
        });
        call.expect("it has come")
    }

    /// Times that it was asked how many pods it has.
    pub fn questions(&self) -> usize {
        self.heard.questions.load(Relaxed)
    }

    /// Closes its port and its connections, as the end of a process does.
    pub fn stop(&self) {
        self.pod.stop();
    }
}

impl Call {
    /// The request, byte for byte.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// How many reads it took: one for a line that was written at once.
    pub fn reads(&self) -> usize {
        self.reads
    }

    pub fn port(&self) -> u16 {
        cluster_port(&self.line)
    }

    pub fn from(&self) -> SocketAddr {
        self.visit.peer()
    }

    /// When it was accepted.
    pub fn came(&self) -> Instant {
        self.visit.came()
    }

    /// When its line was whole.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// What has come behind the line, at most about 4 KiB of it.
    pub fn payload(&self) -> Vec<u8> {
        self.visit.first_bytes().split_off(self.line.len())
    }

    /// Waits until that many bytes have come behind the line, and gives them.
    #[track_caller]
    pub fn wait_for_payload(&self, count: usize) -> Vec<u8> {
        self.visit.wait_for_bytes((self.line.len() + count) as u64);
        self.payload()
    }

    /// Waits until the caller has ended, and tells how.
    #[track_caller]
    pub fn wait_for_end(&self) -> Ended {
        self.visit.wait_for_end()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visit.fmt(out)
    }
}

impl Guest {
    /// Sends each byte as a segment of its own.
    pub fn dribble(&self, bytes: &[u8]) {
        for byte in bytes {
            let _ = self.send(&[*byte]);
            sleep(PIECE);
        }
    }
}

impl Host {
    /// Lets this proxy answer on the port for proxies, in place of a snproxy.
    #[track_caller]
    pub fn peer(&self, peer: Peer) -> Peer {
        self.pod(PROXY_PORT, peer.pod.clone());
        peer
    }

    /// Opens a connection from here to the port for proxies of another host, as a proxy does.
    #[track_caller]
    pub fn call(&self, other: &Self) -> Conn {
        self.open_locally(other.port(PROXY_PORT))
    }
}

/// The line that the original sends: it tells of no client.
pub fn request_for(port: u16) -> String {
    format!("PROXY TCP4 1.2.3.4 1.2.3.4 123 {port}\r\n")
}

/// One line and the number of reads it took; `None` where the caller ended before it was whole, was silent for longer than
/// this, or says something else.
fn request(guest: &Guest, silence: Option<Duration>) -> Option<(Vec<u8>, usize)> {
    if silence.is_some_and(|limit| !guest.is_readable(limit)) {
        return None;
    }
    let mut bytes = Vec::new();
    let mut chunk = [0; 256];
    for reads in 1.. {
        let count = guest.read(&mut chunk).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        // TLS, for one.
        if !bytes.starts_with(b"P") {
            break;
        }
        if let Some(at) = bytes.windows(2).position(|end| end == b"\r\n") {
            bytes.truncate(at + 2);
            return Some((bytes, reads));
        }
        if bytes.len() > LONGEST_LINE {
            break;
        }
    }
    None
}

/// The sixth field, which is all that the original looks at.
fn cluster_port(line: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(line);
    let port = text
        .split(' ')
        .nth(5)
        .and_then(|port| port.trim_end().parse().ok());
    port.unwrap_or_default()
}
