//! Expect, strip, pass on or make a PROXY header: the only place that decides.
//!
//! The PROXY specification (2020/03/05, section 2) forbids a receiver to guess whether a header is
//! there. `CLIENTPROXY detect` guesses all the same, as users of this configuration are used to;
//! `require` and `never` do not. The guess ends with the first byte that cannot belong to a header.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io;
use tokio::time::{Instant, timeout_at};

use crate::addr::ClusterPort;
use crate::conf::{PortConf, ProxyMode, SendProxy};
use crate::pump::First;
use crate::sys::stream::Stream;
use crate::wire::Decoded;
use crate::wire::proxy::{self, ProxyHeader, Version};
use crate::wire::proxy_v2::{Tlvs, UniqueId};

use super::end::End;

/// Room for the first read: the longest header and some payload behind it.
const FIRST_READ: usize = 4096;
const _: () = assert!(FIRST_READ > proxy::MAX_HEADER);

/// How a v1 header starts, and no v2 header does.
const V1_START: &[u8] = b"P";

/// A client's first bytes, and what they turned out to be.
#[derive(Debug)]
pub(super) struct Looked {
    seen: Seen,
    bytes: BytesMut,
}

#[derive(Debug)]
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
    pub(super) fn new(conf: &PortConf, client: SocketAddr, asked: SocketAddr, id: u64) -> Self {
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
    pub(super) async fn required(&self, client: &Stream) -> Result<Option<Looked>, End> {
        if self.mode != ProxyMode::Require {
            return Ok(None);
        }
        let looked = look(client, BytesMut::new(), Some(self.wait), self.wait);
        // Boxed: few clients have to.
        let looked = Box::pin(looked).await;
        match looked.seen {
            Seen::Header(_) => Ok(Some(looked)),
            Seen::None => Err(End::Header),
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
        let looked = match (looked, self.mode) {
            (Some(looked), _) => looked,
            (None, ProxyMode::Never) => Looked {
                seen: Seen::None,
                bytes: BytesMut::new(),
            },
            (None, _) => look(client, BytesMut::new(), Some(silence), self.wait).await,
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
        let header = match looked.seen {
            Seen::Header(header) => looked.bytes.get(..header).map(BytesMut::from),
            Seen::None | Seen::Reset => None,
        };
        Preface {
            header,
            ends: Some((self.client, self.asked)),
            cluster_port: ClusterPort::new(self.asked.port()),
            id: self.id,
        }
    }

    /// Decides what a pod that wants `send` gets before the client's bytes.
    pub(super) async fn decide(
        self,
        client: &Stream,
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
            (None, _) => {
                let silence = wanted.map(|_| self.wait);
                look(client, BytesMut::new(), silence, self.wait).await
            }
        };
        let read = bytes.len();
        match (seen, wanted) {
            (Seen::Reset, _) => First::Reset,
            // Forwarded as it came, whichever version the pod asked for.
            (Seen::Header(header), Some(_)) => First::Bytes {
                bytes,
                read,
                header,
            },
            (Seen::None, None) => First::Bytes {
                bytes,
                read,
                header: 0,
            },
            (Seen::Header(header), None) => First::Bytes {
                bytes: bytes.split_off(header),
                read,
                header,
            },
            (Seen::None, Some(version)) => {
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
            Seen::None | Seen::Reset => 0,
        };
        self.bytes.split_off(header.min(self.bytes.len()))
    }
}

/// What a pod hears ahead of the TLS handshake: the header cannot wait for whoever is asked for it later.
#[derive(Debug)]
pub(super) struct Preface {
    /// The client's own.
    header: Option<BytesMut>,
    /// Client and the address that it opened; `None`: nobody said.
    ends: Option<(SocketAddr, SocketAddr)>,
    cluster_port: Option<ClusterPort>,
    id: u64,
}

impl Preface {
    /// For a connection that a peer brought: what its line said.
    pub(super) fn of_peer(
        ends: Option<(SocketAddrV4, SocketAddrV4)>,
        cluster_port: ClusterPort,
        id: u64,
    ) -> Self {
        Self {
            header: None,
            ends: ends.map(|(client, asked)| (client.into(), asked.into())),
            cluster_port: Some(cluster_port),
            id,
        }
    }

    /// Client and the address that it opened, as pods hear of them.
    pub(super) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let header = self.header.as_deref().map(proxy::decode);
        match header {
            Some(Ok(Decoded::Done {
                value: Some(header),
                ..
            })) => Some((header.source, header.destination)),
            // It names nobody: those of the connection are the true ones.
            _ => self.ends,
        }
    }

    /// Whether the client sent a header of its own.
    pub(super) fn is_of_the_client(&self) -> bool {
        self.header.is_some()
    }

    /// `None` for a pod that wants none.
    pub(super) fn header(&self, send: SendProxy) -> Option<BytesMut> {
        let version = version(send)?;
        if let Some(header) = &self.header {
            return Some(header.clone());
        }
        let mut out = BytesMut::new();
        match self.ends {
            Some((client, asked)) => {
                let header = ProxyHeader::new(client, asked);
                encode(version, &header, self.cluster_port, self.id, &mut out);
            }
            None => proxy::encode_unknown(version, &mut out),
        }
        Some(out)
    }
}

/// The same for a connection that a peer brought: the peer made, passed on or stripped the header already.
///
/// The wire between proxies says only whether there is one, so that a peer sends v1 where the pod wants v2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relay {
    pub(super) cluster_port: ClusterPort,
    pub(super) id: u64,
    pub(super) wait: Duration,
    pub(super) send: SendProxy,
    /// Whether it has to be told where the header ends.
    pub(super) tell_header: bool,
}

impl Relay {
    /// Decides what the pod gets first; `bytes` came behind the peer's request.
    pub(super) async fn decide(self, peer: &Stream, bytes: BytesMut) -> First {
        let wanted = version(self.send);
        if wanted.is_none() || wanted == Some(Version::V1) && !self.tell_header {
            return First::Bytes {
                read: bytes.len(),
                bytes,
                header: 0,
            };
        }
        // A silent peer holds nothing up: the pod's bytes flow meanwhile.
        let Looked { seen, mut bytes } = look(peer, bytes, None, self.wait).await;
        let read = bytes.len();
        match seen {
            Seen::Reset => First::Reset,
            Seen::Header(used) if wanted == Some(Version::V2) && bytes.starts_with(V1_START) => {
                let mut out = BytesMut::new();
                if let Ok(Decoded::Done {
                    value: Some(header),
                    ..
                }) = proxy::decode(&bytes)
                {
                    let cluster_port = Some(self.cluster_port);
                    encode(Version::V2, &header, cluster_port, self.id, &mut out);
                } else {
                    // It names nobody.
                    proxy::encode_unknown(Version::V2, &mut out);
                }
                out.extend_from_slice(&bytes.split_off(used));
                First::Bytes {
                    bytes: out,
                    read,
                    header: used,
                }
            }
            Seen::Header(header) => First::Bytes {
                bytes,
                read,
                header,
            },
            Seen::None => First::Bytes {
                bytes,
                read,
                header: 0,
            },
        }
    }
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
            // A pod is told of no header too where the client is silent or done.
            None | Some(Ok(0)) => break Seen::None,
            Some(Err(_)) => break Seen::Reset,
            Some(Ok(got)) if got == bytes.len() => deadline = Some(Instant::now() + wait),
            Some(Ok(_)) => {}
        }
    };
    Looked { seen, bytes }
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

#[cfg(test)]
mod tests;
