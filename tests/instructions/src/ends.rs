//! Clients and the pod, in lockstep with the proxy: the next step is taken when the proxy sleeps.
//!
//! So every run wakes it equally often, once per step: as often as a connection can ask for that has the proxy to itself.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::thread;

use rustix::process::{Signal, getppid, kill_process};
use socket2::{Domain, Socket, Type};

const MESSAGE: usize = 64;
const BLOCK: usize = 64 * 1024;
/// Blocks that a stream in lockstep finds in its receive queue at once.
const AT_ONCE: u16 = 2;
/// Receive and send buffers of clients and pods: room for all that is under way. As much as the kernel's default limit allows.
const BUFFER: usize = 212_992;

pub(crate) fn run() {
    // Standard input is a socket, by which we answer as well.
    let stdin = io::stdin().as_fd().try_clone_to_owned().expect("stdin");
    let mut answers = UnixStream::from(stdin);
    let asked = BufReader::new(answers.try_clone().expect("the socket of stdin"));
    let pods = socket();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    pods.bind(&any.into()).expect("bind");
    pods.listen(16).expect("listen");
    let pods = TcpListener::from(pods);
    let port = pods.local_addr().expect("its address").port();
    writeln!(answers, "{port}").expect("answer");

    let mut proxy = 0;
    let mut open = None;
    for line in asked.lines() {
        let line = line.expect("a line");
        let (word, number) = line.split_once(' ').unwrap_or((&line, "0"));
        let number: u16 = number.parse().expect("a number");
        match word {
            "to" => proxy = number,
            "open" => open = Some(Pair::open(proxy, &pods)),
            "close" => open.take().expect("an open one").close(),
            "connections" => {
                for _ in 0..number {
                    let mut pair = Pair::open(proxy, &pods);
                    pair.request();
                    pair.close();
                }
            }
            "requests" => {
                let pair = open.as_mut().expect("an open one");
                for _ in 0..number {
                    pair.request();
                }
            }
            "flow" => {
                let Pair { client, pod } = open.as_ref().expect("an open one");
                flow(client, pod, number);
                flow(pod, client, number);
            }
            "up" => {
                let Pair { client, pod } = open.as_ref().expect("an open one");
                stream(client, pod, number);
            }
            "down" => {
                let Pair { client, pod } = open.as_ref().expect("an open one");
                stream(pod, client, number);
            }
            other => panic!("unknown word {other}"),
        }
        settle();
        writeln!(answers, "done").expect("answer");
    }
}

/// Both ends of one proxied connection.
struct Pair {
    client: TcpStream,
    pod: TcpStream,
}

impl Pair {
    fn open(proxy: u16, pods: &TcpListener) -> Self {
        let client = socket();
        let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, proxy));
        client.connect(&proxy.into()).expect("connect");
        let client = TcpStream::from(client);
        settle();
        let (pod, _) = pods.accept().expect("a connection");
        for end in [&client, &pod] {
            end.set_nodelay(true).expect("TCP_NODELAY");
        }
        Self { client, pod }
    }

    fn request(&mut self) {
        let mut message = [7; MESSAGE];
        self.client.write_all(&message).expect("a request");
        settle();
        self.pod.read_exact(&mut message).expect("the request");
        self.pod.write_all(&message).expect("a response");
        settle();
        self.client.read_exact(&mut message).expect("the response");
    }

    fn close(mut self) {
        self.client.shutdown(Shutdown::Write).expect("a FIN");
        settle();
        assert_eq!(self.pod.read(&mut [0]).expect("the client's FIN"), 0);
        drop(self.pod);
        settle();
        assert_eq!(self.client.read(&mut [0]).expect("the pod's FIN"), 0);
    }
}

/// A socket whose buffers do not depend on what it has seen.
fn socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(BUFFER).expect("SO_RCVBUF");
    socket.set_send_buffer_size(BUFFER).expect("SO_SNDBUF");
    socket
}

/// A stream at full speed, after which the kernel's buffers of the proxy have grown.
fn flow(mut from: &TcpStream, mut to: &TcpStream, blocks: u16) {
    thread::scope(|scope| {
        scope.spawn(move || {
            let block = vec![7; BLOCK];
            for _ in 0..blocks {
                from.write_all(&block).expect("a block");
            }
        });
        let mut block = vec![0; BLOCK];
        for _ in 0..blocks {
            to.read_exact(&mut block).expect("the block");
        }
    });
}

/// A stream in lockstep. The proxy is stopped while its receive queue fills, so that it always finds the same there.
fn stream(mut from: &TcpStream, mut to: &TcpStream, blocks: u16) {
    let mut bytes = vec![7; BLOCK * usize::from(AT_ONCE)];
    for _ in 0..blocks / AT_ONCE {
        signal(Signal::STOP);
        from.write_all(&bytes).expect("blocks");
        signal(Signal::CONT);
        settle();
        to.read_exact(&mut bytes).expect("the blocks");
    }
}

/// Stops or continues the proxy.
fn signal(signal: Signal) {
    kill_process(getppid().expect("a parent"), signal).expect("a signal");
    while signal == Signal::STOP && state() != 'T' {}
}

/// Waits until the proxy sleeps: it has nothing left to do. Loopback delivers before a write returns, so the proxy is awake from
/// then on.
fn settle() {
    while state() != 'S' {
        thread::yield_now();
    }
}

/// The state of the proxy, our parent, as the kernel names it.
fn state() -> char {
    let path = format!("/proc/{}/stat", parent_id());
    let stat = fs::read_to_string(path).expect("the proxy's state");
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.expect("a state after the name")
}
