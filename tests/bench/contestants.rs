//! Who is measured: each at its best, and set up the same way on each host it runs on.

use crate::{
    START,
    ground::{Ground, Host, POD_PORT, PORT},
    load::NAME,
    results::{DIRECT, HAPROXY, HAPROXY_LARGE, SNPROXY},
    tls::{self, Certs},
};
use rustix::process::Signal;
use snproxy_tests::{Process, eventually};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const NGINX: &str = "nginx";
const SNPROXY_PORT: u16 = 32_767;

#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    proxy: Proxy,
    role: Role,
}

/// What a contestant is there for.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// A cluster of plain ports.
    Cluster,
    /// One address, one server.
    Ambassador,
    /// The same, and it ends the TLS of clients.
    TlsServer(Certs),
    /// A port of snproxy's cluster that ends the TLS of clients.
    TlsPort(Certs),
    /// One on each of two hosts, with TLS between them.
    Pair(Certs),
    /// Hosts of snproxy's cluster that speak TLS to each other.
    Peers(Certs),
}

/// A port of the proxy and the port of its pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    pub(crate) port: u16,
    pub(crate) pod: u16,
}

/// Of all cases but one.
const SERVICE: Service = Service {
    port: PORT,
    pod: POD_PORT,
};

#[derive(Clone, Debug)]
enum Proxy {
    None,
    Haproxy {
        globals: &'static str,
        defaults: &'static str,
    },
    Nginx,
    Snproxy(PathBuf),
}

impl Contestant {
    /// All of them; `also` are further builds of snproxy.
    pub(crate) fn all(snproxy: &Path, also: &[(String, PathBuf)]) -> Vec<Self> {
        let one = |name: &str, proxy| Self {
            name: name.to_owned(),
            proxy,
            role: Role::Cluster,
        };
        let [plain, splice] = HAPROXY;
        let mut all = vec![
            one(DIRECT, Proxy::None),
            one(plain, haproxy_with("", "")),
            one(splice, haproxy_with("", " option splice-auto\n")),
            // Takes three fifths of the CPU per GB of a stream (2026-11-21).
            one(HAPROXY_LARGE, haproxy_with(" tune.bufsize 65536\n", "")),
            one(NGINX, Proxy::Nginx),
            one(SNPROXY, Proxy::Snproxy(snproxy.to_owned())),
        ];
        let also = also.iter();
        all.extend(also.map(|(name, path)| one(name, Proxy::Snproxy(path.clone()))));
        all
    }

    pub(crate) fn in_role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// The same executable under another name, where this is snproxy itself.
    pub(crate) fn another_way(&self, name: &str, role: &Role) -> Option<Self> {
        (self.name == SNPROXY).then(|| Self {
            name: name.to_owned(),
            proxy: self.proxy.clone(),
            role: role.clone(),
        })
    }

    fn certs(&self) -> Option<&Certs> {
        match &self.role {
            Role::Cluster | Role::Ambassador => None,
            Role::TlsServer(certs)
            | Role::TlsPort(certs)
            | Role::Pair(certs)
            | Role::Peers(certs) => Some(certs),
        }
    }

    /// The folder with the certificate that clients show.
    pub(crate) fn client_certs(&self) -> PathBuf {
        self.certs().map(Certs::client).unwrap_or_default()
    }

    /// Panics where TLS is ended for whoever shows no certificate.
    pub(crate) fn assert_verifies(&self, ground: &Ground) {
        let (Some(certs), false) = (self.certs(), matches!(self.proxy, Proxy::None)) else {
            return;
        };
        let port = match self.role {
            Role::Peers(_) => SNPROXY_PORT,
            _ => PORT,
        };
        let at = (ground.last().address, port).into();
        let from = &ground.first().namespace;
        from.run(|| certs.assert_asked_for(at));
    }

    /// Starts its proxies, one on each host: each sends what it gets to the next host, the last one to the pod.
    pub(crate) fn start(&self, ground: &Ground) -> Running {
        self.start_serving(ground, &[SERVICE])
    }

    /// The folders with which this host ends the TLS of its clients, and speaks it to where it sends them.
    fn tls_of(&self, host: &Host, ground: &Ground) -> (Option<PathBuf>, Option<PathBuf>) {
        let is_last = host.address == ground.last().address;
        match &self.role {
            Role::TlsServer(certs) => (Some(certs.server()), None),
            Role::Pair(certs) if is_last => (Some(certs.server()), None),
            Role::Pair(certs) => (None, Some(certs.client())),
            _ => (None, None),
        }
    }

    /// Whether it is there for something else than a cluster of plain ports.
    pub(crate) fn is_beside(&self) -> bool {
        !matches!(self.role, Role::Cluster)
    }

    /// Whether it is another build of snproxy.
    pub(crate) fn is_further(&self) -> bool {
        self.name != SNPROXY && matches!(self.proxy, Proxy::Snproxy(_))
    }

    /// The same with these ports; nginx has the first one only.
    pub(crate) fn start_serving(&self, ground: &Ground, services: &[Service]) -> Running {
        let mut running = Running {
            to: (ground.first().address, PORT).into(),
            proxies: Vec::new(),
        };
        if matches!(self.proxy, Proxy::None) {
            running.to = ground.pod_address();
        }
        // The last first: whoever listens has somebody to send to.
        for (index, host) in ground.hosts.iter().enumerate().rev() {
            let next = ground.hosts.get(index + 1);
            let next = |service: &Service| match next {
                Some(next) => SocketAddr::from((next.address, service.port)),
                None => (ground.last().address, service.pod).into(),
            };
            let folder = TempDir::new().expect("folder of a proxy");
            let (clients, upstream) = self.tls_of(host, ground);
            let process = match &self.proxy {
                Proxy::None => continue,
                Proxy::Haproxy { globals, defaults } => {
                    let listens = services.iter().map(|service| {
                        let Service { port, .. } = service;
                        let (at, next) = (host.address, next(service));
                        let bind = clients.as_deref().map(tls::haproxy_bind);
                        let server = upstream.as_deref().map(tls::haproxy_server);
                        let [bind, server] = [bind, server].map(Option::unwrap_or_default);
                        format!("listen pod{port}\n bind {at}:{port}{bind}\n server next {next}{server}\n")
                    });
                    let listens = listens.collect::<Vec<_>>().concat();
                    haproxy(host, folder.path(), &listens, globals, defaults)
                }
                Proxy::Nginx => {
                    let server = clients.as_deref().map(tls::nginx_clients);
                    let client = upstream.as_deref().map(tls::nginx_upstream);
                    let lines = [server.unwrap_or_default(), client.unwrap_or_default()].concat();
                    let word = if clients.is_some() { " ssl" } else { "" };
                    nginx(host, folder.path(), next(&services[0]), word, &lines)
                }
                Proxy::Snproxy(path) => match &self.role {
                    Role::Cluster => snproxy(ground, host, folder.path(), path, services, ""),
                    Role::TlsPort(certs) => {
                        let key = format!("CLIENTTLS {PORT} {}\n", certs.server().display());
                        snproxy(ground, host, folder.path(), path, services, &key)
                    }
                    Role::Peers(certs) => {
                        let key = format!("PEERTLS {}\n", certs.server().display());
                        snproxy(ground, host, folder.path(), path, services, &key)
                    }
                    Role::Ambassador | Role::TlsServer(_) | Role::Pair(_) => {
                        let to = next(&services[0]);
                        ambassador(host, folder.path(), path, to, clients, upstream)
                    }
                },
            };
            running.proxies.push(Started { process, folder });
        }
        running
    }
}

/// The proxies of one contestant; dropped, they are gone.
pub(crate) struct Running {
    /// Where clients connect.
    pub(crate) to: SocketAddr,
    proxies: Vec<Started>,
}

struct Started {
    process: Process,
    /// Kept for its files.
    #[expect(dead_code, reason = "removed when dropped")]
    folder: TempDir,
}

impl Running {
    /// Ids of their processes, workers too.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let with_children = |started: &Started| {
            let pid = started.process.pid();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.expect("children of a running process");
            let children: Vec<u32> = children
                .split_whitespace()
                .map(|pid| pid.parse().expect("a process id"))
                .collect();
            [pid].into_iter().chain(children)
        };
        self.proxies.iter().flat_map(with_children).collect()
    }

    /// What they have printed.
    pub(crate) fn logs(&self) -> String {
        self.proxies
            .iter()
            .map(|proxy| proxy.process.log())
            .collect()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // A killed master of nginx would leave its workers.
        self.process.signal(Signal::TERM);
        let end = Instant::now() + Duration::from_secs(2);
        while self.process.exit_status().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Lines of its sections `global` and `defaults`.
fn haproxy_with(globals: &'static str, defaults: &'static str) -> Proxy {
    Proxy::Haproxy { globals, defaults }
}

fn haproxy(host: &Host, folder: &Path, listens: &str, globals: &str, defaults: &str) -> Process {
    let file = folder.join("haproxy.cfg");
    let text = format!(
        "global\n nbthread {}\n maxconn 6000\n{globals}\
         defaults\n mode tcp\n{defaults} timeout connect 10s\n timeout client 1h\n timeout server 1h\n\
         {listens}",
        cpus(),
    );
    fs::write(&file, text).expect("haproxy.cfg");
    let mut command = host.command("haproxy");
    host.server("haproxy", command.arg("-db").arg("-f").arg(file), PORT)
}

fn nginx(host: &Host, folder: &Path, next: SocketAddr, word: &str, lines: &str) -> Process {
    // Buffers of 256 KiB were its best for streams, beside 16 KiB and 64 KiB, and no worse for requests.
    let file = folder.join("nginx.conf");
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off; pid nginx.pid; error_log stderr crit;\n\
         worker_processes {}; worker_cpu_affinity auto;\n\
         events {{ worker_connections 8192; multi_accept on; }}\n\
         stream {{ server {{\n listen {}:{PORT}{word} reuseport backlog=4096;\n proxy_pass {next};\n\
         proxy_buffer_size 256k;\n proxy_timeout 1h;\n{lines} }} }}\n",
        cpus(),
        host.address,
    );
    fs::write(&file, text).expect("nginx.conf");
    let mut command = host.command(NGINX);
    command.arg("-p").arg(folder).arg("-c").arg(file);
    host.server(NGINX, command.args(["-e", "stderr"]), PORT)
}

/// Its default configuration.
fn snproxy(
    ground: &Ground,
    host: &Host,
    folder: &Path,
    path: &Path,
    services: &[Service],
    more: &str,
) -> Process {
    let is_last = host.address == ground.last().address;
    let hosts: Vec<_> = (ground.hosts.iter())
        .map(|host| format!("{}:{SNPROXY_PORT}\n", host.address))
        .collect();
    let mappings = if is_last {
        let lines = services.iter();
        let lines = lines.map(|Service { port, pod }| format!("{port}:{pod}:100000:false\n"));
        lines.collect::<Vec<_>>().concat()
    } else {
        String::new()
    };
    let conf = folder.join("proxy.conf");
    let admin = folder.join("admin.sock");
    let keys = format!(
        "HOST {}\nADMIN unix:{}\n{more}",
        host.address,
        admin.display()
    );
    for (file, text) in [
        ("proxy.conf", keys),
        ("hosts.conf", hosts.concat()),
        ("portmappings.conf", mappings),
    ] {
        fs::write(folder.join(file), text).expect("configuration of snproxy");
    }
    let mut command = host.command(path);
    ready(Process::spawn_here(
        SNPROXY,
        command.arg("--conf").arg(conf),
    ))
}

/// `ambassador`, or `tls-server` or `tls-client` by which certificates it is given.
fn ambassador(
    host: &Host,
    folder: &Path,
    path: &Path,
    to: SocketAddr,
    clients: Option<PathBuf>,
    upstream: Option<PathBuf>,
) -> Process {
    let mut command = host.command(path);
    command.arg(match (&clients, &upstream) {
        (Some(_), _) => "tls-server",
        (None, Some(_)) => "tls-client",
        (None, None) => "ambassador",
    });
    if upstream.is_some() {
        command.args(["--sni", NAME]);
    }
    if let Some(certs) = clients.or(upstream) {
        command.arg("--tlscertpath").arg(certs);
    }
    let admin = format!("unix:{}", folder.join("admin.sock").display());
    command
        .args(["--src", &format!("{}:{PORT}", host.address)])
        .args(["--dst", &to.to_string(), "--admin", &admin]);
    ready(Process::spawn_here(SNPROXY, &mut command))
}

fn ready(process: Process) -> Process {
    eventually(START, "snproxy is ready", || {
        let log = process.log();
        assert!(process.exit_status().is_none(), "snproxy ended: {log}");
        log.contains(" ready: ")
    });
    process
}

pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// What a program says of its version, shortened to it.
pub(crate) fn version(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // nginx says it on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let words = text.lines().next().unwrap_or_default().split([' ', '/']);
    let is_version = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
    words
        .into_iter()
        .find(is_version)
        .unwrap_or_default()
        .to_owned()
}
