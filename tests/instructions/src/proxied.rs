//! Connections through the proxy, over sockets of the loopback device.

use std::env;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use snproxy::conf::Family;
use snproxy::flow::live::Live;
use snproxy::flow::{self, Shared};
use snproxy::net::listener;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::table::table;
use crate::{done, mark};

const CONNECTIONS: u32 = 300;
const REQUESTS: u32 = 2000;
/// Blocks of 64 KiB.
const BLOCKS: u32 = 1024;
const KEEPALIVE: Duration = Duration::from_mins(1);

/// As those of the daemon's workers, so that events are looked for as often.
const EVENT_INTERVAL: u32 = 32;

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build()
        .expect("a runtime");
    Live::work_as(0);
    runtime.block_on(count());
}

async fn count() {
    let mut ends = Ends::start();
    let pod: u16 = ends.line().await.parse().expect("the pod's port");
    let serve = |pump| {
        let port = serve(pod, pump);
        format!("to {port}")
    };

    ends.ask(&serve("adaptive")).await;
    let name = "connection with one request of 64 B";
    ends.count(name, "connections", CONNECTIONS).await;
    ends.ask("open").await;
    let name = "request and response of 64 B";
    ends.count(name, "requests", REQUESTS).await;
    ends.ask("close").await;
    for pump in ["copy", "splice", "adaptive"] {
        ends.ask(&serve(pump)).await;
        ends.ask("open").await;
        ends.ask("flow 2048").await;
        for way in ["up", "down"] {
            let name = format!("64 KiB of bulk, PUMP {pump}, {way}");
            ends.count(&name, way, BLOCKS).await;
        }
        ends.ask("close").await;
    }
    ends.end();
}

/// Serves a port for ever, whose only pod is this one, and gives the port.
fn serve(pod: u16, pump: &str) -> u16 {
    let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let listener = listener::bind(any, Family::Any, Some(KEEPALIVE)).expect("listen");
    let port = listener.local_addr().expect("its address").port();
    let mappings = format!("{port}:{pod}:1000000:false\n");
    let keys = format!("CLUSTERPORTS {port}\nPUMP {pump}\n");
    let shared = Arc::new(Shared::new(table(&keys, &mappings), 1));
    tokio::spawn(async move {
        let accepting = listener::accept(
            Arc::new(listener),
            |_| 4,
            |stream, addr, _| {
                let worker = shared.live.place(0, flow::random());
                tokio::spawn(flow::serve(Arc::clone(&shared), worker, stream, addr));
            },
        );
        accepting.await.expect("a listener that is watched");
    });
    port
}

/// The process that has the clients and the pod.
struct Ends {
    child: Child,
    asked: BufReader<UnixStream>,
}

impl Ends {
    fn start() -> Self {
        let (ours, theirs) = StdUnixStream::pair().expect("a pair of sockets");
        let own = env::current_exe().expect("our own path");
        let child = Command::new(own)
            .arg("ends")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .expect("start ourselves");
        ours.set_nonblocking(true).expect("non-blocking");
        let asked = BufReader::new(UnixStream::from_std(ours).expect("a socket"));
        Self { child, asked }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.asked.read_line(&mut line).await.expect("an answer");
        line.trim_end().to_owned()
    }

    async fn ask(&mut self, what: &str) {
        let line = format!("{what}\n");
        self.asked.write_all(line.as_bytes()).await.expect("asked");
        assert_eq!(self.line().await, "done", "{what}");
    }

    /// Counts `operations` times `word`, after a tenth as many that are not counted.
    async fn count(&mut self, name: &str, word: &str, operations: u32) {
        self.ask(&format!("{word} {}", operations / 10)).await;
        let counted = format!("{word} {operations}");
        mark();
        self.ask(&counted).await;
        mark();
        done(name, operations);
    }

    fn end(mut self) {
        drop(self.asked);
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "{status}");
    }
}
