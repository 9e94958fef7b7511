//! What pods hear ahead of TLS.

use std::net::{SocketAddr, SocketAddrV4};

use bytes::BytesMut;

use crate::addr::ClusterPort;
use crate::conf::SendProxy;
use crate::wire::Decoded;
use crate::wire::proxy::{self, ProxyHeader, Version};

use super::{Looked, Opening, Seen, encode, reencode, version};

/// What a pod hears ahead of the TLS handshake: the header cannot wait for whoever is asked for it later.
#[derive(Debug)]
pub(in crate::flow) struct Preface {
    /// The client's own.
    header: Option<BytesMut>,
    /// Client and the address that it opened; `None`: nobody said.
    ends: Option<(SocketAddr, SocketAddr)>,
    cluster_port: Option<ClusterPort>,
    id: u64,
}

/// A header that goes out ahead of TLS.
#[derive(Clone, Debug)]
pub(in crate::flow) enum EarlyHeader {
    Bytes(BytesMut),
    /// The client is unknown: the header speaks for the connection to the pod itself.
    Local(Version),
}

impl EarlyHeader {
    /// The bytes for a connection from `local` to `remote`.
    pub(in crate::flow) fn for_ends(self, local: SocketAddr, remote: SocketAddr) -> BytesMut {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Local(version) => {
                let mut out = BytesMut::new();
                proxy::encode_local(version, local, remote, &mut out);
                out
            }
        }
    }
}

impl Preface {
    /// For a client of this host.
    pub(super) fn of_client(opening: &Opening, looked: &Looked) -> Self {
        let header = match looked.seen {
            Seen::Header(header) => looked.bytes.get(..header).map(BytesMut::from),
            Seen::None | Seen::Silent | Seen::Reset => None,
        };
        Self {
            header,
            ends: Some((opening.client, opening.asked)),
            cluster_port: ClusterPort::new(opening.asked.port()),
            id: opening.id,
        }
    }

    /// For a connection that a peer brought: what its line said.
    pub(in crate::flow) fn of_peer(
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
    pub(in crate::flow) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
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
    pub(in crate::flow) fn is_of_the_client(&self) -> bool {
        self.header.is_some()
    }

    /// `None` for a pod that wants none.
    pub(in crate::flow) fn header(&self, send: SendProxy) -> Option<EarlyHeader> {
        let version = version(send)?;
        if let Some(header) = &self.header {
            let other = reencode(header, version, self.cluster_port, self.id);
            return Some(EarlyHeader::Bytes(other.unwrap_or_else(|| header.clone())));
        }
        let Some((client, asked)) = self.ends else {
            return Some(EarlyHeader::Local(version));
        };
        let mut out = BytesMut::new();
        let header = ProxyHeader::new(client, asked);
        encode(version, &header, self.cluster_port, self.id, &mut out);
        Some(EarlyHeader::Bytes(out))
    }
}
