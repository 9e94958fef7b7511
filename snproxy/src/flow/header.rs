//! Expect, strip, pass on or make a PROXY header: the only place that decides.
//!
//! The PROXY specification (2020/03/05, section 2) forbids a receiver to guess whether a header is
//! there. `CLIENTPROXY detect` guesses all the same, as users of this configuration are used to;
//! `require` and `never` do not. The guess ends with the first byte that cannot belong to a header.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::addr::ClusterPort;
use crate::conf::{Conf, ProxyMode, SendProxy};
use crate::pump::First;
use crate::wire::Decoded;
use crate::wire::proxy::{self, ProxyHeader, Version};
use crate::wire::proxy_v2::{Tlvs, UniqueId};

use super::end::End;

/// Room for the first read: the longest header and some payload behind it.
const FIRST_READ: usize = 4096;
const _: () = assert!(FIRST_READ > proxy::MAX_HEADER);

/// A client's first bytes, and what they turned out to be.
pub(super) struct Looked {
    seen: Seen,
    bytes: BytesMut,
}

enum Seen {
    /// A header of this many bytes.
    Header(usize),
    /// Payload, or nothing yet.
    None,
    Reset,
}

/// All that it takes to decide what a pod hears first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    client: SocketAddr,
    asked: SocketAddr,
    mode: ProxyMode,
    wait: Duration,
    id: u64,
}

impl Opening {
    pub(super) fn new(conf: &Conf, client: SocketAddr, asked: SocketAddr, id: u64) -> Self {
        Self {
            client,
            asked,
            mode: conf.client_proxy.mode_of(client.ip()),
            wait: conf.proxy_wait,
            id,
        }
    }

    /// For a client that must send a header, its first bytes: before that, no pod hears of it.
    ///
    /// Errors: how the connection ends, for there is no header.
    pub(super) async fn required(&self, client: &TcpStream) -> Result<Option<Looked>, End> {
        if self.mode != ProxyMode::Require {
            return Ok(None);
        }
        let looked = look(client, Some(self.wait), self.wait).await;
        match looked.seen {
            Seen::Header(_) => Ok(Some(looked)),
            Seen::None => Err(End::Header),
            Seen::Reset => Err(End::Client),
        }
    }

    /// Decides what a pod that wants `send` gets before the client's bytes.
    pub(super) async fn decide(
        self,
        client: &TcpStream,
        looked: Option<Looked>,
        send: SendProxy,
    ) -> First {
        let wanted = version(send);
        let Looked { seen, mut bytes } = match (looked, self.mode) {
            (Some(looked), _) => looked,
            (None, ProxyMode::Never) => Looked {
                seen: Seen::None,
                bytes: BytesMut::new(),
            },
            // With nothing to send first, a silent client is waited for: nothing is held up by it.
            (None, _) => look(client, wanted.map(|_| self.wait), self.wait).await,
        };
        let read = bytes.len();
        match (seen, wanted) {
            (Seen::Reset, _) => First::Reset,
            // Forwarded as it came, whichever version the pod asked for.
            (Seen::Header(_), Some(_)) | (Seen::None, None) => First::Bytes { bytes, read },
            (Seen::Header(used), None) => First::Bytes {
                bytes: bytes.split_off(used),
                read,
            },
            (Seen::None, Some(version)) => {
                let mut out = BytesMut::new();
                self.synthesize(version, &mut out);
                out.extend_from_slice(&bytes);
                First::Bytes { bytes: out, read }
            }
        }
    }

    /// Writes the header that tells a pod who its client is.
    fn synthesize(&self, version: Version, out: &mut BytesMut) {
        let id = format!("{:016x}", self.id);
        let tlvs = Tlvs {
            cluster_port: ClusterPort::new(self.asked.port()),
            unique_id: UniqueId::new(id.as_bytes()),
        };
        proxy::encode(
            version,
            &ProxyHeader::new(self.client, self.asked),
            &tlvs,
            out,
        );
    }
}

/// Reads until it is decided whether the client sent a header.
///
/// `silence` is how long a client may say nothing; from its first byte on it has `wait`.
async fn look(client: &TcpStream, silence: Option<Duration>, wait: Duration) -> Looked {
    let mut deadline = silence.map(|silence| Instant::now() + silence);
    let mut bytes = BytesMut::new();
    let seen = loop {
        match read(client, &mut bytes, deadline).await {
            // A pod is told of no header too where the client is silent or done.
            None | Some(Ok(0)) => break Seen::None,
            Some(Err(_)) => break Seen::Reset,
            Some(Ok(got)) if got == bytes.len() => deadline = Some(Instant::now() + wait),
            Some(Ok(_)) => {}
        }
        match proxy::decode(&bytes) {
            Ok(Decoded::Done { used, .. }) => break Seen::Header(used),
            Ok(Decoded::Partial) => {}
            Err(_) => break Seen::None,
        }
    };
    Looked { seen, bytes }
}

/// One read that appends to `bytes`; `None` at the deadline.
async fn read(
    client: &TcpStream,
    bytes: &mut BytesMut,
    deadline: Option<Instant>,
) -> Option<io::Result<usize>> {
    loop {
        let ready = client.readable();
        let ready = match deadline {
            Some(deadline) => timeout_at(deadline, ready).await.ok()?,
            None => ready.await,
        };
        if let Err(error) = ready {
            return Some(Err(error));
        }
        // Only now: a client that says nothing holds no memory.
        // Undecided bytes are fewer than the longest header, so there is room left later.
        if bytes.capacity() == 0 {
            bytes.reserve(FIRST_READ);
        }
        match client.try_read_buf(bytes) {
            // An accepted socket counts as readable until the first look (tokio 1.54).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if bytes.is_empty() {
                    *bytes = BytesMut::new();
                }
            }
            other => return Some(other),
        }
    }
}

/// Which header a pod wants.
pub fn version(send: SendProxy) -> Option<Version> {
    match send {
        SendProxy::No => None,
        SendProxy::V1 => Some(Version::V1),
        SendProxy::V2 => Some(Version::V2),
    }
}
