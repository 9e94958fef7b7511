//! snproxy as a service of systemd: what it tells the service manager, and the unit file.

use snproxy_tests::{Net, Pod, eventually, snproxy_binary};
use std::{
    fs,
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    process::Command,
    sync::Mutex,
    time::Duration,
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
const USER: u32 = 1000;
const UNIT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/systemd/snproxy.service"
);
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/tls.conf");
/// Of 100, which is no protection at all.
const WORST_EXPOSURE: &str = "20";

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    told: Mutex<Vec<String>>,
}

impl Manager {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_nonblocking(true).expect("a socket");
        Self {
            socket,
            told: Mutex::default(),
        }
    }

    /// Waits until it was told all of this at once, and forgets what came before.
    #[track_caller]
    fn is_told(&self, states: &[&str]) {
        let mut told = self.told.lock().expect("what was told");
        eventually(SOON, &format!("{states:?}"), || {
            let mut message = [0; 4096];
            match self.socket.recv(&mut message) {
                Ok(len) => told.push(String::from_utf8_lossy(&message[..len]).into_owned()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            let is_it = |message: &String| {
                let begins = |state: &&str| message.lines().any(|line| line.starts_with(state));
                states.iter().all(begins)
            };
            let found = told.iter().position(is_it);
            found.is_some_and(|found| told.drain(..=found).count() > 0)
        });
    }
}

/// As the unit starts it: an ordinary user with its two capabilities.
fn tells(socket: &str, bind: impl FnOnce() -> UnixDatagram + Send) {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::echo());
    host.mappings("2000:30000:9:false\n2001:30000:9:false\n")
        .as_user(USER, &["bpf", "net_admin"])
        .conf("DRAINTIMEOUT", "7s")
        .env("NOTIFY_SOCKET", socket);
    // An abstract name belongs to a network namespace.
    let manager = Manager::new(host.namespace().run(bind));
    host.start();
    manager.is_told(&["READY=1", "STATUS=2 mappings, 1 hosts, generation 1"]);
    assert_eq!(host.status()["steering"], "ebpf");

    host.replace("portmappings.conf", "2000:30000:9:false\n");
    manager.is_told(&["STATUS=1 mappings, 1 hosts, generation 2"]);
    host.signal(rustix::process::Signal::HUP);
    manager.is_told(&["RELOADING=1", "MONOTONIC_USEC="]);
    manager.is_told(&["READY=1", "STATUS=1 mappings"]);
    host.replace("portmappings.conf", "2000\n");
    manager.is_told(&[
        "READY=1",
        "STATUS=1 mappings, 1 hosts, generation 3; NEWER FILES",
    ]);

    let conn = host.open(2000);
    conn.send(b"hello");
    assert_eq!(conn.read(5), b"hello");
    host.signal(rustix::process::Signal::TERM);
    // DRAINTIMEOUT and a little more.
    manager.is_told(&[
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=14000000",
        "STATUS=draining 1 ",
    ]);
    drop(conn);
    assert_eq!(host.snproxy().wait(SOON).code(), Some(0));
}

#[test]
fn the_service_manager_hears_of_start_reload_and_drain_by_path() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("notify");
    let everybody = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    };
    everybody(folder.path(), 0o755);
    tells(path.to_str().expect("a path"), || {
        let socket = UnixDatagram::bind(&path).expect("bind");
        everybody(&path, 0o666);
        socket
    });
}

#[test]
fn the_service_manager_hears_of_start_reload_and_drain_by_an_abstract_name() {
    tells("@snproxy-notify", || {
        let name = SocketAddr::from_abstract_name("snproxy-notify").expect("a name");
        UnixDatagram::bind_addr(&name).expect("bind")
    });
}

#[test]
fn a_service_manager_that_is_gone_is_no_reason_not_to_serve() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("2000:30000:9:false\n")
        .env("NOTIFY_SOCKET", "/nowhere/notify")
        .start();
    host.snproxy()
        .wait_for_line(SOON, "tell the service manager");
    assert_eq!(host.open(2000).greeting(), "pod");
}

#[test]
fn the_unit_is_understood_and_well_protected() {
    let folder = TempDir::new().expect("a folder");
    let unit = folder.path().join("snproxy.service");
    let text = fs::read_to_string(UNIT).expect("the unit");
    // It is not installed here.
    let installed = "/usr/local/bin/snproxy";
    assert!(text.contains(installed));
    let text = text.replace(installed, snproxy_binary().to_str().expect("a path"));
    // With the drop-in for keys, whose sections add to those of the unit.
    let text = text + &fs::read_to_string(TLS).expect("the drop-in");
    fs::write(&unit, text).expect("a copy of the unit");

    // Systemd says what it does not understand, and exits well all the same.
    let verify = output(Command::new("systemd-analyze").arg("verify").arg(&unit));
    assert_eq!(verify, "");

    let mut security = Command::new("systemd-analyze");
    security
        .args(["security", "--offline=true", "--no-pager", "--threshold"])
        .arg(WORST_EXPOSURE)
        .arg(&unit);
    assert!(output(&mut security).contains("Overall exposure level"));
}

/// What both streams say; fails with it where the command fails.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error} (`cargo xtask test` installs what scenarios need)")
    });
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let text = text.concat();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    text
}
