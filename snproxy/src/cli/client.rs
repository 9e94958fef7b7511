//! Asks the running proxy over its control socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::{daemon, discovery};

/// Longest answer that is read: the status of 100,000 pods fits.
const MAX_ANSWER: usize = 64 << 20;
/// Longest wait for an answer; a reload may have to resolve names.
const LIMIT: Duration = Duration::from_secs(30);

/// The JSON answer of the proxy that runs with this configuration.
pub(super) fn ask(conf: &Path, method: &Method, path: &str) -> anyhow::Result<Bytes> {
    let sources = discovery::read(conf).map_err(|found| {
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", found.join("\n"))
    })?;
    let socket = daemon::control_socket_of(&sources.proxy)
        .with_context(|| format!("{}: no usable ADMIN or PORT", conf.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(async { tokio::time::timeout(LIMIT, exchange(&socket, method, path)).await })
        .with_context(|| format!("no answer from {}", socket.display()))?
}

async fn exchange(socket: &Path, method: &Method, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "connect {}: does snproxy run with this configuration?",
            socket.display()
        )
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "snproxy")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.with_context(|| {
        format!(
            "ask {}: only root and the user that snproxy runs as are answered",
            socket.display()
        )
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    let body = body
        .map_err(|error| anyhow::anyhow!("read the answer: {error}"))?
        .to_bytes();
    if !status.is_success() {
        bail!("{status}: {}", String::from_utf8_lossy(&body).trim_end());
    }
    Ok(body)
}
