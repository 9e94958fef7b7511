//! A client on a cluster port: pick a pod, dial it, pump.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::debug;

use crate::net::dial::{dial, tune};
use crate::pump::{self, Meter};
use crate::route::Table;
use crate::route::load::Permit;
use crate::route::service::{Exhausted, Pod, Service, Tried};

use super::end::End;
use super::header::Opening;
use super::{Closed, Shared};

/// Most pods that one connection tries.
const MAX_TRIES: usize = 32;
/// Most dials that one connection may wait for to their limit.
const MAX_WAITS: u32 = 4;

/// Carries a client's connection to a pod of the port that it asked for, to its end.
pub(super) async fn carry(
    shared: &Shared,
    table: Arc<Table>,
    client: &TcpStream,
    addr: SocketAddr,
    asked: SocketAddr,
    id: u64,
) -> Closed {
    let Some(service) = table.service(asked.port()) else {
        return Closed::early(client, End::NotMapped);
    };
    let conf = &table.conf;
    tune(client, conf.keepalive);
    let opening = Opening::new(conf, addr, asked, id);
    let reach = async {
        let looked = opening.required(client).await?;
        let connected = tokio::select! {
            connected = connect(shared, &table, service) => connected?,
            () = pump::broken(client) => return Err(End::Client),
        };
        Ok((looked, connected))
    };
    let reached = tokio::select! {
        reached = reach => reached,
        () = shared.live.cut_turn(random()) => Err(End::Drain),
    };
    let (looked, (pod, _permit, upstream)) = match reached {
        Ok(reached) => reached,
        Err(end) => return Closed::early(client, end),
    };
    tune(&upstream, conf.keepalive);
    let send = pod.send_proxy;
    let (idle, upstream_addr) = (conf.idle_timeout, pod.upstream.addr);
    // A connection may outlive a hundred reloads: it must not keep a table of each.
    drop(table);

    let meter = Meter::default();
    let cut = shared.live.cut_turn(random());
    // Boxed: the pump's futures hold it several times over, 2 KiB per connection for as long as it lives (2026-11-20).
    let first = Box::pin(opening.decide(client, looked, send));
    let stop = pump::run(client, &upstream, first, idle, cut, &meter).await;
    Closed::pumped(stop, upstream_addr, &meter)
}

/// Dials pods in the order of the policy until one answers.
pub(super) async fn connect<'t>(
    shared: &Shared,
    table: &'t Table,
    service: Service<'t>,
) -> Result<(&'t Pod, Permit, TcpStream), End> {
    let limit = table.conf.connect_timeout;
    let deadline = Instant::now() + limit * MAX_WAITS;
    let mut tried = Tried::default();
    while tried.len() < MAX_TRIES && Instant::now() < deadline {
        let (pod, permit) = service
            .take(random(), &mut tried)
            .map_err(|none| match none {
                Exhausted::Full => End::Busy,
                Exhausted::Tried => End::NoUpstream,
            })?;
        match dial(pod.upstream.addr, limit).await {
            Ok(upstream) => {
                shared.note(&pod.upstream, true);
                return Ok((pod, permit, upstream));
            }
            Err(error) => {
                debug!(cluster_port = %service.port, %error, "dial");
                if let Some(lives) = error.upstream_lives() {
                    shared.note(&pod.upstream, lives);
                }
            }
        }
    }
    Err(End::NoUpstream)
}

/// Uniform bits for one pick.
pub(super) fn random() -> u64 {
    // Each RandomState differs from the last one of its thread; hashing spreads the difference.
    RandomState::new().hash_one(0u8)
}
