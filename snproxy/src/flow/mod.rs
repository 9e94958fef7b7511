//! One connection, from accept to its [`End`].

mod call;
pub mod cluster;
pub mod drain_notice;
pub mod end;
pub mod header;
pub mod limits;
pub mod live;
pub mod peer;
mod peer_tls;
mod pod;
pub mod questions;
mod reach;
mod reached;
mod seldom;
pub mod spares;
mod timeouts;
mod tls;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream};
use std::pin::{Pin, pin};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use socket2::SockRef;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::field::display;
use tracing::{debug, info, warn};

use crate::addr::{ClusterPort, PortSet, canonical};
use crate::conf::SendProxy;
use crate::net::check::CheckError;
use crate::net::dial::DialError;
use crate::net::own::{OwnAddrs, OwnSources};
use crate::net::tls::Configs;
use crate::pump::{self, Books, First, Meter, Rule, Side, Stop, Timeout};
use crate::route::Table;
use crate::route::health::Event;
use crate::route::persist::Kept;
use crate::route::service::{Service, Upstream};
use crate::route::silence::Source;
use crate::sys::stream::Stream;

use end::{End, Ends};
use header::{HeaderDelays, Looked, Opening, Relay};
use limits::{Limits, Places};
use live::{Alive, Live};
use peer_tls::PeerSpeech;
use questions::Questions;
pub use reach::asker;
use reached::Reached;
use seldom::{LineLimit, Seldom};
use spares::Spares;

/// Ids of connections: two proxies of one host, in one process or two, give different ones to a pod's log.
static IDS: LazyLock<AtomicU64> =
    LazyLock::new(|| AtomicU64::new(u64::from(std::process::id()) << 32));

/// What every connection shares with the daemon.
pub struct Shared {
    /// The routes in force; a connection looks once and keeps what it saw.
    pub table: ArcSwap<Table>,
    pub live: Live,
    pub ends: Ends,
    closings: LineLimits,
    /// Where peers wait that have not asked for anything yet.
    pub waiting: peer::Room,
    /// Peers get no new connections to pods of this host, which is about to end.
    pub draining: AtomicBool,
    strangers: Seldom,
    own_sources: OwnSources,
    exhausted: Seldom,
    portless: Seldom,
    further: Seldom,
    loops: Seldom,
    limited: Seldom,
    handshakes: Seldom,
    /// Some upstream took a connection and did not answer in time.
    has_silence: AtomicBool,
    ejecting: Mutex<()>,
    /// Told when a dial changed what is known of an upstream.
    pub health_changed: Notify,
    /// Told when a host said what it has for a port, or will not say it.
    pub answered: Notify,
    pub questions: Questions,
    pub spares: Spares,
    peer_speech: PeerSpeech,
    pub limits: Arc<Limits>,
    /// For the TLS of the table in force.
    pub tls: ArcSwap<Configs>,
    pub kept: Kept,
    /// Addresses of this host that are not private, for CLIENTPROXY.
    pub own: OwnAddrs,
    pub header_delays: HeaderDelays,
}

impl Shared {
    /// For so many workers.
    pub fn new(table: Table, workers: usize) -> Self {
        Self {
            table: ArcSwap::from_pointee(table),
            live: Live::new(workers),
            ends: Ends::default(),
            closings: std::array::from_fn(|_| LineLimit::default()),
            waiting: peer::Room::default(),
            draining: AtomicBool::new(false),
            strangers: Seldom::default(),
            own_sources: OwnSources::default(),
            exhausted: Seldom::default(),
            portless: Seldom::default(),
            further: Seldom::default(),
            loops: Seldom::default(),
            limited: Seldom::default(),
            handshakes: Seldom::default(),
            has_silence: AtomicBool::new(false),
            ejecting: Mutex::default(),
            health_changed: Notify::new(),
            answered: Notify::new(),
            questions: Questions::default(),
            spares: Spares::default(),
            peer_speech: PeerSpeech::default(),
            limits: Arc::new(Limits::new(std::time::Instant::now())),
            tls: ArcSwap::default(),
            kept: Kept::default(),
            own: OwnAddrs::default(),
            header_delays: HeaderDelays::default(),
        }
    }

    /// Says now and then that this process or host has not what a connection takes.
    fn note_exhausted(&self, error: &DialError) {
        let now = std::time::Instant::now();
        match error {
            DialError::Exhausted { .. } => {
                self.spares.give_way(now);
                if let Some(failed) = self.exhausted.count(now) {
                    warn!(%error, failed, "connections fail for want of descriptors or memory of this host");
                }
            }
            DialError::SourcePorts { .. } => {
                if let Some(failed) = self.portless.count(now) {
                    warn!(
                        %error, failed,
                        "connections fail for want of source ports of this host (more: \
                         net.ipv4.ip_local_port_range, net.ipv4.tcp_tw_reuse=1)"
                    );
                }
            }
            _ => {}
        }
    }

    /// Says now and then that pods see other source addresses of loopback than before.
    fn note_further(&self, upstream: SocketAddr) {
        if self.further.count(std::time::Instant::now()).is_some() {
            info!(%upstream, "its source ports have run out: it is dialled from 127.0.0.2 and further addresses of loopback as well");
        }
    }

    /// Whether a connection to `upstream` would come back to this proxy; said now and then.
    ///
    /// The files were checked, but HOST may wait for a restart, and other files may be in force by now.
    fn is_loop(&self, upstream: SocketAddr) -> bool {
        if !self.table.load().comes_back(upstream) {
            return false;
        }
        if let Some(stopped) = self.loops.count(std::time::Instant::now()) {
            warn!(%upstream, stopped, "a pod or target is a port that this proxy serves: not dialled");
        }
        true
    }

    /// Notes that `upstream`, which took a connection of a client of `port` at `source`, did not answer in time.
    pub fn note_silence(&self, upstream: &Upstream, port: u16, source: IpAddr) {
        self.has_silence.store(true, Relaxed);
        let source = Source::of(source);
        let now = std::time::Instant::now();
        let table = self.table.load();
        // One after the other, so that two do not take down more together than either may.
        let one_by_one = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let may_go_down = table
            .service(port)
            .is_some_and(|service| service.may_eject(upstream, source));
        let error = &"no answer to a client in time";
        let changed = upstream.note_silence(source, error, may_go_down, now);
        drop(one_by_one);
        if changed {
            self.say_changed(upstream, Event::Silent, Some(error));
        }
    }

    /// Notes that the upstream at `addr` answered on a connection that began at `began`.
    fn note_answer(&self, addr: SocketAddr, began: std::time::Instant) {
        // Where no upstream was ever silent, an answer is no news.
        if !self.has_silence.load(Relaxed) {
            return;
        }
        let table = self.table.load();
        for upstream in table.upstreams_at(addr) {
            if upstream.was_silent_before(began) {
                self.note_event(upstream, Event::Served, None);
            }
        }
    }

    /// Notes how a client's dial of `upstream` ended.
    pub fn note_dial<T>(&self, upstream: &Upstream, dialled: Result<T, &DialError>) {
        match dialled.err().map(|error| (error.upstream_lives(), error)) {
            None | Some((Some(true), _)) => self.note_event(upstream, Event::Dialled, None),
            Some((Some(false), error)) => {
                upstream.set_refused(error.is_refused());
                self.note_event(upstream, Event::NotDialled, Some(error));
            }
            Some((None, _)) => {}
        }
    }

    /// Notes how a check of `upstream` ended.
    pub fn note_check(&self, upstream: &Upstream, checked: Result<(), &CheckError>) {
        match checked {
            Ok(()) => self.note_event(upstream, Event::Passed, None),
            Err(error) => {
                upstream
                    .set_refused(matches!(error, CheckError::Dial(error) if error.is_refused()));
                self.note_event(upstream, Event::Missed, Some(error));
            }
        }
    }

    /// The daemon hears of a change.
    fn note_event(&self, upstream: &Upstream, event: Event, error: Option<&dyn fmt::Display>) {
        if upstream.note(event, error, random(), std::time::Instant::now()) {
            self.say_changed(upstream, event, error);
        }
    }

    fn say_changed(&self, upstream: &Upstream, event: Event, error: Option<&dyn fmt::Display>) {
        let reason = match error {
            Some(error) => error.to_string(),
            None if event == Event::Passed => "it passed its check".to_owned(),
            None if event == Event::Served => "it answered a client".to_owned(),
            None => "it took a client's connection".to_owned(),
        };
        let (addr, ports) = (upstream.addr, self.ports_of(upstream));
        if upstream.is_up() {
            info!(event = "upstream_up", upstream = %addr, ports, reason, "pod is up");
        } else {
            warn!(event = "upstream_down", upstream = %addr, ports, reason, "pod is down");
        }
        self.health_changed.notify_one();
        // Connections that found all down may wait for it.
        self.answered.notify_waiters();
    }

    /// The ports that an upstream serves, for the log: the first few, and a count.
    fn ports_of(&self, upstream: &Upstream) -> String {
        const MAX_NAMED: usize = 8;
        let table = self.table.load();
        let serves = |service: &Service<'_>| {
            let mut pods = service.pods.iter();
            pods.any(|pod| ptr::eq(Arc::as_ptr(&pod.upstream), upstream))
        };
        let mut ports = PortSet::new();
        let mut more = 0;
        for service in table.services().filter(serves) {
            if ports.len() < MAX_NAMED {
                ports.insert(service.port.get());
            } else {
                more += 1;
            }
        }
        match more {
            0 => ports.to_string(),
            more => format!("{ports} and {more} more"),
        }
    }
}

/// Whose connection it was, for the closing event.
#[derive(Debug, Default)]
struct Opened {
    /// `None`: a peer did not say.
    client: Option<SocketAddr>,
    /// The proxy that brought it.
    peer: Option<SocketAddr>,
    /// `None`: nobody said.
    cluster_port: Option<u16>,
}

impl Opened {
    fn by(client: SocketAddr) -> Self {
        Self {
            client: Some(client),
            ..Self::default()
        }
    }
}

/// How a connection ended, for the closing event.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) end: End,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Closed {
    /// An end before any upstream was reached: the client is reset, so that it never takes the end for an answer.
    pub(crate) fn early(client: &Stream, end: End) -> Self {
        pump::reset_on_close(client);
        Self::silently(end)
    }

    /// The end of a connection that reached `upstream`, unless it was cut for another one.
    pub(crate) fn pumped(stop: Result<Stop, End>, upstream: SocketAddr, meter: &Meter) -> Self {
        Self {
            end: match stop {
                Ok(Stop::Clean) => End::Clean,
                Ok(Stop::Reset(Side::Client)) => End::Client,
                Ok(Stop::Reset(Side::Upstream)) => End::Upstream,
                Ok(Stop::Timeout(Timeout::Idle)) => End::Idle,
                Ok(Stop::Timeout(Timeout::ClientIdle)) => End::ClientIdle,
                Ok(Stop::Timeout(Timeout::UpstreamIdle)) => End::UpstreamIdle,
                Ok(Stop::Timeout(Timeout::FirstByte)) => End::FirstByte,
                Ok(Stop::Timeout(Timeout::Linger)) => End::Linger,
                Ok(Stop::Timeout(Timeout::Lifetime)) => End::Lifetime,
                Err(cut) => cut,
            },
            upstream: Some(upstream),
            bytes_in: meter.up.load(Relaxed),
            bytes_out: meter.down.load(Relaxed),
        }
    }

    /// An end that the client sees as a plain close.
    pub(crate) fn silently(end: End) -> Self {
        Self {
            end,
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
        }
    }
}

/// Serves one accepted connection until it ends, on the runtime of `worker`; never fails, never panics on what the
/// client sends.
///
/// The connection is live from this call on, before the future is polled: a drain waits for it.
pub fn serve(
    shared: Arc<Shared>,
    worker: usize,
    client: TcpStream,
    addr: SocketAddr,
) -> impl Future<Output = ()> + Send + 'static {
    let alive = Alive::enter(shared, worker);
    async move { carry(alive.shared(), client, addr).await }
}

/// Counts a connection that came above the rate of its port; its close is a reset, as if it had been refused.
pub fn refuse(
    shared: &Arc<Shared>,
    worker: usize,
    client: &TcpStream,
    addr: SocketAddr,
    port: u16,
) {
    let _alive = Alive::enter(Arc::clone(shared), worker);
    let start = Instant::now();
    // Fails only on a socket that is gone already, which needs no reset.
    let _ = SockRef::from(client).set_linger(Some(Duration::ZERO));
    if let Some(refused) = shared.limited.count(start.into_std()) {
        info!(
            port,
            refused, "connections above PORTRATE, this one among them, are refused"
        );
    }
    let opened = Opened {
        cluster_port: Some(port),
        ..Opened::by(canonical(addr))
    };
    conclude(shared, start, &opened, &Closed::silently(End::Rate));
}

/// A connection that was accepted.
pub(crate) struct Client {
    pub(crate) stream: Stream,
    pub(crate) addr: SocketAddr,
    /// The address and port that it opened.
    pub(crate) asked: SocketAddr,
    /// Its id, for the pod's log.
    pub(crate) id: u64,
}

impl Client {
    fn new(stream: TcpStream, addr: SocketAddr) -> Result<Self, End> {
        let stream = Stream::new(stream).map_err(|error| {
            // The kernel watches no more descriptors; the close is a FIN, for nothing else can be had of the socket.
            warn!(%error, client = %addr, "watch a connection");
            End::NoUpstream
        })?;
        // Without one, the client reset while it waited in the accept queue.
        let asked = stream.local_addr().map_err(|_| End::Client)?;
        Ok(Self {
            stream,
            addr,
            asked: canonical(asked),
            id: IDS.fetch_add(1, Relaxed),
        })
    }
}

/// What a peer stated of the connection that it wants carried.
#[derive(Clone, Copy, Debug, Default)]
struct Stated {
    cluster_port: Option<ClusterPort>,
    client: Option<SocketAddrV4>,
}

/// A connection to who serves a client, and how it is pumped.
struct Way {
    reached: Reached,
    rule: Rule,
    meter: Meter,
    /// Of a peer's connection.
    stated: Stated,
    /// Last, so that they are free once the pod's connection is closed.
    #[expect(dead_code, reason = "held for what its drop does")]
    places: Places,
}

/// A way, and how it is decided what goes over it first.
type Found = (Box<Way>, Opens);

/// What it takes to decide what the upstream gets first.
enum Opens {
    Client(Opening, Option<Looked>, SendProxy),
    /// With what came behind the peer's request.
    Peer(Relay, BytesMut),
}

impl Opens {
    fn decide<'s>(
        self,
        shared: &'s Shared,
        from: &'s Stream,
    ) -> Pin<Box<dyn Future<Output = First> + Send + 's>> {
        match self {
            Self::Client(opening, looked, send) => {
                Box::pin(opening.decide(shared, from, looked, send))
            }
            Self::Peer(relay, bytes) => Box::pin(relay.decide(from, bytes)),
        }
    }
}

/// PORT is for peers; every other port that reaches us is a cluster port.
async fn carry(shared: &Arc<Shared>, stream: TcpStream, addr: SocketAddr) {
    let start = Instant::now();
    let mut client = match Client::new(stream, canonical(addr)) {
        Ok(client) => client,
        Err(end) => return conclude(shared, start, &Opened::by(addr), &Closed::silently(end)),
    };
    let table = shared.table.load_full();
    let is_peer = client.asked.port() == table.conf.port;
    let (stated, closed) = carry_to_end(shared, table, &mut client, is_peer).await;
    let opened = if is_peer {
        Opened {
            client: stated.client.map(SocketAddr::V4),
            peer: Some(client.addr),
            cluster_port: stated.cluster_port.map(ClusterPort::get),
        }
    } else {
        Opened {
            cluster_port: Some(client.asked.port()),
            ..Opened::by(client.addr)
        }
    };
    drop(client);
    conclude(shared, start, &opened, &closed);
}

/// Finds a connection its way, and moves bytes over it to the end.
async fn carry_to_end(
    shared: &Arc<Shared>,
    table: Arc<Table>,
    client: &mut Client,
    is_peer: bool,
) -> (Stated, Closed) {
    // Boxed: only until it is over, and a connection that stays has the room of the pump only. The table goes with it: a
    // connection may outlive a hundred reloads.
    let found = if is_peer {
        Box::pin(peer::way(shared, table, client)).await
    } else {
        drop(table);
        let found = Box::pin(cluster::way(shared, client)).await;
        found.map_err(|closed| (Stated::default(), closed))
    };
    let (mut way, opens) = match found {
        Ok(found) => found,
        Err(closed) => return closed,
    };
    let first = opens.decide(shared, &client.stream);
    let early = mem::take(&mut way.reached.early);
    let upstream = &way.reached.upstream;
    let cut = pin!(shared.live.cut_turn(Some(&way.reached.held), random));
    let stop = pump::run(
        &client.stream,
        upstream,
        first,
        early,
        way.rule,
        cut,
        Books::new(&way.meter, way.reached.held.load()),
    )
    .await;
    let server = &way.reached.server;
    // One that answers others is not silent: what this client asked for takes long, or its question is not whole.
    if stop == Ok(Stop::Timeout(Timeout::FirstByte)) && !way.meter.has_answered_others() {
        let stated = way.stated.cluster_port.map(ClusterPort::get);
        let source = way
            .stated
            .client
            .map_or(client.addr.ip(), |client| (*client.ip()).into());
        server.note_silence(shared, stated.unwrap_or(client.asked.port()), source);
    }
    let closed = Closed::pumped(stop, server.addr(), &way.meter);
    (way.stated, closed)
}

fn conclude(shared: &Shared, start: Instant, opened: &Opened, closed: &Closed) {
    shared.ends.count(closed.end);
    if let Some(upstream) = closed.upstream.filter(|_| closed.bytes_out > 0) {
        shared.note_answer(upstream, start.into_std());
    }
    report(&shared.closings, opened, closed, start.elapsed());
}

/// Uniform bits for one pick.
pub fn random() -> u64 {
    // Each RandomState differs from the last one of its thread; hashing spreads the difference.
    RandomState::new().hash_one(0u8)
}

/// The one closing event of a connection. Above a limit of lines for its end it is at debug: strangers could fill the log
/// otherwise.
fn report(limits: &LineLimits, opened: &Opened, closed: &Closed, duration: Duration) {
    let Opened {
        client,
        peer,
        cluster_port,
    } = opened;
    let Closed {
        end,
        upstream,
        bytes_in,
        bytes_out,
    } = closed;
    let client = client.map(display);
    let peer = peer.map(display);
    let upstream = upstream.map(display);
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // Clean ends are the bulk of a busy host's connections, and strangers and those above a rate have a line of their own
    // now and then: these are there for who asks.
    let is_quiet = match end {
        End::Clean | End::Client | End::Upstream | End::Stranger | End::Unused | End::Rate => true,
        // Other proxies ask around, and not all that connects to PORT is one.
        End::NotMapped | End::Request | End::TlsClient | End::TlsTimeout => peer.is_some(),
        _ => false,
    };
    let admit = || limits[*end as usize].admit(std::time::Instant::now());
    let Some(suppressed) = (!is_quiet).then(admit).flatten() else {
        debug!(client, peer, cluster_port, upstream, bytes_in, bytes_out, duration_ms, %end, "closed");
        return;
    };
    let suppressed = (suppressed > 0).then_some(suppressed);
    info!(client, peer, cluster_port, upstream, bytes_in, bytes_out, duration_ms, %end, suppressed, "closed");
}

/// By end.
type LineLimits = [LineLimit; End::ALL.len()];
