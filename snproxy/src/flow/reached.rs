//! A connection to whoever serves a port, and what it holds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use crate::conf::{PortConf, SendProxy};
use crate::pump::{Answers, Meter};
use crate::route::load::{Load, Permit};
use crate::route::peers::{Answer, Share};
use crate::route::sentence::Sentence;
use crate::route::service::Upstream;
use crate::sys::stream::Stream;

use super::Shared;
use super::timeouts::Sees;

/// A connection to whoever serves the port.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) upstream: Stream,
    pub(super) server: Server,
    pub(super) send: SendProxy,
    /// Bytes of the pod that came right behind a host's answer.
    pub(super) early: BytesMut,
    /// The places it takes. Last, so that they are dropped last: a place is free once the pod's connection is closed.
    pub(super) held: Held,
}

impl Answers for Upstream {
    fn note(&self) {
        self.note_answer();
    }

    fn count(&self) -> u32 {
        self.answers()
    }
}

/// Who is at the other end of it.
#[derive(Debug)]
pub(super) enum Server {
    /// Of this host.
    Pod(Arc<Upstream>),
    /// The proxy of another host, at this address.
    Host(SocketAddr),
}

impl Server {
    pub(super) fn addr(&self) -> SocketAddr {
        match self {
            Self::Pod(upstream) => upstream.addr,
            Self::Host(addr) => *addr,
        }
    }

    /// What a client's own host sees of its connection.
    pub(super) fn sees(&self) -> Sees {
        match self {
            Self::Pod(_) => Sees::Both,
            Self::Host(_) => Sees::Client,
        }
    }

    /// Counts the bytes of a connection to it; its answers too where FIRSTBYTETIMEOUT asks whether there are any.
    pub(super) fn meter(&self, conf: &PortConf) -> Meter {
        Meter::of(match self {
            Self::Pod(upstream) if conf.first_byte_timeout.is_some() => {
                Some(Arc::clone(upstream) as Arc<dyn Answers>)
            }
            _ => None,
        })
    }

    /// Notes that a client of `port` at `source` asked, and that no answer began in time.
    pub(super) fn note_silence(&self, shared: &Shared, port: u16, source: IpAddr) {
        match self {
            Self::Pod(upstream) => shared.note_silence(upstream, port, source),
            Self::Host(addr) => {
                let (table, now) = (shared.table.load(), Instant::now());
                let peers = &table.peers;
                let at = peers.list().iter().position(|peer| peer.addr() == *addr);
                if let (Some(at), Some(answers)) = (at, peers.answers(port, now)) {
                    answers.note(at, Answer::Silent, now);
                }
            }
        }
    }
}

/// A place under a pod's maxConn, and one in the books of how load is shared.
#[derive(Debug)]
pub(super) struct Held {
    permit: Option<Permit>,
    share: Option<Share>,
    since: Instant,
}

impl Held {
    pub(super) fn new(permit: Option<Permit>, share: Option<Share>) -> Self {
        Self {
            permit,
            share,
            since: Instant::now(),
        }
    }

    /// From now on it is in these books.
    pub(super) fn share_in(&mut self, share: Option<Share>) {
        self.share = share;
    }

    /// Connections of the pod, if this is a place at one of this host.
    pub(super) fn load(&self) -> Option<&Load> {
        self.permit.as_ref().map(Permit::load)
    }

    /// The one on the connections of the pod, if this is a place at one of this host.
    pub(super) fn sentence(&self) -> Option<Arc<Sentence>> {
        let sentence = self.permit.as_ref()?.load().sentence()?;
        sentence.is_about(self.since).then_some(sentence)
    }
}
