//! Expect, strip, pass on or make a PROXY header: the only place that decides.
//!
//! The PROXY specification (2020/03/05, section 2) forbids a receiver to guess whether a header is
//! there. `CLIENTPROXY detect` guesses all the same, as users of this configuration are used to, for
//! clients of the sources that it names; `require` and `never` do not. The guess ends with the first
//! byte that cannot belong to a header.

mod delays;
mod preface;
mod relay;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io;
use tokio::time::{Instant, timeout_at};

use crate::addr::ClusterPort;
use crate::conf::{HeaderRule, PortConf, ProxyMode, SendProxy};
use crate::pump::First;
use crate::sys::stream::Stream;
use crate::wire::Decoded;
use crate::wire::proxy::{self, ProxyHeader, Version};
use crate::wire::proxy_v2::{self, Tlvs, UniqueId};

use super::end::End;
use super::{Client, Shared};

pub use delays::HeaderDelays;
pub(super) use preface::{EarlyHeader, Preface};
pub(super) use relay::Relay;

/// Room for the first read: the longest header and some payload behind it.
const FIRST_READ: usize = 4096;
const _: () = assert!(FIRST_READ > proxy::MAX_HEADER);

/// A client's first bytes, and what they turned out to be.
#[derive(Debug)]
pub(super) struct Looked {
    seen: Seen,
    bytes: BytesMut,
    /// Bytes of the client's header that are not in `bytes`: it may not say them.
    stripped: usize,
}

#[derive(Debug)]
enum Seen {
    /// A header of this many bytes.
    Header(usize),
    /// Payload, or no more bytes.
    None,
    /// No byte in time.
    Silent,
    Reset,
}

/// All that it takes to decide what a pod hears first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    client: SocketAddr,
    asked: SocketAddr,
    rule: HeaderRule,
    wait: Duration,
    id: u64,
}

impl Opening {
    pub(super) fn new(shared: &Shared, conf: &PortConf, client: &Client) -> Self {
        // Who opens an address of this host from the same one is this host.
        let is_own = |ip| ip == client.asked.ip() || shared.own.contains(ip);
        Self {
            client: client.addr,
            asked: client.asked,
            rule: conf.header_rule(client.addr.ip(), is_own),
            wait: conf.proxy_wait,
            id: client.id,
        }
    }

    /// For a client that must send a header, its first bytes: before that, no pod hears of it.
    ///
    /// Errors: how the connection ends, for there is no header.
    pub(super) async fn required(&self, client: &Stream) -> Result<Option<Looked>, End> {
        if self.rule.mode != ProxyMode::Require {
            return Ok(None);
        }
        // Boxed: few clients have to.
        let looked = Box::pin(self.read_header(client, Some(self.wait))).await;
        match looked.seen {
            Seen::Header(_) => Ok(Some(looked)),
            Seen::None | Seen::Silent => Err(End::Header),
            Seen::Reset => Err(End::Client),
        }
    }

    /// The client's first bytes, before any pod is reached: of TLS that ends here, or goes on from here.
    ///
    /// `silence`: how long a client may say nothing. Errors: the client reset.
    pub(super) async fn look(
        &self,
        client: &Stream,
        looked: Option<Looked>,
        silence: Duration,
    ) -> Result<Looked, End> {
        let looked = match looked {
            Some(looked) => looked,
            None => self.read_header(client, Some(silence)).await,
        };
        match looked.seen {
            Seen::Reset => Err(End::Client),
            _ => Ok(looked),
        }
    }

    /// How long a client may say nothing before its header is made for it.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// What pods hear ahead of TLS.
    pub(super) fn preface(&self, looked: &Looked) -> Preface {
        Preface::of_client(self, looked)
    }

    /// Notes that the header of a silent client had to wait, if it had to.
    pub(super) fn note_delay(&self, shared: &Shared, looked: &Looked) {
        if matches!(looked.seen, Seen::Silent) && !self.wait.is_zero() {
            let port = self.asked.port();
            shared.header_delays.note(self.client, port, self.wait);
        }
    }

    /// Reads the client's header, if it may send one.
    async fn read_header(&self, client: &Stream, silence: Option<Duration>) -> Looked {
        if self.rule.mode == ProxyMode::Never {
            return Looked {
                seen: Seen::None,
                bytes: BytesMut::new(),
                stripped: 0,
            };
        }
        let mut looked = look(client, BytesMut::new(), silence, self.wait).await;
        if !self.rule.is_listed {
            looked.strip_identity();
        }
        looked
    }

    /// Decides what a pod that wants `send` gets before the client's bytes.
    pub(super) async fn decide(
        self,
        shared: &Shared,
        client: &Stream,
        looked: Option<Looked>,
        send: SendProxy,
    ) -> First {
        let wanted = version(send);
        let looked = if let Some(looked) = looked {
            looked
        } else {
            // With nothing to send first, a silent client is waited for: nothing is held up by it.
            let silence = wanted.map(|_| self.wait);
            let looked = self.read_header(client, silence).await;
            self.note_delay(shared, &looked);
            looked
        };
        let Looked {
            seen,
            mut bytes,
            stripped,
        } = looked;
        let read = bytes.len() + stripped;
        match (seen, wanted) {
            (Seen::Reset, _) => First::Reset,
            (Seen::Header(header), Some(version)) => {
                let port = ClusterPort::new(self.asked.port());
                let own = bytes.get(..header).unwrap_or_default();
                if let Some(mut other) = reencode(own, version, port, self.id) {
                    other.extend_from_slice(&bytes.split_off(header));
                    bytes = other;
                }
                First::Bytes {
                    bytes,
                    read,
                    header: header + stripped,
                }
            }
            (Seen::None | Seen::Silent, None) => First::Bytes {
                bytes,
                read,
                header: 0,
            },
            (Seen::Header(header), None) => First::Bytes {
                bytes: bytes.split_off(header),
                read,
                header: header + stripped,
            },
            (Seen::None | Seen::Silent, Some(version)) => {
                let mut out = BytesMut::new();
                self.synthesize(version, &mut out);
                out.extend_from_slice(&bytes);
                First::Bytes {
                    bytes: out,
                    read,
                    header: 0,
                }
            }
        }
    }

    /// Writes the header that tells a pod who its client is.
    fn synthesize(&self, version: Version, out: &mut BytesMut) {
        let header = ProxyHeader::new(self.client, self.asked);
        let cluster_port = ClusterPort::new(self.asked.port());
        encode(version, &header, cluster_port, self.id, out);
    }
}

impl Looked {
    /// What came behind the header, which is no part of it any more.
    pub(super) fn split_payload(&mut self) -> BytesMut {
        let header = match self.seen {
            Seen::Header(header) => header,
            Seen::None | Seen::Silent | Seen::Reset => 0,
        };
        self.bytes.split_off(header.min(self.bytes.len()))
    }

    /// Takes out of a header what only a listed sender may say.
    fn strip_identity(&mut self) {
        let Seen::Header(header) = self.seen else {
            return;
        };
        let own = self.bytes.get(..header).unwrap_or_default();
        let Some(mut kept) = proxy::strip_identity(own) else {
            return;
        };
        self.seen = Seen::Header(kept.len());
        self.stripped = header - kept.len();
        kept.extend_from_slice(&self.bytes.split_off(header));
        self.bytes = kept;
    }
}

/// Returns a header that came in the form that the pod wants, or `None` where it stays as it came.
///
/// v1 becomes v2, which can say all of it. v2 stays v2 for a v1 pod: v1 has no room for its TLVs,
/// Simplenetes passes it on unchanged, and receivers tell the two forms apart.
fn reencode(
    header: &[u8],
    version: Version,
    cluster_port: Option<ClusterPort>,
    id: u64,
) -> Option<BytesMut> {
    if version == Version::V1 || !proxy::is_v1(header) {
        return None;
    }
    let mut out = BytesMut::new();
    match proxy::decode(header) {
        Ok(Decoded::Done {
            value: Some(header),
            ..
        }) => encode(version, &header, cluster_port, id, &mut out),
        // UNKNOWN.
        _ => proxy_v2::encode_local(&mut out),
    }
    Some(out)
}

fn encode(
    version: Version,
    header: &ProxyHeader,
    cluster_port: Option<ClusterPort>,
    id: u64,
    out: &mut BytesMut,
) {
    let id = format!("{id:016x}");
    let tlvs = Tlvs {
        cluster_port,
        unique_id: UniqueId::new(id.as_bytes()),
    };
    proxy::encode(version, header, &tlvs, out);
}

/// Reads until it is decided whether the client sent a header, after `bytes` of it were read already.
///
/// `silence` is how long a client may say nothing; from its first byte on it has `wait`.
async fn look(
    client: &Stream,
    mut bytes: BytesMut,
    silence: Option<Duration>,
    wait: Duration,
) -> Looked {
    let limit = if bytes.is_empty() {
        silence
    } else {
        Some(wait)
    };
    let mut deadline = limit.map(|limit| Instant::now() + limit);
    let seen = loop {
        match proxy::decode(&bytes) {
            Ok(Decoded::Done { used, .. }) => break Seen::Header(used),
            Ok(Decoded::Partial) => {}
            Err(_) => break Seen::None,
        }
        match read(client, &mut bytes, deadline).await {
            None if bytes.is_empty() => break Seen::Silent,
            // A pod is told of no header too where the client is done, or stops within one.
            None | Some(Ok(0)) => break Seen::None,
            Some(Err(_)) => break Seen::Reset,
            Some(Ok(got)) if got == bytes.len() => deadline = Some(Instant::now() + wait),
            Some(Ok(_)) => {}
        }
    };
    Looked {
        seen,
        bytes,
        stripped: 0,
    }
}

/// One read that appends to `bytes`; `None` at the deadline.
pub(super) async fn read(
    client: &Stream,
    bytes: &mut BytesMut,
    deadline: Option<Instant>,
) -> Option<io::Result<usize>> {
    loop {
        // Before it is known that there is something: mostly there is.
        match client.try_read_buf(bytes, FIRST_READ) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return Some(other),
        }
        let ready = client.readable();
        let ready = match deadline {
            Some(deadline) => timeout_at(deadline, ready).await.ok()?,
            None => ready.await,
        };
        if let Err(error) = ready {
            return Some(Err(error));
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
