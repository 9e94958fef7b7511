//! Real programs as pods and as clients.

use crate::{Client, Host, Namespace, Process, eventually};
use std::{fs, net::SocketAddr, process::Command, time::Duration};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);

impl Host {
    /// nginx as an HTTP pod: `listen PORT OPTIONS`, and `tells` as the answer and as the line it logs.
    ///
    /// `nginx(30000, "proxy_protocol", "$proxy_protocol_addr")` tells the client address of the PROXY header.
    #[track_caller]
    pub fn nginx(&self, port: u16, options: &str, tells: &str) -> Process {
        let body = format!(
            "http {{
                log_format tells '{tells}';
                access_log /dev/stdout tells;
                server {{
                    listen {port} {options};
                    listen [::]:{port} {options};
                    location / {{ return 200 '{tells}\\n'; }}
                }}
            }}"
        );
        self.namespace().nginx(port, &body)
    }
}

impl Client {
    /// HAProxy here, from `port` to a server `to`; `options` such as `send-proxy-v2` belong to the server line.
    #[track_caller]
    pub fn haproxy(&self, port: u16, to: impl Into<SocketAddr>, options: &str) -> Process {
        let to = to.into();
        let body = format!(
            "listen there\n bind *:{port}\n bind [::]:{port} v6only\n server cluster {to} {options}\n"
        );
        self.namespace().haproxy(port, &body)
    }
}

impl Namespace {
    /// nginx with these blocks (`http { … }`, `stream { … }`); gives it back once it listens on `port`.
    #[track_caller]
    pub fn nginx(&self, port: u16, body: &str) -> Process {
        let folder = TempDir::new().expect("folder of nginx");
        // One process without a master: killing it leaves nobody.
        let mut conf =
            "daemon off; master_process off; pid nginx.pid; error_log stderr info; events {}\n"
                .to_owned();
        if body.contains("stream") {
            conf.insert_str(
                0,
                "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n",
            );
        }
        conf.push_str(body);
        let file = folder.path().join("nginx.conf");
        fs::write(&file, conf).expect("nginx.conf");
        let mut nginx = Command::new("nginx");
        nginx
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(file)
            .args(["-e", "stderr"]);
        self.server("nginx", &mut nginx, port).with_folder(folder)
    }

    /// HAProxy with these sections in TCP mode; gives it back once it listens on `port`.
    #[track_caller]
    pub fn haproxy(&self, port: u16, body: &str) -> Process {
        let folder = TempDir::new().expect("folder of haproxy");
        let defaults = "global\n maxconn 2000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n";
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, format!("{defaults}{body}")).expect("haproxy.cfg");
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(file);
        self.server("haproxy", &mut haproxy, port)
            .with_folder(folder)
    }

    /// Prometheus on `port` of loopback, which asks for the metrics at `asked` there each second.
    #[track_caller]
    pub fn prometheus(&self, port: u16, asked: u16) -> Process {
        let folder = TempDir::new().expect("folder of Prometheus");
        let conf = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: snproxy, static_configs: [{{targets: ['127.0.0.1:{asked}']}}]}}]\n"
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, conf).expect("prometheus.yml");
        let data = folder.path().join("data");
        let mut prometheus = Command::new("prometheus");
        prometheus
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        self.server("prometheus", &mut prometheus, port)
            .with_folder(folder)
    }

    /// Starts a server and waits until it listens.
    #[track_caller]
    pub fn server(&self, name: &str, command: &mut Command, port: u16) -> Process {
        let process = Process::spawn(self, name, command);
        eventually(START, &format!("{name} listens on {port}"), || {
            let ended = process.exit_status();
            assert!(
                ended.is_none(),
                "{name} ended ({})",
                ended.unwrap_or_default()
            );
            self.listens(port)
        });
        process
    }
}
