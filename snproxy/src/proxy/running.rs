//! The handle of a running proxy.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc as channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};

use tokio::sync::{mpsc, oneshot};

use super::builder::{Builder, Error};
use crate::admin::api;
use crate::daemon::{self, Command, Manager, Names, Start, Surroundings};
use crate::discovery::Root;

/// Calls that wait for the proxy.
const MAX_COMMANDS: usize = 16;

/// A proxy that runs. Dropped, it ends at once: what is connected is reset.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
/// use snproxy::{Proxy, Service};
///
/// // Whoever is proxied for: it says hello.
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let address = server.local_addr()?.to_string();
/// std::thread::spawn(move || {
///     for client in server.incoming() {
///         client.unwrap().write_all(b"hello").unwrap();
///     }
/// });
///
/// let proxy = Proxy::builder()
///     .service(Service::new("hello").listen("127.0.0.1:0").upstream(address))
///     .start()?;
/// let mut client = TcpStream::connect(proxy.local_addrs()[0])?;
/// let mut said = String::new();
/// client.read_to_string(&mut said)?;
/// assert_eq!(said, "hello");
/// drop(client);
/// proxy.drain()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    commands: mpsc::Sender<Command>,
    addrs: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

/// What a proxy is doing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections now.
    pub live: u64,
    /// Connections so far.
    pub total: u64,
    /// How connections ended, by name; the names are those of the log.
    pub ends: BTreeMap<String, u64>,
    /// Of the services, in their order; a name has one for each address.
    pub upstreams: Vec<UpstreamStats>,
    /// Grows with each configuration that is put in force.
    pub generation: u64,
}

/// What is known of one upstream.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct UpstreamStats {
    /// Of the service.
    pub service: String,
    pub address: String,
    /// Whether it takes connections, as far as is known.
    pub is_up: bool,
    /// Connections now.
    pub live: u32,
}

impl Proxy {
    /// Nothing yet: add a [`Service`](super::Service) and [`start`](Builder::start).
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens, in the order of the services: of a range the first port.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// What it is doing.
    ///
    /// Errors: it has ended.
    pub fn stats(&self) -> Result<Stats, Error> {
        let status = self.ask(Command::Status)?;
        let upstreams = status.apps.iter().flat_map(|app| {
            let targets = app.targets.iter().flat_map(|target| &target.addresses);
            targets.map(|address| UpstreamStats {
                service: app.name.clone(),
                address: address.upstream.clone(),
                is_up: address.up,
                live: address.active,
            })
        });
        Ok(Stats {
            live: status.connections.live,
            total: status.connections.total,
            upstreams: upstreams.collect(),
            ends: status.ends,
            generation: status.generation,
        })
    }

    /// Reads certificates and resolves names again. Both happens by itself as well.
    ///
    /// Errors: what is found is not used, the rest goes on as it was.
    pub fn reload(&self) -> Result<(), Error> {
        judge(self.ask(Command::ReloadFor)?)
    }

    /// Serves this in the place of what it was built with. Connections go on, but those of an upstream that is gone, where
    /// `ONREMOVE` says so; where it listens for one address of several, that stays open.
    ///
    /// A new set of addresses takes effect where it can be had: the address of the whole proxy stays what it was.
    ///
    /// Errors: it is refused, and all goes on as it was.
    pub fn update(&mut self, builder: &Builder) -> Result<(), Error> {
        let plan = builder.plan()?;
        let root = plan.root(builder)?;
        judge(self.ask(|reply| Command::Replace(root, reply))?)?;
        self.addrs = plan.addrs();
        Ok(())
    }

    /// Accepts no more, and waits until the last connection has ended, or is reset after `DRAINTIMEOUT`.
    ///
    /// Errors: it had ended before.
    pub fn drain(mut self) -> Result<(), Error> {
        let sent = block_on(self.commands.send(Command::Drain));
        self.join();
        sent.map_err(|_| Error::Ended)
    }

    fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        block_on(async {
            let asked = self.commands.send(question(reply)).await;
            asked.map_err(|_| Error::Ended)?;
            answer.await.map_err(|_| Error::Ended)
        })
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // One that panicked is over as well.
            let _ = thread.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // It fails where the proxy has ended by itself.
            let _ = block_on(self.commands.send(Command::End));
            self.join();
        }
    }
}

fn judge(outcome: api::Reload) -> Result<(), Error> {
    if outcome.ok {
        Ok(())
    } else {
        Err(Error::Refused(outcome.diagnostics))
    }
}

impl Builder {
    /// Starts the proxy, on threads of its own: it serves when this returns.
    ///
    /// Errors: nothing is left of it.
    pub fn start(&self) -> Result<Proxy, Error> {
        let plan = self.plan()?;
        let root = plan.root(self)?;
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        let (started, outcome) = channel::channel();
        let thread = thread::Builder::new()
            .name("snproxy".to_owned())
            .spawn(move || {
                let ready = started.clone();
                if let Err(error) = run(root, received, move || drop(ready.send(Ok(())))) {
                    // Nobody listens any more where it had begun.
                    let _ = started.send(Err(error));
                }
            })
            .map_err(Error::Thread)?;
        // A thread that panicked says nothing.
        outcome.recv().unwrap_or(Err(Error::Ended))?;
        Ok(Proxy {
            commands,
            addrs: plan.addrs(),
            thread: Some(thread),
        })
    }
}

/// The whole life of a proxy. Capabilities belong to threads: this one and those that it starts give up theirs, the host
/// program keeps its own.
fn run(
    root: Root,
    commands: mpsc::Receiver<Command>,
    ready: impl FnOnce() + 'static,
) -> Result<(), Error> {
    let names = Names::default();
    let good = daemon::look(&root, &names).map_err(|found| Error::refused(&found))?;
    for found in &good.diagnostics {
        tracing::warn!("{found}");
    }
    let failed = |error: anyhow::Error| Error::Start(format!("{error:#}"));
    let start = Start::new(root, good, names).map_err(|error| failed(error.into()))?;
    let runtime = daemon::runtime().map_err(|error| failed(error.into()))?;
    let surroundings = Surroundings {
        set_log_level: Box::new(|_| {}),
        manager: Manager::none(),
        all_ports: true,
        ready: Box::new(ready),
    };
    let result = runtime.block_on(daemon::serve(start, commands, surroundings));
    runtime.shutdown_background();
    result.map_err(failed)
}

/// Waits on this thread, also where a runtime of the host program runs on it, which tokio's own ways of waiting refuse.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
