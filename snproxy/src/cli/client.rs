//! Asks the running proxy over its control socket.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::conf::says_socket;
use crate::daemon;
use crate::diag::Source;
use crate::discovery::Root;

/// Longest answer that is read: the status of 100,000 pods fits.
const MAX_ANSWER: usize = 64 << 20;
/// Most of a proxy.conf that is read.
const MAX_CONF: u64 = 1 << 20;
/// Longest wait for an answer; a reload may have to resolve names.
const LIMIT: Duration = Duration::from_secs(30);

/// The configuration of a proxy of which nothing is known but where it is asked.
pub(super) fn root_at(admin: &str) -> anyhow::Result<Root> {
    if admin.contains(char::is_control) || !says_socket(admin) {
        bail!("--admin {admin:?}: expected a socket such as unix:/run/snproxy/32767.sock");
    }
    let source = |path: &str, text: String| Source {
        path: path.into(),
        text,
    };
    Ok(Root::Said {
        conf: source("--admin", format!("HOST 127.0.0.1\nADMIN {admin}\n")),
        apps: source("--admin", "{\"Apps\":[]}".to_owned()),
    })
}

/// The JSON answer of the proxy that runs with this configuration.
pub(super) fn ask(root: &Root, method: &Method, path: &str) -> anyhow::Result<Bytes> {
    // Only this file says where: the others may be what is wrong.
    let said = match root {
        Root::Apps(said) | Root::Said { conf: said, .. } => said.clone(),
        Root::Conf(conf) => {
            let mut text = Vec::new();
            let file = File::open(conf).with_context(|| conf.display().to_string())?;
            file.take(MAX_CONF).read_to_end(&mut text)?;
            Source::decode(conf, text)
        }
    };
    let socket = daemon::control_socket_of(&said)
        .with_context(|| format!("{root}: no usable ADMIN or PORT, or ADMIN is none"))?;
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
            "connect {}: does snproxy run with this configuration? (a changed PORT or ADMIN is in force after a restart)",
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
