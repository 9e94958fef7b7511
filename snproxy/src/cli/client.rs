//! Asks the running proxy over its control socket.

use std::borrow::Cow;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::admin::api::Configuration;
use crate::conf::says_socket;
use crate::daemon;
use crate::diag::{Source, printable, steers_terminal};
use crate::discovery::Root;

use super::output::err;
use super::show;

/// Longest answer that is read: the status of 100,000 pods fits.
const MAX_ANSWER: usize = 64 << 20;
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
    let conf = root
        .conf(None)
        .map_err(|found| anyhow::anyhow!("{found}"))?;
    let socket = match daemon::control_socket_of(&conf) {
        Ok(socket) => socket.with_context(|| format!("{root}: ADMIN is none"))?,
        Err(wrong) => {
            show(&wrong);
            bail!("{root}: unknown control socket; correct the line above, or set --admin");
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = async {
        if let Some(ours) = root.file() {
            check_configuration(&socket, &ours, method).await?;
        }
        exchange(&socket, method, path).await?.success()
    };
    runtime
        .block_on(async { tokio::time::timeout(LIMIT, answer).await })
        .with_context(|| format!("no answer from {}", socket.display()))?
}

/// Reports a process that runs with another configuration: two may name the same socket.
///
/// # Errors
/// Fails if the process must not be changed for that reason.
async fn check_configuration(socket: &Path, ours: &Path, method: &Method) -> anyhow::Result<()> {
    let Answer { status, body } = exchange(socket, &Method::GET, "/configuration").await?;
    // Older versions do not report it.
    let Ok(theirs) = serde_json::from_slice::<Configuration>(&body) else {
        return Ok(());
    };
    let shown = match &theirs.file {
        Some(file) if !status.is_success() || is_same(ours, Path::new(file)) => return Ok(()),
        Some(file) => printable(file).into_owned(),
        None => "no file".to_owned(),
    };
    let message = format!(
        "the process at {} runs with {shown}, not with {}",
        socket.display(),
        ours.display()
    );
    if *method != Method::GET {
        let socket = socket.display();
        bail!("{message}: nothing was done; --admin unix:{socket} addresses it all the same");
    }
    err!("snproxy: warning: {message}");
    Ok(())
}

/// Whether two paths lead to the same file.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

/// What a process has answered.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Answer {
    fn success(self) -> anyhow::Result<Bytes> {
        let Self { status, body } = self;
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body).trim_end());
        }
        Ok(escaped(&String::from_utf8_lossy(&body)).into())
    }
}

async fn exchange(socket: &Path, method: &Method, path: &str) -> anyhow::Result<Answer> {
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
    Ok(Answer { status, body })
}

/// JSON in which the texts have no character that steers a terminal; the encoder escaped those of ASCII but DEL.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if steers_terminal(c) && c > ' ' {
            // All of them are in the first plane.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// An answer as a value, with texts that can be printed: names, keys and messages come from anywhere.
pub(super) fn parse<T: DeserializeOwned>(answer: &[u8]) -> anyhow::Result<T> {
    let mut answer: Value = serde_json::from_slice(answer)?;
    make_printable(&mut answer);
    Ok(serde_json::from_value(answer)?)
}

fn make_printable(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(safe) = printable(text) {
                *text = safe;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(make_printable),
        Value::Object(fields) => fields.values_mut().for_each(make_printable),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_steer_no_terminal() {
        let text = "a\x1b[2J\u{9b}b\x7f\u{202e}\n";
        let json = serde_json::to_string(&[text]).unwrap();
        let sent = escaped(&json);
        assert!(!sent.contains(steers_terminal), "{sent}");
        let same: Vec<String> = serde_json::from_str(&sent).unwrap();
        assert_eq!(same, [text]);
        let shown: Vec<String> = parse(sent.as_bytes()).unwrap();
        assert_eq!(shown, ["a\\u{1b}[2J\\u{9b}b\\u{7f}\\u{202e}\\n"]);
    }
}
