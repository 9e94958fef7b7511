//! Too many, too silent, too curious: the proxy goes on, and nothing is left behind.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use snproxy_tests::{
    Attempt, Conn, Ended, Figure, Host, Namespace, Net, Pod, eventually, print_figure,
};
use socket2::{Domain, Socket, Type};
use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(10);
const NOFILE: u64 = 64;
/// curl's exit code for a connect that failed.
const NO_CONNECTION: i32 = 7;

#[test]
fn accepting_goes_on_after_descriptors_ran_out() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("a"));
    host.mappings("1024:30000:900:false\n")
        .limit_nofile(NOFILE)
        // With `auto` the proxy resets clients before descriptors run out.
        .conf("MAXCONN", "0")
        .start();
    let served = || {
        let Attempt::Connected(conn) = host.attempt(1024) else {
            return false;
        };
        matches!(conn.stream().peek(&mut [0]), Ok(1))
    };
    assert!(served());
    eventually(SOON, "it is gone", || host.count("/connections/live") == 0);
    let before = host.snproxy().descriptors();

    for round in 0..3 {
        let crowd: Vec<_> = (0..200)
            .filter_map(|_| host.attempt(1024).connected())
            .collect();
        host.snproxy().wait_for_line(SOON, "accept: resting");
        let full = host.snproxy().descriptors() as u64;
        assert!(
            full >= NOFILE - 8,
            "round {round}: only {full} descriptors are in use"
        );
        drop(crowd);
        eventually(3 * SOON, "served again", served);
        eventually(SOON, "all are gone", || {
            host.count("/connections/live") == 0
        });
        // The answer to `status` was the last to hold one.
        eventually(SOON, "descriptors as before", || {
            host.snproxy().descriptors() == before
        });
    }
    assert!(host.steered() >= 600);
}

#[test]
fn files_that_could_not_be_read_without_descriptors_are_read_later() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("a"));
    host.mappings("1024:30000:900:false\n").start();
    let pid = i32::try_from(host.snproxy().pid())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a pid");
    let limit = |current| {
        let limits = Rlimit {
            current: Some(current),
            maximum: Some(NOFILE),
        };
        prlimit(Some(pid), Resource::Nofile, limits).expect("prlimit");
    };

    limit(1);
    host.mappings("1024:30000:900:false\n1025:30000:900:false\n");
    let kept = "configuration not used: the last good one stays in force";
    host.snproxy().wait_for_line(SOON, kept);
    assert!(host.log().contains("Too many open files"), "{}", host.log());
    limit(NOFILE);
    eventually(SOON, "the new mapping is served", || {
        let conn = host.attempt(1025).connected();
        conn.is_some_and(|conn| matches!(conn.stream().peek(&mut [0]), Ok(1)))
    });
    assert_eq!(host.status()["reload"]["ok"], true);
}

/// A server that keeps its connections, without a thread for each.
struct Keeper {
    socket: Socket,
    kept: Arc<Mutex<Vec<Socket>>>,
}

impl Keeper {
    fn start(namespace: &Namespace, at: SocketAddr) -> Self {
        let socket = namespace.run(|| {
            let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).expect("socket");
            socket.bind(&at.into()).expect("bind");
            socket.listen(4096).expect("listen");
            socket
        });
        let kept = Arc::default();
        let keeper = Self {
            socket: socket.try_clone().expect("clone"),
            kept: Arc::clone(&kept),
        };
        thread::spawn(move || {
            while let Ok((stream, _)) = socket.accept() {
                kept.lock().expect("keeper").push(stream);
            }
        });
        keeper
    }

    fn inside(&self) -> usize {
        self.kept.lock().expect("keeper").len()
    }

    fn close_all(&self) {
        self.kept.lock().expect("keeper").clear();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Ends the thread, and with it the last hold on the namespace.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

#[test]
fn five_thousand_silent_clients_cost_little_and_leave_nothing() {
    const CLIENTS: usize = 5000;
    let net = Net::one();
    let host = net.host("host");
    let keeper = Keeper::start(host.namespace(), host.port(30000));
    host.pod(30001, Pod::answering("a"));
    host.mappings("1024:30000:9000:false\n1025:30001:900:false\n")
        .start();
    assert_eq!(host.open(1025).greeting(), "a");
    eventually(SOON, "it is gone", || host.count("/connections/live") == 0);
    let (memory, descriptors) = (host.rss(), host.snproxy().descriptors());

    let to = host.port(1024);
    let clients: Vec<Conn> = net.client().run(|| {
        (0..CLIENTS)
            .map(|_| Conn::connect(to, SOON).expect("connect"))
            .collect()
    });
    eventually(3 * SOON, "all are inside", || keeper.inside() == CLIENTS);
    assert_eq!(host.count("/connections/live"), CLIENTS as u64);
    print_figure(
        "memory of 5,000 silent connections",
        Figure::Bytes(host.rss().saturating_sub(memory)),
        Figure::Bytes(32 << 20),
    );
    let took = eventually(SOON, "others are served meanwhile", || {
        host.open(1025).greeting() == "a"
    });
    print_figure(
        "another connection served meanwhile",
        Figure::Time(took),
        Figure::Time(Duration::from_millis(20)),
    );

    drop(clients);
    // Their FINs have passed; now the pod ends as well.
    keeper.close_all();
    eventually(3 * SOON, "all are gone", || {
        host.count("/connections/live") == 0
    });
    eventually(SOON, "descriptors as before", || {
        host.snproxy().descriptors() == descriptors
    });
    assert_eq!(host.ends("clean"), CLIENTS as u64 + 2);
    assert!(host.steered() >= CLIENTS as u64);
    print_figure(
        "memory kept after 5,000 connections",
        Figure::Bytes(host.rss().saturating_sub(memory)),
        Figure::Bytes(4 << 20),
    );
}

#[test]
fn the_proxy_port_says_nothing_to_strangers() {
    let net = Net::one();
    let host = net.host("host");
    host.start();

    for sent in [
        "",
        "PROXY TCP4 1.2.3.4 1.2.3.4 123 1024\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let conn = host.open(32767);
        // What it sends may meet an end that has come already.
        let _ = conn.stream().write_all(sent.as_bytes());
        let (got, ended) = conn.rest(SOON);
        assert_eq!(got, b"", "{sent}");
        assert_ne!(ended, Ended::Open, "{sent}");
        assert!(ended == Ended::Eof || !sent.is_empty());
    }
    eventually(SOON, "three ends", || host.ends("stranger") == 3);
}

fn socket(host: &Host) -> PathBuf {
    host.folder().join("admin.sock")
}

#[test]
fn the_control_socket_is_for_its_owner_alone() {
    let net = Net::one();
    let host = net.host("host");
    host.start();
    let socket = socket(host);
    let mode = || {
        fs::metadata(&socket)
            .expect("the control socket")
            .permissions()
            .mode()
    };
    assert_eq!(mode() & 0o777, 0o600);

    let as_nobody = || {
        let mut curl = Command::new("setpriv");
        curl.args([
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "--",
            "curl",
            "--silent",
        ]);
        curl.arg("--unix-socket")
            .arg(&socket)
            .arg("http://snproxy/status");
        let output = host.namespace().output(&mut curl);
        (output.status.code(), output.stdout)
    };
    assert_eq!(as_nobody(), (Some(NO_CONNECTION), Vec::new()));

    // Not by its mode alone: who gets past that is asked who it is.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("open the socket for all");
    let (code, answer) = as_nobody();
    assert!(code != Some(0) && answer.is_empty(), "{code:?} {answer:?}");
    host.snproxy()
        .wait_for_line(SOON, "a stranger was turned away from the control socket");
    assert!(host.log().contains("uid=1000"), "{}", host.log());
    assert_eq!(host.status()["state"], "running");
}

#[test]
fn garbage_on_the_control_socket_harms_nothing() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("a"));
    host.mappings("1024:30000:9:false\n").start();
    let before = host.snproxy().descriptors();

    let many_headers = format!("GET /status HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let long_line = vec![b'x'; 4 << 20];
    let garbage: [&[u8]; 7] = [
        b"\0\x01\x02\x03",
        b"\r\n\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\n\r\n",
        b"DELETE /status HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /reload HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        many_headers.as_bytes(),
        &long_line,
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(socket(host)).expect("connect");
        stream.set_read_timeout(Some(SOON)).expect("read timeout");
        // It may hang up in the middle.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            !answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            answer.escape_ascii()
        );
        assert_eq!(host.status()["state"], "running");
    }
    assert_eq!(host.count("/generation"), 1);

    // More callers than are answered at once, none of whom says anything: they do not stay for ever.
    let silent: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(socket(host)).expect("connect"))
        .collect();
    assert_eq!(host.status()["state"], "running");
    assert_eq!(host.open(1024).greeting(), "a");
    drop(silent);
    eventually(SOON, "descriptors as before", || {
        host.snproxy().descriptors() == before
    });
}

#[test]
fn a_file_in_the_place_of_the_control_socket_is_left_alone() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("a"));
    fs::write(socket(host), "precious").expect("a file");
    host.mappings("1024:30000:9:false\n").start();

    assert!(host.log().contains("no control socket"), "{}", host.log());
    assert_eq!(
        fs::read_to_string(socket(host)).expect("the file"),
        "precious"
    );
    // It serves without.
    assert_eq!(host.open(1024).greeting(), "a");
}
