//! Metrics over TCP, for whoever may connect: nothing else is answered there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::{Asked, found, http, metrics, page, serve, text};
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
        let next = |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(stream, _)| stream);
        let last = Arc::new(Last::default());
        serve(next, move |stream| {
            converse(stream, asked.clone(), Arc::clone(&last))
        })
        .await;
        Ok(())
    }
}

async fn converse(stream: TcpStream, asked: mpsc::Sender<Asked>, last: Arc<Last>) {
    let conversation = http(stream, |request| answer(request, &asked, &last));
    if timeout(CALL_LIMIT, conversation).await.is_err() {
        debug!("a caller took too long for its metrics");
    }
}

async fn answer(
    request: Request<Incoming>,
    asked: &mpsc::Sender<Asked>,
    last: &Last,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        return text(StatusCode::NOT_FOUND, "GET /metrics\n");
    }
    // Held while the daemon is asked: who comes meanwhile gets the same page.
    let mut last = last.lock().await;
    let fresh = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH);
    if let Some((_, page)) = fresh {
        return found(page.clone(), metrics::TYPE);
    }
    match page(asked).await {
        Ok(page) => {
            *last = Some((Instant::now(), page.clone()));
            crate::sys::memory::trim();
            found(page, metrics::TYPE)
        }
        Err(response) => response,
    }
}
