//! A client on a cluster port: find who serves it, pump.

use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;

use crate::addr::ClusterPort;
use crate::pump::{self, First, Meter, Rule};
use crate::route::Table;

use super::end::End;
use super::header::Opening;
use super::reach::{Reached, Wanted, reach};
use super::{Client, Closed, Shared, random};

/// A connection to who serves the port, and how it is pumped.
struct Way {
    reached: Reached,
    rule: Rule,
    meter: Meter,
}

/// What goes to the pod first.
type Deciding<'a> = Pin<Box<dyn Future<Output = First> + Send + 'a>>;

/// Carries a client's connection to a pod of the port that it asked for, on whichever host, to its end.
pub(super) async fn carry(shared: &Arc<Shared>, table: Arc<Table>, client: &Client) -> Closed {
    let mut cut = pin!(shared.live.cut_turn(random));
    // Boxed: only until it is over, and a connection that stays has the room of the pump only. The table goes with it: a
    // connection may outlive a hundred reloads.
    let way = Box::pin(way(shared, table, client));
    let way = tokio::select! {
        biased;
        way = way => way,
        () = &mut cut => Err(End::Drain),
    };
    let (mut way, first) = match way {
        Ok(reached) => reached,
        Err(end) => return Closed::early(&client.stream, end),
    };
    let early = mem::take(&mut way.reached.early);
    let upstream = &way.reached.upstream;
    let stop = pump::run(
        &client.stream,
        upstream,
        first,
        early,
        way.rule,
        cut,
        &way.meter,
    )
    .await;
    Closed::pumped(stop, way.reached.addr, &way.meter)
}

/// Errors: how the connection ends, for there is no way.
async fn way<'a>(
    shared: &Arc<Shared>,
    table: Arc<Table>,
    client: &'a Client,
) -> Result<(Box<Way>, Deciding<'a>), End> {
    let Client {
        stream,
        addr,
        asked,
        id,
    } = client;
    let port = ClusterPort::new(asked.port()).ok_or(End::NotMapped)?;
    let opening = Opening::new(table.conf.of_port(port.get()), *addr, *asked, *id);
    let looked = opening.required(stream).await?;
    let wanted = Wanted {
        client: *addr,
        asked: *asked,
    };
    let reached = tokio::select! {
        biased;
        reached = reach(shared, &table, port, wanted) => reached?,
        () = stream.broken() => return Err(End::Client),
    };
    let first: Deciding<'_> = Box::pin(opening.decide(stream, looked, reached.send));
    let way = Way {
        reached,
        rule: Rule::new(&table.conf, port.get()),
        meter: Meter::default(),
    };
    Ok((Box::new(way), first))
}
