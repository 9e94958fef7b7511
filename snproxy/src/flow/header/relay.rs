//! The header of a connection that a peer brought.

use std::time::Duration;

use bytes::BytesMut;

use crate::addr::ClusterPort;
use crate::conf::SendProxy;
use crate::pump::First;
use crate::sys::stream::Stream;
use crate::wire::proxy::Version;

use super::{Looked, Seen, look, reencode, version};

/// The same for a connection that a peer brought: the peer made, passed on or stripped the header already.
///
/// The wire between proxies says only whether there is one, so that a peer sends v1 where the pod wants v2.
#[derive(Clone, Copy, Debug)]
pub(in crate::flow) struct Relay {
    pub(in crate::flow) cluster_port: ClusterPort,
    pub(in crate::flow) id: u64,
    pub(in crate::flow) wait: Duration,
    pub(in crate::flow) send: SendProxy,
    /// Whether it has to be told where the header ends.
    pub(in crate::flow) tell_header: bool,
}

impl Relay {
    /// Decides what the pod gets first; `bytes` came behind the peer's request.
    pub(in crate::flow) async fn decide(self, peer: &Stream, bytes: BytesMut) -> First {
        let payload = |bytes: BytesMut, read: usize| First::Bytes {
            bytes,
            read,
            header: 0,
        };
        let version = match version(self.send) {
            None => return payload(bytes.clone(), bytes.len()),
            Some(Version::V1) if !self.tell_header => return payload(bytes.clone(), bytes.len()),
            Some(version) => version,
        };
        // A silent peer holds nothing up: the pod's bytes flow meanwhile.
        let Looked {
            seen, mut bytes, ..
        } = look(peer, bytes, None, self.wait).await;
        let read = bytes.len();
        match seen {
            Seen::Reset => First::Reset,
            Seen::None | Seen::Silent => payload(bytes, read),
            Seen::Header(header) => {
                let port = Some(self.cluster_port);
                let own = bytes.get(..header).unwrap_or_default();
                if let Some(mut other) = reencode(own, version, port, self.id) {
                    other.extend_from_slice(&bytes.split_off(header));
                    bytes = other;
                }
                First::Bytes {
                    bytes,
                    read,
                    header,
                }
            }
        }
    }
}
