//! The pods of this host that are down, for a connection that has no other candidate left: dialed one beside the other,
//! a little apart.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::sleep_until;

use crate::flow::header::Preface;
use crate::flow::pod::{Greeting, dial_pod, header_after, to_pod};
use crate::flow::reached::{Held, Reached, Server};
use crate::flow::{Shared, random};
use crate::route::Table;
use crate::route::last_resort::CONNECT;
use crate::route::load::Permit;
use crate::route::peers::Share;
use crate::route::search::{Over, first};
use crate::route::service::{Asker, LastPod, Pod, Service, Tried};

use super::{MAX_TRIES, STAGGER};

/// Dials until one of them takes the connection, except those that were tried. A pod that is up by what another
/// connection found is among them.
///
/// Errors: none does.
pub(super) async fn last_pods(
    shared: &Shared,
    table: &Table,
    service: Service<'_>,
    (asker, mut tried): (Asker, Tried),
    preface: Option<&Preface>,
    share: Option<Share>,
) -> Result<Reached, Over> {
    let came = Instant::now();
    let begins_at = first(random());
    let mut next_at = came;
    let mut over = Over::NoUpstream;
    let mut dials = FuturesUnordered::new();
    loop {
        let mut answered = pin!(shared.answered.notified());
        // Before the look, so that no answer is missed.
        answered.as_mut().enable();
        let now = Instant::now();
        let next = match service.take(asker, random(), now, &mut tried) {
            Ok((pod, permit)) => LastPod::Dial(pod, permit),
            Err(_) if now < next_at => LastPod::Wait(next_at),
            Err(_) if tried.len() >= MAX_TRIES => LastPod::None,
            Err(_) => service.last_pod(begins_at, &mut tried, came, now),
        };
        let until = match next {
            LastPod::Dial(pod, permit) => {
                dials.push(dial(shared, table, service, pod, permit, preface));
                next_at = now + STAGGER;
                Some(next_at)
            }
            LastPod::Wait(until) => Some(until),
            LastPod::None if dials.is_empty() => return Err(over),
            LastPod::None => None,
        };
        tokio::select! {
            Some(dialed) = dials.next() => match dialed {
                Ok(mut reached) => {
                    reached.held.share_in(share);
                    return Ok(reached);
                }
                Err(why) => {
                    over = over.max(why);
                    next_at = Instant::now();
                }
            },
            () = sleep_until(until.unwrap_or(now).into()), if until.is_some() => {}
            () = answered => {}
        }
    }
}

async fn dial(
    shared: &Shared,
    table: &Table,
    service: Service<'_>,
    pod: &Pod,
    permit: Permit,
    preface: Option<&Preface>,
) -> Result<Reached, Over> {
    let began = Instant::now();
    let mut greeting = Greeting::new(service.conf, pod, preface);
    greeting.connect_limit = greeting.connect_limit.min(CONNECT);
    match dial_pod(shared, &pod.upstream, to_pod(&table.conf), greeting).await {
        Ok(upstream) => Ok(Reached {
            upstream,
            server: Server::Pod(Arc::clone(&pod.upstream)),
            send: header_after(pod),
            early: BytesMut::new(),
            held: Held::new(Some(permit), None),
        }),
        Err(over) => {
            pod.upstream.note_failed_dial(began);
            Err(over)
        }
    }
}
