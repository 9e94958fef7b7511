//! A client on a cluster port: find who serves it.

use std::sync::Arc;

use crate::addr::ClusterPort;
use crate::conf::{OverLimit, SendProxy};
use crate::pump::Rule;
use crate::route::Table;
use crate::route::service::Pod;

use super::end::End;
use super::header::{Opening, Preface};
use super::limits::admit;
use super::reach::{Wanted, keep, reach};
use super::timeouts::timeouts;
use super::tls::terminate;
use super::{Client, Closed, Found, Opens, Shared, Stated, Way, random};

/// Finds a pod of the port that a client asked for, on whichever host.
///
/// Errors: how the connection ends, for there is no way.
pub(super) async fn way(shared: &Arc<Shared>, client: &mut Client) -> Result<Found, Closed> {
    let found = tokio::select! {
        biased;
        found = search(shared, client) => found,
        end = shared.live.cut_turn(None, random) => Err(end),
    };
    found.map_err(|end| {
        let port = client.asked.port();
        let over_limit = shared.table.load().conf.of_port(port).over_limit;
        let is_closed = end.is_over_limit() && over_limit == OverLimit::Close;
        // Who failed at TLS has been told why, which a reset would take back.
        if is_closed || matches!(end, End::TlsClient | End::TlsTimeout) {
            Closed::silently(end)
        } else {
            Closed::early(&client.stream, end)
        }
    })
}

async fn search(shared: &Arc<Shared>, client: &mut Client) -> Result<Found, End> {
    let (addr, asked) = (client.addr, client.asked);
    let port = ClusterPort::new(asked.port()).ok_or(End::NotMapped)?;
    let mut wanted = Wanted {
        client: addr,
        asked,
        until: None,
        has_waited: false,
        preface: None,
    };
    let places = tokio::select! {
        biased;
        places = admit(shared, port.get(), &mut wanted) => places?,
        () = client.stream.broken() => return Err(End::Client),
    };
    let conf = Arc::clone(shared.table.load().conf.of_port(port.get()));
    let opening = Opening::new(shared, &conf, client);
    let mut looked = opening.required(&client.stream).await?;
    if let Some(tls) = &conf.client_tls {
        // Boxed: most ports are plain.
        let ended = terminate(shared, client, &conf, tls, opening, looked);
        looked = Some(Box::pin(ended).await?);
    }
    drop(conf);
    let stream = &client.stream;
    // Only now: it may have waited through reloads.
    let table = shared.table.load_full();
    let conf = table.conf.of_port(port.get());
    let preface = if wants_preface(&table, port) {
        let looking = opening.look(stream, looked, opening.wait());
        let seen = Box::pin(looking).await?;
        opening.note_delay(shared, &seen);
        let preface = opening.preface(&seen);
        looked = Some(seen);
        Some(Box::new(preface))
    } else {
        // Pods of other hosts are to hear of the same client. For them alone no client is waited for.
        let seen = looked.as_ref().filter(|_| conf.upstream_tls.is_some());
        let preface = seen.map(|seen| opening.preface(seen));
        preface.filter(Preface::is_of_the_client).map(Box::new)
    };
    wanted.preface = preface.as_deref();
    let reached = tokio::select! {
        biased;
        reached = reach(shared, &table, port, wanted) => reached?,
        () = stream.broken() => return Err(End::Client),
    };
    keep(shared, conf, port, addr, reached.server.addr());
    let opens = Opens::Client(opening, looked, reached.send);
    let way = Way {
        rule: Rule {
            mechanism: table.conf.pump,
            timeouts: timeouts(conf, reached.server.sees(), random),
        },
        meter: reached.server.meter(conf),
        reached,
        stated: Stated::default(),
        places,
    };
    Ok((Box::new(way), opens))
}

/// Whether some pod of the port is to hear a PROXY header ahead of TLS.
fn wants_preface(table: &Table, port: ClusterPort) -> bool {
    let conf = table.conf.of_port(port.get());
    let wants = |pod: &Pod| pod.upstream.tls.is_some() && pod.send_proxy != SendProxy::No;
    let service = || table.service(port.get());
    conf.upstream_tls.is_some() && service().is_some_and(|service| service.pods.iter().any(wants))
}
