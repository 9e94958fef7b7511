//! A small HTTP server and a small HTTP client, so that the demonstration needs no other programs.

use anyhow::{Context, bail};
use clap::Args;
use std::{
    io::{BufRead, BufReader, Read, Write, stdout},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread::spawn,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_HEAD: u64 = 16 << 10;

#[derive(Args)]
pub(crate) struct Pod {
    #[arg(long)]
    name: String,
    #[arg(long)]
    port: u16,
    /// Expects a PROXY v1 line before each request, as a pod with sendProxy does.
    #[arg(long)]
    proxy: bool,
}

impl Pod {
    pub(crate) fn serve(self) -> anyhow::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)).context("bind")?;
        eprintln!("{} listens on {}", self.name, self.port);
        let (name, proxy) = (self.name, self.proxy);
        for stream in listener.incoming() {
            let name = name.clone();
            // A connection that goes wrong ends alone.
            spawn(move || {
                stream
                    .map_err(anyhow::Error::from)
                    .and_then(|stream| answer(&stream, &name, proxy))
            });
        }
        Ok(())
    }
}

fn answer(stream: &TcpStream, name: &str, proxy: bool) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.take(LONGEST_HEAD)).lines();
    let mut told = format!("connected from {}", stream.peer_addr()?);
    if proxy {
        let line = lines.next().context("a PROXY line")??;
        told = match line.split(' ').collect::<Vec<_>>()[..] {
            ["PROXY", "TCP4" | "TCP6", source, _, port, cluster_port] => {
                format!(
                    "told by the PROXY header that the client is {source}:{port} and asked for {cluster_port}"
                )
            }
            _ => format!("told `{line}`"),
        };
    }
    while !lines
        .next()
        .context("the end of the request's head")??
        .is_empty()
    {}
    let body = format!("pod {name}: {told}\n");
    let length = body.len();
    write!(
        &*stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

/// Prints the body of an answer.
pub(crate) fn get(url: &str) -> anyhow::Result<()> {
    let rest = url.strip_prefix("http://").context("a URL with http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).with_context(|| format!("connect to {host}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        bail!("no HTTP answer")
    };
    stdout().write_all(&answer[end + 4..])?;
    Ok(())
}
