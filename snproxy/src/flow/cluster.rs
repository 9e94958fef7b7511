//! A client on a cluster port: find who serves it.

use std::sync::Arc;

use crate::addr::ClusterPort;
use crate::conf::OverLimit;
use crate::pump::{Meter, Rule};

use super::end::End;
use super::header::Opening;
use super::limits::admit;
use super::reach::{Wanted, keep, reach};
use super::timeouts::timeouts;
use super::{Client, Closed, Found, Shared, Stated, Way, random};

/// Finds a pod of the port that a client asked for, on whichever host.
///
/// Errors: how the connection ends, for there is no way.
pub(super) async fn way<'a>(shared: &Arc<Shared>, client: &'a Client) -> Result<Found<'a>, Closed> {
    let found = tokio::select! {
        biased;
        found = search(shared, client) => found,
        end = shared.live.cut_turn(None, random) => Err(end),
    };
    found.map_err(|end| {
        let port = client.asked.port();
        let over_limit = shared.table.load().conf.of_port(port).over_limit;
        if end.is_over_limit() && over_limit == OverLimit::Close {
            Closed::silently(end)
        } else {
            Closed::early(&client.stream, end)
        }
    })
}

async fn search<'a>(shared: &Arc<Shared>, client: &'a Client) -> Result<Found<'a>, End> {
    let Client {
        stream,
        addr,
        asked,
        id,
    } = client;
    let port = ClusterPort::new(asked.port()).ok_or(End::NotMapped)?;
    let mut wanted = Wanted {
        client: *addr,
        asked: *asked,
        until: None,
        has_waited: false,
    };
    let places = tokio::select! {
        biased;
        places = admit(shared, port.get(), &mut wanted) => places?,
        () = stream.broken() => return Err(End::Client),
    };
    let opening = {
        let table = shared.table.load();
        Opening::new(table.conf.of_port(port.get()), *addr, *asked, *id)
    };
    let looked = opening.required(stream).await?;
    // Only now: it may have waited through reloads.
    let table = shared.table.load_full();
    let conf = table.conf.of_port(port.get());
    let reached = tokio::select! {
        biased;
        reached = reach(shared, &table, port, wanted) => reached?,
        () = stream.broken() => return Err(End::Client),
    };
    keep(shared, conf, port, *addr, reached.server.addr());
    let first = Box::pin(opening.decide(stream, looked, reached.send));
    let way = Way {
        rule: Rule {
            mechanism: table.conf.pump,
            timeouts: timeouts(conf, reached.server.sees(), random),
        },
        reached,
        meter: Meter::default(),
        stated: Stated::default(),
        places,
    };
    Ok((Box::new(way), first))
}
