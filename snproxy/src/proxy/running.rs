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
use tokio::task::unconstrained;

use super::builder::{Base, Builder, Error};
use crate::admin::api;
use crate::daemon::{self, Command, Manager, Names, Start, Surroundings};
use crate::discovery::Root;

/// Calls that wait for the proxy.
const MAX_COMMANDS: usize = 16;

/// A proxy that runs. Dropped, it ends at once: what is connected is reset.
///
/// Every call waits for its answer on the thread that makes it, [`drain`](Self::drain) for up to `DRAINTIMEOUT`: a task of an
/// async runtime makes them where it may block.
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
    base: Base,
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
    /// One that listens on port 0 gets another port each time: see [`local_addrs`](Self::local_addrs).
    ///
    /// Addresses beside the first one's need a proxy that runs by listeners: one of few ports, one that began with several
    /// addresses, or with `STEERING listeners`. For port 0 another free one is found each time.
    ///
    /// Errors: it is refused, and all goes on as it was; [`Error::Pending`]: it is in force, but for ports that cannot be
    /// listened on.
    pub fn update(&mut self, builder: &Builder) -> Result<(), Error> {
        let plan = builder.plan()?;
        let root = plan.root(builder, &self.base)?;
        judge(self.ask(|reply| Command::Replace(root, reply))?)?;
        self.addrs = plan.addrs();
        let pending = self.ask(Command::Status)?.pending;
        pending.map_or(Ok(()), |what| Err(Error::Pending(what)))
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
        let base = plan.base(self)?;
        let root = plan.root(self, &base)?;
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
            base,
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
    let failed = |error: anyhow::Error| Error::Start(error.into_boxed_dyn_error());
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
    // A task that has used up its budget would be told to come back later, by a runtime that this thread is to go on with.
    let mut future = pin!(unconstrained(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::proxy::Service;

    const ONE: &str = "127.81.0.1";
    const OTHER: &str = "127.81.0.2";

    /// A server that says hello.
    fn server() -> String {
        let server = TcpListener::bind((ONE, 0)).unwrap();
        let address = server.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for client in server.incoming() {
                client.unwrap().write_all(b"hello").unwrap();
            }
        });
        address
    }

    fn serves(at: (&str, u16)) -> bool {
        let mut said = String::new();
        let client = TcpStream::connect(at);
        client.is_ok_and(|mut client| client.read_to_string(&mut said).is_ok() && said == "hello")
    }

    #[test]
    fn a_task_may_ask_as_often_as_it_likes() {
        let service = Service::new("a").listen(format!("{ONE}:0"));
        let proxy = Proxy::builder().service(service.upstream(server()));
        let proxy = proxy.start().unwrap();
        let (told, asked) = channel::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(async {
                // Each is more than one step of the budget that tokio gives a task: 128.
                (0..200).for_each(|_| drop(proxy.stats().unwrap()));
                proxy.drain().unwrap();
            });
            told.send(()).unwrap();
        });
        asked.recv_timeout(Duration::from_mins(1)).unwrap();
    }

    #[test]
    fn an_update_opens_what_it_says_where_it_says() {
        let upstream = server();
        let at = |listen: &[(&str, u16)]| {
            let service = Service::new("a").upstream(upstream.clone());
            let service = (listen.iter()).fold(service, |service, (ip, port)| {
                service.listen(format!("{ip}:{port}"))
            });
            Proxy::builder().service(service)
        };
        let began = [(ONE, 24_805), (OTHER, 24_806)];
        let mut proxy = at(&began).start().unwrap();
        assert!(serves(began[0]) && serves(began[1]));

        // A lower port, at the address that is not HOST.
        let more = [began[0], began[1], (OTHER, 24_804)];
        proxy.update(&at(&more)).unwrap();
        assert!(more.into_iter().all(serves));
        assert!(!serves((ONE, 24_804)) && !serves((ONE, 24_806)));

        // None at the first address any more.
        proxy.update(&at(&[(OTHER, 24_807)])).unwrap();
        assert!(serves((OTHER, 24_807)) && !serves((ONE, 24_807)) && !serves(began[0]));

        // An address that this host does not have.
        let nowhere = proxy.update(&at(&[began[0], ("192.0.2.1", 24_808)]));
        assert!(
            matches!(&nowhere, Err(Error::Pending(what)) if what.contains("192.0.2.1:24808")),
            "{nowhere:?}"
        );
        assert!(serves(began[0]));
        proxy.update(&at(&began)).unwrap();

        // What was refused does not come into force behind the caller's back.
        let taken = TcpListener::bind((ONE, 24_809)).unwrap();
        let refused = proxy.update(&at(&[began[0], (ONE, 24_809)]));
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        drop(taken);
        thread::sleep(Duration::from_secs(3));
        assert!(!serves((ONE, 24_809)) && began.into_iter().all(serves));
        proxy.drain().unwrap();
    }
}
