//! Many connections that are held, in a process of their own: descriptors of one process would not do for both ends.
//!
//! `hold pods ADDRESS`: tells each connection its number, from 1, and holds it until the other end closes.
//! `hold clients ADDRESS COUNT FREE`: opens that many one after the other and holds them; says what became of them, and, told by
//! SIGUSR1, closes FREE of those that were served, one at a time, and says who is served next.

#![expect(clippy::print_stdout, reason = "it tells what came of it")]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

/// Nothing new for so long: it stays so.
const CALM: Duration = Duration::from_secs(3);
/// How long that may take.
const LIMIT: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(10);

/// What a held connection has come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Waits,
    /// A pod has it.
    Served,
    /// FIN before a byte.
    Closed,
    Reset,
}

struct Held {
    stream: Option<TcpStream>,
    state: State,
}

fn main() {
    // As many as there may be: every connection is a descriptor.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("raise the limit of descriptors");
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pods", address] => pods(address.parse().expect("an address")),
        ["clients", address, count, free] => clients(
            address.parse().expect("an address"),
            count.parse().expect("a number"),
            free.parse().expect("a number"),
        ),
        _ => panic!("hold pods ADDRESS | hold clients ADDRESS COUNT FREE"),
    }
}

fn pods(address: SocketAddr) {
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    listener.bind(&address.into()).expect("bind");
    // The kernel's own bound: a queue of 128 would be full while the crowd comes.
    listener.listen(i32::MAX).expect("listen");
    println!("listens");
    let (accepted, come) = mpsc::channel::<TcpStream>();
    thread::spawn(move || {
        let mut held = Vec::new();
        loop {
            held.extend(come.try_iter());
            held.retain_mut(|stream| !is_over(stream));
            thread::sleep(PAUSE);
        }
    });
    for (number, stream) in (1..).zip(TcpListener::from(listener).incoming()) {
        let mut stream = stream.expect("accept");
        // A client may be gone by now.
        let _ = writeln!(stream, "{number}");
        stream.set_nonblocking(true).expect("set non-blocking");
        accepted.send(stream).expect("the other thread lives");
    }
}

/// Whether the other end has closed.
fn is_over(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn clients(address: SocketAddr, count: usize, free: usize) {
    let mut go = Signals::new([SIGUSR1]).expect("wait for a signal");
    let mut held: Vec<Held> = (0..count)
        .map(|_| {
            let stream = match TcpStream::connect(address) {
                Ok(stream) => stream,
                // So soon that connect() was still waiting for its thread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Held {
                        stream: None,
                        state: State::Reset,
                    };
                }
                Err(error) => panic!("connect: {error}"),
            };
            stream.set_nonblocking(true).expect("set non-blocking");
            Held {
                stream: Some(stream),
                state: State::Waits,
            }
        })
        .collect();
    settle(&mut held);
    let of = |held: &[Held], state| held.iter().filter(|one| one.state == state).count();
    println!(
        "settled: {} served, {} wait, {} closed, {} reset",
        of(&held, State::Served),
        of(&held, State::Waits),
        of(&held, State::Closed),
        of(&held, State::Reset)
    );
    // Whoever asked looks around before anybody leaves.
    go.forever().next();
    let leaving: Vec<usize> = (0..count)
        .filter(|at| held[*at].state == State::Served)
        .take(free)
        .collect();
    for leaver in leaving {
        held[leaver].stream = None;
        let deadline = Instant::now() + LIMIT;
        let mut served = Vec::new();
        while served.is_empty() && Instant::now() < deadline {
            thread::sleep(PAUSE);
            for one in held.iter_mut().filter(|one| one.state == State::Waits) {
                if look(one) {
                    served.extend(one.stream.as_ref().and_then(|it| it.local_addr().ok()));
                }
            }
        }
        for address in served {
            println!("next {address}");
        }
    }
    println!("freed");
    loop {
        thread::park();
    }
}

/// Looks until nothing changes any more.
fn settle(held: &mut [Held]) {
    let (start, mut changed) = (Instant::now(), Instant::now());
    while changed.elapsed() < CALM && start.elapsed() < LIMIT {
        for one in held.iter_mut() {
            if one.state == State::Waits && look(one) {
                changed = Instant::now();
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Whether something became of a connection that waited.
fn look(held: &mut Held) -> bool {
    let Some(stream) = &mut held.stream else {
        return false;
    };
    held.state = match stream.read(&mut [0; 16]) {
        Ok(0) => State::Closed,
        Ok(_) => State::Served,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
        Err(_) => State::Reset,
    };
    if held.state != State::Served {
        held.stream = None;
    }
    true
}
