//! The running proxy: owns everything, and reacts to one event after the other.

mod addresses;
mod aside;
mod capacity;
mod certs;
mod changes;
mod control;
mod crowd;
mod directory;
mod doubt;
mod drain;
mod explain;
mod gone;
mod headers;
mod hosts;
mod look;
mod names;
mod notify;
mod pods;
mod reload;
mod report;
mod rights;
mod services;
mod source_ports;
mod start;
mod steer;
mod threads;
mod tide;
mod verdict;
mod workers;
mod world;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::admin::Asked;
use crate::admin::api;
use crate::conf::Conf;
use crate::discovery::{Root, Watch};
use crate::flow::Shared;
use crate::sys::memory;

pub use certs::check as check_certs;
pub use control::{control_socket, runtime_folder};
pub use look::{Good, look};
pub use notify::Manager;
pub use services::tls as etcd_tls;
pub use start::{Start, StartError, raise_descriptor_limit};
pub use threads::runtime;
pub use world::{Names, control_socket_of, parse, parse_to_check};

use capacity::Capacity;
use certs::CertTimes;
use control::Control;
use directory::Directory;
use hosts::ClaimLog;
use pods::Pods;
use reload::{Loaded, Why};
use services::Followed;
use source_ports::Watched;
use steer::Steerer;
use threads::EtcdThread;
use tide::Tide;
use workers::Workers;

/// Time between looks at the host's listening sockets (well under 1 ms each): what starts or dies is
/// known within a second, the probe included. The same tick retries what failed.
const TICK: Duration = Duration::from_millis(500);

/// Time between two looks at the addresses of this host.
const OWN_INTERVAL: Duration = Duration::from_secs(10);

/// Changes the level of the log while it runs.
pub type SetLogLevel = Box<dyn Fn(&Conf)>;

/// What whoever runs the proxy tells it.
#[derive(Debug)]
pub enum Command {
    /// Read the files again.
    Reload,
    /// The same, and say what came of it.
    ReloadFor(oneshot::Sender<api::Reload>),
    /// Take these files in the place of those that it was started with; where they are refused, all stays as it is.
    Replace(Root, oneshot::Sender<api::Reload>),
    Status(oneshot::Sender<api::Status>),
    /// End within DRAINTIMEOUT.
    Drain,
    /// End at once.
    End,
}

/// What the proxy has to do with the process it runs in.
pub struct Surroundings {
    pub set_log_level: SetLogLevel,
    pub manager: Manager,
    /// Every port is served from the start, or nothing is.
    pub all_ports: bool,
    /// Called once it serves.
    pub ready: Box<dyn FnOnce()>,
}

/// The running proxy. All of its methods run on the main thread, which serves no connection: they may block.
struct Daemon {
    /// The configuration that the process was started with, without its mappings: HOST, PORT and the like are its own.
    started_with: Conf,
    names: Arc<Names>,
    root: Root,
    /// The one before, until it is known whether `root` is any good.
    before: Option<Root>,
    since: Instant,
    manager: Manager,
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    /// `None` once the drain has begun.
    listener: Option<Arc<TcpListener>>,
    steerer: Steerer,
    pods: Pods,
    loaded: Loaded,
    control: Control,
    watch: Watch,
    /// Bounds the look-ups of names under way.
    look_ups: Arc<Semaphore>,
    cert_times: CertTimes,
    followed: Followed,
    set_log_level: SetLogLevel,
    draining: bool,
    tide: Tide,
    source_ports: Watched,
    directory: Directory,
    /// Next look at the addresses of this host.
    own_due: Instant,
    claim_log: ClaimLog,
    capacity: Capacity,
    etcd: EtcdThread,
}

/// Runs until it is told to end, and through the drain that follows.
///
/// Errors: it could not begin; nothing was served.
pub async fn serve(
    start: Start,
    mut commands: mpsc::Receiver<Command>,
    surroundings: Surroundings,
) -> anyhow::Result<()> {
    let Surroundings {
        set_log_level,
        manager,
        all_ports,
        ready,
    } = surroundings;
    let (ask, mut asked) = mpsc::channel(16);
    let mut daemon = Daemon::begin(start, set_log_level, manager, ask)?;
    let shared = Arc::clone(&daemon.shared);
    daemon.look_around();
    daemon.follow_directory();
    if all_ports && let Some(error) = daemon.steerer.pending.take() {
        daemon.end().await;
        bail!(error);
    }
    let (crowded, mut crowds) = mpsc::channel(16);
    let accepting = match &daemon.listener {
        Some(listener) => daemon.workers.accept(listener, &crowded),
        None => Vec::new(),
    };
    daemon.announce();
    ready();
    hosts::greet(&shared, &shared.table.load());
    // The watch began after the files were read: what changed in between is found here.
    daemon.reload(Why::Changed);

    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => daemon.tick(),
            () = daemon.watch.changed() => daemon.reload(Why::Changed),
            looked = daemon.loaded.looked() => daemon.loaded(looked),
            () = daemon.followed.changed() => daemon.reload(Why::Nodes),
            is_news = daemon.cert_times.renewed() => daemon.certs_renewed(is_news),
            () = shared.health_changed.notified() => daemon.health_changed(),
            told = daemon.directory.told() => daemon.directory_told(told),
            Some(port) = crowds.recv() => daemon.set_aside(port),
            Some(question) = asked.recv() => daemon.answer(question),
            Some(command) = commands.recv() => match command {
                Command::Drain => break,
                Command::End => {
                    // Nobody waits for it any more.
                    commands.close();
                    break;
                }
                command => daemon.execute(command),
            },
        }
    }

    daemon.drain(accepting, &mut commands, &mut asked).await;
    daemon.end().await;
    Ok(())
}

impl Daemon {
    /// Starts the threads that serve; nobody is accepted yet.
    fn begin(
        start: Start,
        set_log_level: SetLogLevel,
        manager: Manager,
        ask: mpsc::Sender<Asked>,
    ) -> anyhow::Result<Self> {
        let Start {
            root,
            since,
            good,
            names,
            listener,
            control: control_socket,
            metrics,
            mut steerer,
            table,
        } = start;
        let count = Workers::count(&good.conf);
        let shared = Arc::new(Shared::new(table, count));
        let workers = Arc::new(Workers::start(count, &shared)?);
        let etcd = EtcdThread::start()?;
        let metrics = metrics.into_iter();
        let metrics = metrics.map(|listener| tokio::spawn(listener.serve(ask.clone())));
        let metrics = metrics.collect();
        let control = Control::new(ask, control_socket, metrics);
        if let Some(log) = steerer.kernel_log() {
            tokio::spawn(async move {
                let error = log.run().await;
                warn!(%error, "the log lines of the BPF program can no longer be read");
            });
        }
        shared.tls.store(Arc::new(good.certs.configs()));
        let watch = Watch::new(&good.paths(&root));
        if let Some(problem) = watch.problem() {
            warn!(%problem, "watch files");
        }
        // Set once: the process has one watch.
        let _ = names.writers.set(watch.writers());
        steerer.serve_with(&workers);

        let mut daemon = Daemon {
            started_with: Conf {
                mappings: Vec::new(),
                apps: Vec::new(),
                ..Conf::clone(&good.conf)
            },
            names: Arc::new(names),
            root,
            before: None,
            since,
            manager,
            shared: Arc::clone(&shared),
            workers,
            listener: Some(Arc::new(listener)),
            steerer,
            pods: Pods::new(&shared),
            loaded: Loaded::new(&good),
            control,
            watch,
            look_ups: addresses::places(),
            cert_times: CertTimes::default(),
            followed: Followed::default(),
            set_log_level,
            draining: false,
            tide: Tide::default(),
            source_ports: Watched::default(),
            directory: Directory::default(),
            own_due: Instant::now(),
            claim_log: ClaimLog::default(),
            capacity: Capacity::new(),
            etcd,
        };
        daemon.look_at_own_addresses(Instant::now());
        daemon.measure_capacity(Instant::now());
        daemon.follow_services(&good.conf);
        Ok(daemon)
    }

    /// Does what whoever runs it wants, but for its end.
    fn execute(&mut self, command: Command) {
        match command {
            Command::Reload => {
                self.manager.reloading();
                self.reload(Why::Asked);
            }
            Command::ReloadFor(reply) => self.answer(Asked::Reload(reply)),
            Command::Replace(root, reply) => {
                if !self.draining {
                    // Of several that nobody looked at yet the first one is known to be good.
                    let root = std::mem::replace(&mut self.root, root);
                    self.before.get_or_insert(root);
                }
                self.answer(Asked::Reload(reply));
            }
            Command::Status(reply) => self.answer(Asked::Status(reply)),
            Command::Drain | Command::End => {}
        }
    }

    /// Gives back what outlasts the connections.
    async fn end(&mut self) {
        self.control.stop().await;
        self.steerer.detach();
        self.workers.end();
    }

    /// Looks at the host's listeners, probes what needs it, and retries what failed.
    fn tick(&mut self) {
        self.retry_reload();
        self.renew_names(Instant::now());
        self.look_at_certs(Instant::now());
        self.control.retry(&self.started_with);
        self.look_around();
        self.look_at_capacity(Instant::now());
        self.look_at_directory(Instant::now());
        self.look_at_own_addresses(Instant::now());
        if self.tide.has_ebbed(self.shared.live.now()) {
            memory::trim();
        }
    }

    /// Reads the addresses of this host now and then: interfaces come and go.
    fn look_at_own_addresses(&mut self, now: Instant) {
        if now >= self.own_due {
            self.own_due = now + OWN_INTERVAL;
            self.shared.own.refresh();
        }
    }

    /// One scan of the host's listening sockets, and what follows from it.
    fn look_around(&mut self) {
        let table = self.shared.table.load_full();
        let listening = self.steerer.look(&table);
        let is_news = self.pods.look(&table, listening.as_deref(), Instant::now());
        hosts::probe(&self.shared, &table, Instant::now());
        self.claim_log.look(&table, Instant::now());
        self.source_ports.look(&table, Instant::now());
        self.shared.spares.look(&table, Instant::now());
        self.steerer.look_for_failures();
        self.steerer.look_aside(Instant::now());
        if is_news || self.steerer.is_behind() {
            self.steerer.bring(&table);
        }
    }

    /// A pod went up or down.
    fn health_changed(&mut self) {
        self.part_with_down(&self.shared.table.load());
        self.steer();
        let table = self.shared.table.load_full();
        self.pods.await_sockets(&table);
        self.directory.publish(&table, Instant::now());
        // A pod that is back has places.
        self.shared.limits.look_again();
    }

    /// Brings the kernel to what the table, the pods' health and other programs ask for.
    fn steer(&mut self) {
        let table = self.shared.table.load_full();
        self.steerer.bring(&table);
    }

    /// Gives a port whose clients crowd the accept queue one of its own.
    fn set_aside(&mut self, port: u16) {
        let table = self.shared.table.load_full();
        self.steerer.set_aside(port, &table);
    }

    /// The line that says that the proxy serves, what, and how.
    fn announce(&self) {
        let conf = &self.started_with;
        let ports = self.steerer.port_counts();
        let served = match conf.port {
            0 => conf.host.to_string(),
            port => std::net::SocketAddr::new(conf.host, port).to_string(),
        };
        info!(
            "ready: serving {served} by {}; {} of {} cluster ports steered, {} refused, {} left alone; pods at {}",
            self.steerer.mechanism(),
            ports.steer,
            conf.cluster_ports.len(),
            ports.refuse,
            ports.pass,
            conf.pod_host,
        );
        self.warn_of_closed_ports(&ports);
        self.manager.ready(&self.summary());
    }

    fn answer(&mut self, question: Asked) {
        // A caller that left before its answer is no error.
        match question {
            Asked::Configuration(reply) => {
                let file = self.root.file();
                let file = file.map(|file| file.to_string_lossy().into_owned());
                drop(reply.send(api::Configuration { file }));
            }
            Asked::Status(reply) => drop(reply.send(self.status())),
            Asked::Ports(reply) => drop(reply.send(self.ports())),
            Asked::Routes(reply) => drop(reply.send(self.routes())),
            Asked::Explain(port, from, reply) => drop(reply.send(self.explain(port, from))),
            Asked::Reload(reply) if self.draining => {
                let mut outcome = self.reloaded();
                outcome.ok = false;
                outcome.waiting = true;
                outcome.diagnostics = vec!["draining: files are not read any more".to_owned()];
                drop(reply.send(outcome));
            }
            Asked::Reload(reply) => self.reload_for(reply),
        }
    }
}
