//! Dials of pods and targets; those of this host from further source addresses once source ports run out.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::yield_now;
use tracing::debug;

use crate::conf::{Conf, PortConf, SendProxy};
use crate::net::dial::{DialError, Options, dial};
use crate::net::own::is_own;
use crate::net::tls::{self, HandshakeError};
use crate::route::dial_from::Source;
use crate::route::search::Over;
use crate::route::service::{Pod, Secured, Upstream};
use crate::sys::stream::Stream;

use super::Shared;
use super::header::{EarlyHeader, Preface};

/// How pods are dialled.
pub(super) fn to_pod(conf: &Conf) -> Options {
    Options {
        from: None,
        keepalive: conf.keepalive,
    }
}

/// How one pod is greeted.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub(super) connect_limit: Duration,
    pub(super) tls_limit: Duration,
    /// Goes ahead of a TLS handshake.
    pub(super) preface: Option<EarlyHeader>,
    /// The pod wants a header ahead of TLS since a reload, and the client was not looked at for one.
    lacks_preface: bool,
}

impl Greeting {
    /// Of a pod that wants `send`; without TLS the PROXY header is no part of it.
    pub(super) fn new(conf: &PortConf, pod: &Pod, preface: Option<&Preface>) -> Self {
        let is_tls = pod.upstream.tls.is_some();
        let lacks_preface = is_tls && pod.send_proxy != SendProxy::No && preface.is_none();
        let preface = preface.filter(|_| is_tls);
        Self {
            lacks_preface,
            connect_limit: conf.connect_timeout,
            tls_limit: conf.tls_timeout,
            preface: preface.and_then(|preface| preface.header(pod.send_proxy)),
        }
    }
}

/// Which header goes ahead of the bytes of a client, once the pod is dialled.
pub(super) fn header_after(pod: &Pod) -> SendProxy {
    if pod.upstream.tls.is_some() {
        SendProxy::No
    } else {
        pod.send_proxy
    }
}

/// One dial, with the TLS handshake if there is one, and what it says of the pod.
///
/// Errors: it was not reached, or is this proxy itself.
pub(super) async fn dial_pod(
    shared: &Shared,
    upstream: &Upstream,
    options: Options,
    greeting: Greeting,
) -> Result<Stream, Over> {
    let limit = greeting.connect_limit;
    if shared.is_loop(upstream.addr) {
        return Err(Over::Loop);
    }
    if greeting.lacks_preface {
        return Err(Over::NoUpstream);
    }
    if upstream.dial_from.is_over() {
        let addr = upstream.addr;
        shared.note_exhausted(&DialError::SourcePorts { addr });
        return Err(Over::SourcePorts);
    }
    let source = upstream.dial_from.first();
    let dialled = match dial(upstream.addr, from(source, options), limit).await {
        // Boxed: few run out of ports.
        Err(DialError::SourcePorts { .. }) => {
            Box::pin(dial_from_others(shared, upstream, source, options, limit)).await
        }
        dialled => noted(shared, upstream, source, dialled),
    };
    let dialled = match (dialled, &upstream.tls) {
        // Boxed: most pods are plain.
        (Ok(stream), Some(tls)) => {
            let addr = upstream.addr;
            let secured = Box::pin(secure(shared, tls, addr, stream, greeting)).await;
            secured.map_err(|source| DialError::Tls { addr, source })
        }
        (dialled, _) => dialled,
    };
    shared.note_dial(upstream, dialled.as_ref());
    dialled.map_err(|error| {
        debug!(%error, "dial");
        shared.note_exhausted(&error);
        match error {
            DialError::SourcePorts { .. } => Over::SourcePorts,
            _ => Over::NoUpstream,
        }
    })
}

/// The TLS handshake with a pod that was just dialled.
async fn secure(
    shared: &Shared,
    tls: &Secured,
    addr: SocketAddr,
    mut stream: Stream,
    greeting: Greeting,
) -> Result<Stream, HandshakeError> {
    let config = shared.tls.load().upstreams.get(&tls.how).cloned();
    let config = config.ok_or(HandshakeError::Unconfigured)?;
    if let Some(header) = greeting.preface {
        let local = stream.local_addr().map_err(HandshakeError::Refused)?;
        let header = header.for_ends(local, addr);
        // Less than any empty send buffer holds.
        let sent = stream.try_write(&header).map_err(HandshakeError::Refused)?;
        if sent < header.len() {
            let short = io::ErrorKind::WriteZero.into();
            return Err(HandshakeError::Refused(short));
        }
    }
    tls::connect(&mut stream, &config, tls.name.clone(), greeting.tls_limit).await?;
    Ok(stream)
}

/// Dials a pod of this host from the other source addresses, after `first` had no port left.
async fn dial_from_others(
    shared: &Shared,
    upstream: &Upstream,
    first: Source,
    options: Options,
    limit: Duration,
) -> Result<Stream, DialError> {
    let addr = upstream.addr;
    // IPv6 has one loopback address, and from loopback no other machine is reached.
    if addr.is_ipv4() && is_own(addr.ip()) {
        for source in upstream.dial_from.others(first) {
            // The kernel searches all ports of an address that has none: others of this worker come in between.
            yield_now().await;
            let dialled = dial(addr, from(source, options), limit).await;
            if !matches!(dialled, Err(DialError::SourcePorts { .. })) {
                return noted(shared, upstream, source, dialled);
            }
        }
    }
    upstream.dial_from.note_over();
    Err(DialError::SourcePorts { addr })
}

/// Takes note of where a dial found a port; what it says of the pod.
fn noted(
    shared: &Shared,
    upstream: &Upstream,
    source: Source,
    dialled: Result<Stream, DialError>,
) -> Result<Stream, DialError> {
    match dialled {
        Ok(stream) => {
            if upstream.dial_from.found(source) {
                shared.note_further(upstream.addr);
            }
            Ok(stream)
        }
        // Behind NAT a pod needs not hear of such an address, or cannot answer it: that is not the pod's fault.
        Err(error) if source.is_further() && !is_answer(&error) => {
            debug!(%error, source = ?source.ip(), "dial");
            upstream.dial_from.note_further_fails();
            let addr = upstream.addr;
            Err(DialError::SourcePorts { addr })
        }
        Err(error) => Err(error),
    }
}

/// Whether the pod's own kernel said no, or this process had no descriptor for it.
fn is_answer(error: &DialError) -> bool {
    match error {
        DialError::Failed { .. } => error.is_refused(),
        DialError::Timeout { .. } => false,
        _ => true,
    }
}

fn from(source: Source, options: Options) -> Options {
    Options {
        from: source.ip().or(options.from),
        ..options
    }
}
