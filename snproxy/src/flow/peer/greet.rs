//! The first bytes of a peer: TLS, or a line.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};

use crate::conf::Conf;
use crate::flow::end::End;
use crate::flow::{Client, Shared, header, peer_tls};
use crate::net::tls::{self, HandshakeError};
use crate::sys::stream::Stream;

use super::{FAREWELL, LINE_LIMIT, SILENCE, UNDER_WAY, farewell, strangers};

/// What TLS begins with: a record of the handshake. Source: RFC 8446 section 5.1. No line of ours does.
const HANDSHAKE: u8 = 22;

/// With PEERTLS: shakes hands with a peer that speaks TLS, and gives the first bytes of one that does not and need not.
///
/// Errors: how it ends.
pub(super) async fn greet(shared: &Arc<Shared>, client: &mut Client) -> Result<BytesMut, End> {
    let table = shared.table.load();
    let (from, asked) = (client.addr.ip(), client.asked.ip());
    let checked = strangers::check(shared, &table, from, asked);
    // One that waits must not keep a table of each reload.
    drop(table);
    if let Err(end) = checked {
        farewell(&client.stream, Duration::ZERO).await;
        return Err(end);
    }
    let waiting = shared.live.wait();
    let start = Instant::now();
    let greeted = {
        let began = AtomicBool::new(false);
        let until = start + SILENCE;
        let mut greeted = pin!(hear(shared, &mut client.stream, from, until, &began));
        if let Ok(greeted) = timeout_at(start + UNDER_WAY, &mut greeted).await {
            greeted
        } else {
            let mut seat = shared.waiting.enter(from);
            tokio::select! {
                biased;
                greeted = &mut greeted => greeted,
                () = seat.taken() => {
                    // While the room is being closed, what has begun is served, as a line is. It has a limit of its own.
                    if began.load(Relaxed) && shared.waiting.is_closed() {
                        greeted.await
                    } else {
                        Err(End::Unused)
                    }
                }
            }
        }
    };
    drop(waiting);
    if let Err(end) = greeted {
        // The alert that says why is to be heard.
        let patience = match end {
            End::TlsClient => {
                // What it sent on meanwhile is read as it is: a close with bytes unread would be a reset.
                client.stream.stop_tls();
                FAREWELL
            }
            _ => Duration::ZERO,
        };
        farewell(&client.stream, patience).await;
    }
    greeted
}

/// The first bytes of a peer, until its handshake is done if they begin one.
async fn hear(
    shared: &Shared,
    peer: &mut Stream,
    from: IpAddr,
    silence: Instant,
    began: &AtomicBool,
) -> Result<BytesMut, End> {
    let mut bytes = BytesMut::new();
    let Some(Ok(1..)) = header::read(peer, &mut bytes, Some(silence)).await else {
        return Err(End::Unused);
    };
    let table = shared.table.load_full();
    let Some(configs) = shared.peer_configs(&table.conf) else {
        return Ok(bytes);
    };
    if bytes.first() != Some(&HANDSHAKE) {
        may_be_plain(shared, &table.conf, from)?;
        return Ok(bytes);
    }
    drop(table);
    began.store(true, Relaxed);
    match tls::accept(peer, &configs.server, &bytes, LINE_LIMIT).await {
        Ok(()) => Ok(BytesMut::new()),
        Err(error) => {
            shared.peer_speech.say_failed(from, &error);
            Err(match error {
                HandshakeError::Timeout { .. } => End::TlsTimeout,
                _ => End::TlsClient,
            })
        }
    }
}

/// Errors: [`End::Request`] where all speak TLS; said now and then, as long as there are others.
pub(super) fn may_be_plain(shared: &Shared, conf: &Conf, from: IpAddr) -> Result<(), End> {
    if peer_tls::may_be_plain(conf) {
        return Ok(());
    }
    shared.peer_speech.say_refused(from);
    Err(End::Request)
}
