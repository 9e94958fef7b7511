//! A client on a cluster port: find who serves it, pump.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::addr::ClusterPort;
use crate::pump::{self, Meter, Rule};
use crate::route::Table;
use crate::sys::stream::Stream;

use super::end::End;
use super::header::Opening;
use super::reach::{Reached, Wanted, reach};
use super::{Closed, Shared, random};

/// Carries a client's connection to a pod of the port that it asked for, on whichever host, to its end.
pub(super) async fn carry(
    shared: &Arc<Shared>,
    table: Arc<Table>,
    client: &Stream,
    addr: SocketAddr,
    asked: SocketAddr,
    id: u64,
) -> Closed {
    let Some(port) = ClusterPort::new(asked.port()) else {
        return Closed::early(client, End::NotMapped);
    };
    let conf = &table.conf;
    let opening = Opening::new(conf, addr, asked, id);
    let way = async {
        let looked = opening.required(client).await?;
        let reached = tokio::select! {
            biased;
            reached = reach(shared, &table, port, Wanted { client: addr, asked }) => reached?,
            () = client.broken() => return Err(End::Client),
        };
        Ok((looked, reached))
    };
    let reached = tokio::select! {
        biased;
        reached = way => reached,
        () = shared.live.cut_turn(random()) => Err(End::Drain),
    };
    let (looked, reached) = match reached {
        Ok(reached) => reached,
        Err(end) => return Closed::early(client, end),
    };
    let Reached {
        // First, so that it is dropped last: a place is free once the pod's connection is closed.
        held: _held,
        upstream,
        addr: upstream_addr,
        send,
        early,
    } = reached;
    let rule = Rule {
        mechanism: conf.pump,
        idle: conf.idle_timeout,
    };
    // A connection may outlive a hundred reloads: it must not keep a table of each.
    drop(table);

    let meter = Meter::default();
    let cut = shared.live.cut_turn(random());
    // Boxed: the pump's futures hold it several times over, 2 KiB per connection for as long as it lives (2026-11-20).
    let first = Box::pin(opening.decide(client, looked, send));
    let stop = pump::run(client, &upstream, first, early, rule, cut, &meter).await;
    Closed::pumped(stop, upstream_addr, &meter)
}
