//! Metrics over TCP, for whoever may connect: nothing else is answered there.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::callers::{Caller, Callers};
use super::{Asked, accept, http, in_form, metrics, page, text};
use crate::conf::Family;
use crate::net::listener;

/// How long one call may take in all: a caller that does not read its answer holds a place.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a page is good for other callers too: however many ask, the daemon is asked twice a second.
const FRESH: Duration = Duration::from_millis(500);
/// After which a caller that is not heard of any more is found to be gone.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// A bound address at which metrics are given.
pub struct MetricsListener(std::net::TcpListener);

/// The last page, and when it was made.
type Last = Mutex<Option<(Instant, Bytes)>>;

impl MetricsListener {
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        listener::bind(addr, Family::Any, Some(KEEPALIVE)).map(Self)
    }

    /// Answers callers until dropped.
    pub async fn serve(self, asked: mpsc::Sender<Asked>) -> io::Result<()> {
        let listener = TcpListener::from_std(self.0)?;
        let next = |cx: &mut Context<'_>| listener.poll_accept(cx);
        let (last, callers) = (Arc::new(Last::default()), Callers::default());
        accept(next, |(stream, addr)| {
            let caller = callers.enter(addr.ip());
            let (asked, last) = (asked.clone(), Arc::clone(&last));
            tokio::spawn(async move {
                tokio::select! {
                    () = converse(stream, &caller, &asked, &last) => {}
                    () = caller.has_to_leave() => {}
                }
            });
        })
        .await;
        Ok(())
    }
}

async fn converse(stream: TcpStream, caller: &Caller, asked: &mpsc::Sender<Asked>, last: &Last) {
    let conversation = http(stream, |request| {
        caller.is_busy();
        answer(request, asked, last)
    });
    if timeout(CALL_LIMIT, conversation).await.is_err() {
        debug!("a caller took too long for its metrics");
    }
}

/// Whether a request is for this host by a name that no other site can have: a page in a browser on this network could
/// read the metrics otherwise, by a name of its own that leads here (DNS rebinding).
fn is_for_this_host(request: &Request<Incoming>) -> bool {
    let Some(host) = request.headers().get(HOST) else {
        // HTTP/1.0, which no browser speaks.
        return true;
    };
    host.to_str()
        .is_ok_and(|host| is_own_name(host, rustix::system::uname().nodename()))
}

/// An address, `localhost` or the name of this host, with or without a port.
fn is_own_name(host: &str, own: &CStr) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let own = own.to_str().unwrap_or("");
    let is_name = |other: &str| !other.is_empty() && name.eq_ignore_ascii_case(other);
    bare.unwrap_or(name).parse::<IpAddr>().is_ok() || is_name("localhost") || is_name(own)
}

async fn answer(
    request: Request<Incoming>,
    asked: &mpsc::Sender<Asked>,
    last: &Last,
) -> Response<Full<Bytes>> {
    if !is_for_this_host(&request) {
        let only = "Host: expected an address, localhost or the name of this host\n";
        return text(StatusCode::MISDIRECTED_REQUEST, only);
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read || request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "GET /metrics\n");
    }
    let form = metrics::form_for(&request);
    // Held while the daemon is asked: who comes meanwhile gets the same page.
    let mut last = last.lock().await;
    let fresh = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH);
    if let Some((_, page)) = fresh {
        return in_form(page.clone(), form);
    }
    match page(asked).await {
        Ok(page) => {
            *last = Some((Instant::now(), page.clone()));
            crate::sys::memory::trim();
            in_form(page, form)
        }
        Err(response) => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_sites_are_not_own() {
        for host in [
            "127.0.0.1",
            "10.0.0.1:9180",
            "[::1]",
            "[fd00::1]:9180",
            "::1",
            "localhost",
            "LocalHost:9180",
            "node-1",
            "node-1:9180",
        ] {
            assert!(is_own_name(host, c"node-1"), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9180",
            "node-1.evil.example",
            "",
            ":80",
            "localhost.",
        ] {
            assert!(!is_own_name(host, c"node-1"), "{host}");
            assert!(!is_own_name(host, c""), "{host}");
        }
    }
}
