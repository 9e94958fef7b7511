//! A connection on PORT: another proxy asks for a pod of ours, or how many there are.
//!
//! The peer adds or strips PROXY headers; from the answer on the pod's side is a blind pipe, but for one case in
//! `flow/header.rs`. A "no" is a close without a byte, never a reset: the peer goes on to the next host.

mod greet;
mod room;
mod strangers;
#[cfg(test)]
mod tests;

use std::net::{Shutdown, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::task::coop;
use tokio::time::{Instant, timeout, timeout_at};

use crate::addr::ClusterPort;
use crate::pump::{self, Rule};
use crate::route::Table;
use crate::route::service::{Asker, Service};
use crate::sys::stream::Stream;
use crate::wire::Decoded;
use crate::wire::peer::{Reply, Request, decode_request};

use super::end::End;
use super::header::Preface;
use super::limits::{Places, admit_peer};
use super::live::Waiting;
use super::reach::{asker, connect, keep};
use super::reached::Reached;
use super::timeouts::{Sees, timeouts};
use super::{Client, Closed, Found, Opens, Shared, Stated, Way};
use super::{drain_notice, header, questions, random};

use greet::{greet, may_be_plain};
use strangers::Source;

pub use room::Room;

/// How long a line may be under way: until then its connection is none of those that wait.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// How long a peer may say nothing.
const SILENCE: Duration = Duration::from_mins(1);
/// How long a line may take from its first byte on, and an answer to be taken.
const LINE_LIMIT: Duration = Duration::from_secs(3);
/// How long a peer that was told no may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);
/// Most bytes of such a peer that are read and dropped.
const FAREWELL_BYTES: usize = 64 * 1024;

/// Answers a peer until it has its pod.
///
/// Errors: what it stated, and how it ended without one.
pub(super) async fn way(
    shared: &Arc<Shared>,
    table: Arc<Table>,
    client: &mut Client,
) -> Result<Found, (Stated, Closed)> {
    let early = if table.conf.peer_tls.is_some() {
        greet(shared, client)
            .await
            .map_err(|end| (Stated::default(), Closed::silently(end)))?
    } else {
        BytesMut::new()
    };
    let mut caller = Caller {
        shared,
        peer: &client.stream,
        addr: client.addr,
        asked: client.asked,
        bytes: early,
        has_answered: false,
        is_vouched: false,
        waiting: Some(shared.live.wait()),
        stated: Stated::default(),
    };
    let end = match caller.serve(table, client.id).await {
        Ok(found) => return Ok(found),
        Err(end) => end,
    };
    let patience = match end {
        // Nothing of theirs is waited for: they asked for nothing, or may not, or everything ends.
        End::Stranger | End::Request | End::Unused | End::Drain => Duration::ZERO,
        _ => FAREWELL,
    };
    farewell(&client.stream, patience).await;
    Err((caller.stated, Closed::silently(end)))
}

/// Until when a peer may keep silent, and, once it began one, until when its line must be whole.
struct Limit {
    silence: Instant,
    line: Option<Instant>,
}

/// A peer, and what it sent that is not understood yet.
struct Caller<'a> {
    shared: &'a Arc<Shared>,
    peer: &'a Stream,
    addr: SocketAddr,
    asked: SocketAddr,
    bytes: BytesMut,
    /// A question: one that asks again and again does not hold up a drain.
    has_answered: bool,
    /// Of a program of this host: who runs it was looked up, and may use PORT.
    is_vouched: bool,
    /// Until it asks for a pod.
    waiting: Option<Waiting<'a>>,
    stated: Stated,
}

impl Caller<'_> {
    /// Errors: how it ends where no pod was connected, for the peer to hear as a close.
    async fn serve(&mut self, table: Arc<Table>, id: u64) -> Result<Found, End> {
        self.check(&table)?;
        questions::heard_from(self.shared, &table, self.addr.ip());
        // One that waits must not keep a table of each reload.
        drop(table);
        loop {
            // A peer that asks and asks must not keep its worker from the others, however its lines fall into reads.
            coop::consume_budget().await;
            let request = self.request().await?;
            // As it is now: the files may have changed since the last line.
            let table = self.shared.table.load_full();
            self.check(&table)?;
            match request {
                Request::Connect { cluster_port, ends } => {
                    self.waiting = None;
                    self.stated = Stated {
                        cluster_port: Some(cluster_port),
                        client: ends.map(|(client, _)| client),
                    };
                    // Boxed: one that waits must not hold the room for it.
                    return Box::pin(self.connect(table, cluster_port, ends, id)).await;
                }
                Request::Count { cluster_port } => {
                    self.say(self.count(&table, cluster_port)).await?;
                    self.has_answered = true;
                }
                Request::Drain { proxy_port } => {
                    let source = self.addr.ip();
                    drain_notice::verify(self.shared, &table, source, proxy_port).await;
                    self.say(Reply::Drains).await?;
                    self.has_answered = true;
                }
            }
        }
    }

    /// A host that drains has no pods for others, and says so where it is probed: by its own port.
    fn count(&self, table: &Table, cluster_port: ClusterPort) -> Reply {
        if !self.shared.draining.load(Relaxed) {
            return Reply::Pods(pods(table, cluster_port));
        }
        if cluster_port.get() == table.conf.port {
            Reply::Drains
        } else {
            Reply::Pods(0)
        }
    }

    fn check(&mut self, table: &Table) -> Result<(), End> {
        let source = strangers::check(self.shared, table, self.addr.ip(), self.asked.ip())?;
        // Its certificate vouches for it.
        if self.peer.is_tls() {
            return Ok(());
        }
        if source == Source::Local && !self.is_vouched {
            strangers::check_owner(self.shared, self.addr, self.asked)?;
            self.is_vouched = true;
        }
        may_be_plain(self.shared, &table.conf, self.addr.ip())
    }

    /// The next request; who lets us wait for it does so in the waiting room.
    async fn request(&mut self) -> Result<Request, End> {
        if self.has_answered && self.shared.waiting.is_closed() {
            return Err(End::Unused);
        }
        let start = Instant::now();
        let mut limit = Limit {
            silence: start + SILENCE,
            line: None,
        };
        // The host of many clients connects so often at once that its own lines, still under way, would be displaced.
        if let Ok(line) = timeout_at(start + UNDER_WAY, self.line(&mut limit)).await {
            return line;
        }
        let mut seat = self.shared.waiting.enter(self.addr.ip());
        tokio::select! {
            // What has come already is served, though the room is being closed.
            biased;
            line = self.line(&mut limit) => line,
            () = seat.taken() => Err(End::Unused),
        }
    }

    /// One whole line.
    ///
    /// Cancel safety: what was read stays in `bytes`, and how long it may take in `limit`.
    async fn line(&mut self, limit: &mut Limit) -> Result<Request, End> {
        loop {
            match decode_request(&self.bytes) {
                Ok(Decoded::Done { value, used }) => {
                    self.bytes.advance(used);
                    if self.bytes.is_empty() {
                        self.bytes = BytesMut::new();
                    }
                    return Ok(value);
                }
                Ok(Decoded::Partial) => {}
                Err(_) => return Err(End::Request),
            }
            let until = if self.bytes.is_empty() {
                limit.silence
            } else {
                *limit
                    .line
                    .get_or_insert_with(|| Instant::now() + LINE_LIMIT)
            };
            let before = self.bytes.len();
            match header::read(self.peer, &mut self.bytes, Some(until)).await {
                Some(Ok(1..)) => {}
                None | Some(Ok(0)) if before > 0 => return Err(End::Request),
                Some(Err(_)) if before > 0 => return Err(End::Client),
                _ => return Err(End::Unused),
            }
        }
    }

    async fn connect(
        &mut self,
        table: Arc<Table>,
        cluster_port: ClusterPort,
        ends: Option<(SocketAddrV4, SocketAddrV4)>,
        id: u64,
    ) -> Result<Found, End> {
        let (shared, peer) = (self.shared, self.peer);
        let service = table
            .service_for_peers(cluster_port.get())
            .ok_or(End::NotMapped)?;
        // A host that does not say for whom it asks spreads such clients over all pods.
        let client = self.stated.client;
        let preface = Preface::of_peer(ends, cluster_port, id);
        let asker = client.map_or_else(anybody, |client| {
            asker(shared, service.conf, cluster_port, client.into())
        });
        let conf = service.conf;
        let connected = tokio::select! {
            connected = admit_and_connect(shared, &table, service, asker, &preface) => connected,
            () = peer.broken() => Err(End::Client),
            end = shared.live.cut_turn(None, random) => Err(end),
        };
        let (places, reached) = match connected {
            Err(End::Busy) => {
                self.say(Reply::Busy).await?;
                return Err(End::Busy);
            }
            connected => connected?,
        };
        if let Some(client) = client {
            let upstream = reached.server.addr();
            keep(shared, conf, cluster_port, client.into(), upstream);
        }
        let send_proxy = header::version(reached.send).is_some();
        if let Err(end) = self.say(Reply::Accept { send_proxy }).await {
            pump::reset_on_close(&reached.upstream);
            return Err(end);
        }
        let relay = header::Relay {
            cluster_port,
            id,
            wait: conf.proxy_wait,
            send: reached.send,
            tell_header: conf.first_byte_timeout.is_some(),
        };
        let opens = Opens::Peer(relay, std::mem::take(&mut self.bytes));
        let way = Way {
            meter: reached.server.meter(conf),
            reached,
            rule: Rule {
                mechanism: table.conf.pump,
                timeouts: timeouts(conf, Sees::Pod, random),
            },
            stated: self.stated,
            places,
        };
        Ok((Box::new(way), opens))
    }

    /// Errors: the peer is gone, or takes nothing.
    async fn say(&self, reply: Reply) -> Result<(), End> {
        let mut line = BytesMut::new();
        reply.encode(&mut line);
        let said = timeout(LINE_LIMIT, async {
            while !line.is_empty() || self.peer.unsent() > 0 {
                self.peer.writable().await?;
                let sent = if line.is_empty() {
                    self.peer.try_flush()
                } else {
                    self.peer.try_write(&line).map(|sent| line.advance(sent))
                };
                match sent {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        match said.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Client),
        }
    }
}

/// A client of which nothing is known: any pod.
fn anybody() -> Asker {
    Asker {
        key: random(),
        kept: None,
    }
}

/// A place among all connections, and a pod.
async fn admit_and_connect(
    shared: &Arc<Shared>,
    table: &Table,
    service: Service<'_>,
    asker: Asker,
    preface: &Preface,
) -> Result<(Places, Reached), End> {
    let places = admit_peer(shared, service.port.get())?;
    Ok((
        places,
        connect(shared, table, service, asker, Some(preface)).await?,
    ))
}

/// How many pods of `port` take connections, as far as is known.
fn pods(table: &Table, port: ClusterPort) -> u32 {
    let takes = table.service_for_peers(port.get()).map_or(0, |service| {
        let pods = service.pods.iter();
        pods.filter(|pod| pod.upstream.is_up() && pod.max_conn > 0)
            .count()
    });
    u32::try_from(takes).unwrap_or(u32::MAX)
}

/// Ends our side, and reads on until the peer has ended its own: a close with bytes unread would be a reset, and
/// void what was said.
pub(super) async fn farewell(peer: &Stream, patience: Duration) {
    const SINK: usize = 4096;

    peer.end();
    // ENOTCONN: it has reset, and hears nothing any more.
    let _ = peer.shutdown(Shutdown::Write);
    let deadline = Instant::now() + patience;
    let mut left = FAREWELL_BYTES;
    while left > 0 && matches!(timeout_at(deadline, peer.readable()).await, Ok(Ok(()))) {
        match peer.try_read(&mut [0; SINK]) {
            Ok(0) => return,
            Ok(read) => left = left.saturating_sub(read),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
