//! The control socket: HTTP/1.1 over a unix socket, for the commands and for `curl --unix-socket`.
//!
//! Only root and the daemon's own user are answered; the addresses of ADMIN answer everybody, with metrics and nothing
//! else. What is asked goes to the daemon, which alone knows; nothing here has state.

pub mod api;
mod callers;
mod metrics;
mod open;

pub use open::MetricsListener;

use std::convert::Infallible;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::Mode;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{debug, warn};

/// What a command asks of the daemon; the answer goes back through the sender.
pub enum Asked {
    Configuration(oneshot::Sender<api::Configuration>),
    Status(oneshot::Sender<api::Status>),
    Ports(oneshot::Sender<api::Ports>),
    Routes(oneshot::Sender<api::Routes>),
    /// The way of a connection to a port from an address.
    Explain(u16, Option<IpAddr>, oneshot::Sender<api::Explain>),
    Reload(oneshot::Sender<api::Reload>),
}

/// How long a caller may take to send its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Longest head of a request, and most of its fields.
const MAX_REQUEST: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Said to a caller who comes at the end.
const STOPPING: &str = "stopping\n";
/// Callers at once; more wait in the socket's queue.
const MAX_CALLERS: usize = 32;

/// The bound control socket; dropping it removes the file.
pub struct Socket {
    listener: std::os::unix::net::UnixListener,
    file: SocketFile,
}

/// The file of a bound control socket.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Whether the file is still there, and not another one in its place.
    pub fn is_in_place(&self) -> bool {
        identity(&self.path).is_ok_and(|now| now == self.identity)
    }
}

/// Device and inode of what stands at `path`.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Connects to a socket without waiting for a place in its queue.
fn call(path: &Path) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&socket2::SockAddr::unix(path)?)
}

impl Socket {
    /// Binds `path` with mode 0600 in a folder of mode 0700 (made when missing).
    ///
    /// Errors: `AddrInUse` when another process answers there; a socket that nobody answers is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        // Nothing but a socket that nobody answers: what else stands there is precious to somebody, and bind() refuses it.
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            match call(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?;
                }
                _ => return Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        // By the mask rather than afterwards by name: the name may be another file by then.
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = std::os::unix::net::UnixListener::bind(path);
        rustix::process::umask(mask);
        let listener = bound?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            file: SocketFile {
                path: path.to_owned(),
                identity: identity(path)?,
            },
        })
    }

    /// The file that clients connect to.
    pub fn file(&self) -> &SocketFile {
        &self.file
    }

    /// Answers callers until dropped.
    pub async fn serve(self, asked: mpsc::Sender<Asked>) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let next = |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(stream, _)| stream);
        serve(next, move |stream| converse(stream, asked.clone())).await;
        Ok(())
    }
}

/// Answers callers until dropped, some at once.
async fn serve<S, F>(
    next: impl Fn(&mut Context<'_>) -> Poll<io::Result<S>>,
    converse: impl Fn(S) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CALLERS));
    let mut failing = false;
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let conversation = converse(accepted(&next, &mut failing).await);
        tokio::spawn(async move {
            conversation.await;
            drop(place);
        });
    }
}

/// Gives each connection to `serve`, until dropped.
async fn accept<S>(
    next: impl Fn(&mut Context<'_>) -> Poll<io::Result<S>>,
    mut serve: impl FnMut(S),
) {
    let mut failing = false;
    loop {
        serve(accepted(&next, &mut failing).await);
    }
}

/// The next connection; rests as long as there is an error.
async fn accepted<S>(
    next: impl Fn(&mut Context<'_>) -> Poll<io::Result<S>>,
    failing: &mut bool,
) -> S {
    loop {
        match poll_fn(&next).await {
            Ok(accepted) => {
                *failing = false;
                return accepted;
            }
            Err(error) => {
                if !std::mem::replace(failing, true) {
                    warn!(%error, "accept a question: resting until it works again");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may be gone, with its folder, at the end of a container, or be a successor's: then it is not ours to remove.
        if self.file.is_in_place() {
            let _ = fs::remove_file(&self.file.path);
        }
    }
}

async fn converse(stream: UnixStream, asked: mpsc::Sender<Asked>) {
    match stream.peer_cred() {
        Ok(peer) if may_ask(peer.uid()) => {}
        Ok(peer) => {
            return warn!(
                uid = peer.uid(),
                "a stranger was turned away from the control socket"
            );
        }
        Err(error) => return warn!(%error, "caller of the control socket unknown"),
    }
    http(stream, |request| answer(request, asked.clone())).await;
    // The status of 61,744 ports leaves 14 MiB that nothing asks for again.
    crate::sys::memory::trim();
}

/// Reads one question and writes its answer.
async fn http<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_LIMIT)
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a caller left early");
    }
}

fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

async fn answer(request: Request<Incoming>, asked: mpsc::Sender<Asked>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/configuration") => ask(&asked, Asked::Configuration).await,
        (&Method::GET, "/status") => ask(&asked, Asked::Status).await,
        (&Method::GET, "/ports") => ask(&asked, Asked::Ports).await,
        (&Method::GET, "/routes") => ask(&asked, Asked::Routes).await,
        (&Method::GET, "/explain") => match asks(request.uri().query().unwrap_or("")) {
            Some((port, from)) => ask(&asked, |reply| Asked::Explain(port, from, reply)).await,
            None => text(StatusCode::BAD_REQUEST, "expected port=N&from=ADDRESS\n"),
        },
        (&Method::GET, "/metrics") => match page(&asked).await {
            Ok(page) => in_form(page, metrics::form_for(&request)),
            Err(response) => response,
        },
        (&Method::POST, "/reload") => ask(&asked, Asked::Reload).await,
        _ => text(
            StatusCode::NOT_FOUND,
            "GET /configuration, GET /status, GET /ports, GET /routes, GET /explain?port=N, GET /metrics, POST /reload\n",
        ),
    }
}

/// Of a query: the port, and whose connection it would be.
fn asks(query: &str) -> Option<(u16, Option<IpAddr>)> {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let from = match value("from") {
        None => None,
        Some(from) => Some(from.parse::<IpAddr>().ok()?.to_canonical()),
    };
    Some((value("port")?.parse().ok()?, from))
}

/// Puts a question to the daemon; `None` where that ends.
async fn asked_for<T>(
    asked: &mpsc::Sender<Asked>,
    question: impl FnOnce(oneshot::Sender<T>) -> Asked,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    asked.send(question(reply)).await.ok()?;
    answer.await.ok()
}

/// A question, and its answer as JSON.
async fn ask<T: Serialize>(
    asked: &mpsc::Sender<Asked>,
    question: impl FnOnce(oneshot::Sender<T>) -> Asked,
) -> Response<Full<Bytes>> {
    let Some(answer) = asked_for(asked, question).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, STOPPING);
    };
    match serde_json::to_vec(&answer) {
        Ok(json) => found(json, "application/json"),
        Err(error) => {
            warn!(%error, "encode an answer of the control socket");
            text(StatusCode::INTERNAL_SERVER_ERROR, "not encodable\n")
        }
    }
}

/// The status as metrics.
///
/// Errors: what is said in its place.
async fn page(asked: &mpsc::Sender<Asked>) -> Result<Bytes, Response<Full<Bytes>>> {
    let Some(status) = asked_for(asked, Asked::Status).await else {
        return Err(text(StatusCode::SERVICE_UNAVAILABLE, STOPPING));
    };
    metrics::page(status).map(Bytes::from).map_err(|error| {
        warn!(%error, "encode the metrics");
        text(StatusCode::INTERNAL_SERVER_ERROR, "not encodable\n")
    })
}

/// The page of metrics, in the form that the caller asked for.
fn in_form(page: Bytes, form: &'static str) -> Response<Full<Bytes>> {
    if form == metrics::OPEN_METRICS {
        return found(page, form);
    }
    found(metrics::to_text(&String::from_utf8_lossy(&page)), form)
}

fn found(body: impl Into<Bytes>, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_socket_that_nobody_answers_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(Socket::bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

        fs::remove_file(&path).unwrap();
        let first = Socket::bind(&path).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            Socket::bind(&path).err().unwrap().kind(),
            io::ErrorKind::AddrInUse
        );

        fs::rename(&path, folder.path().join("aside")).unwrap();
        let second = Socket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists(), "the file of a successor is not removed");
        drop(second);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        assert!(Socket::bind(&path).is_ok());
    }
}
