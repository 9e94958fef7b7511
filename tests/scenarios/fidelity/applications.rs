//! Ends that read and write in ways of their own.

use super::{DOWN, MIB, SOON, UP, Way, hear, talk, telling};
use rustix::{
    fs::sendfile,
    net::{RecvFlags, recv},
    pipe::{SpliceFlags, pipe, splice},
};
use snproxy_tests::{Conn, Heard, Noise, Pod};
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    fs::File,
    io::{self, Seek, Write},
    net::{Shutdown, TcpStream},
    os::unix::fs::FileExt,
    sync::atomic::AtomicU64,
    thread,
    time::Duration,
};
use tempfile::tempfile;

const CHUNK: usize = 64 << 10;

pub(super) fn splice_and_sendfile_at_both_ends(way: Way) {
    const SIZE: u64 = 24 * MIB;
    let (tell, told) = telling();
    let ground = way.with(Pod::serving(move |guest| {
        let heard = spliced(guest.stream(), UP).expect("splice");
        sent_from_a_file(guest.stream(), DOWN, SIZE).expect("sendfile");
        let _ = tell.send(heard);
    }));

    for _ in 0..2 {
        let conn = ground.open();
        sent_from_a_file(conn.stream(), UP, SIZE).expect("sendfile");
        assert_eq!(spliced(conn.stream(), DOWN).expect("splice"), (SIZE, None));
        assert_eq!(told.next(), (SIZE, None));
    }
    ground.wait_for_all_to_be_gone();
    assert_eq!(ground.entry().ends("clean"), 2);
}

/// Sends noise by sendfile(2), then FIN.
fn sent_from_a_file(to: &TcpStream, seed: u64, size: u64) -> io::Result<()> {
    let mut file = tempfile()?;
    let mut noise = Noise::new(seed);
    let mut left = usize::try_from(size).expect("a size");
    while left > 0 {
        let part = noise.next(left);
        file.write_all(part)?;
        left -= part.len();
    }
    let mut offset = 0;
    while offset < size {
        sendfile(to, &file, Some(&mut offset), 4 * CHUNK)?;
    }
    to.shutdown(Shutdown::Write)
}

/// Reads to FIN by splice(2) into a file: how much came, and where it is wrong.
fn spliced(from: &TcpStream, seed: u64) -> io::Result<(u64, Option<usize>)> {
    let (pipe_out, pipe_in) = pipe()?;
    let mut file = tempfile()?;
    let mut size = 0;
    loop {
        let mut held = splice(from, None, &pipe_in, None, CHUNK, SpliceFlags::MOVE)?;
        if held == 0 {
            break;
        }
        size += held as u64;
        while held > 0 {
            held -= splice(&pipe_out, None, &file, None, held, SpliceFlags::MOVE)?;
        }
    }
    file.rewind()?;
    Ok((size, differs(&file, seed, size)?))
}

fn differs(file: &File, seed: u64, size: u64) -> io::Result<Option<usize>> {
    let mut got = vec![0; usize::try_from(size).expect("a size")];
    file.read_exact_at(&mut got, 0)?;
    Ok(Noise::new(seed).differs(&got))
}

pub(super) fn a_reader_that_waits_for_all(way: Way) {
    /// What it waits for each time: less than a buffer of any mechanism, and more.
    const WHOLES: [usize; 4] = [10_000, 100_000, 1 << 20, 3 << 20];
    let (tell, told) = telling();
    let ground = way.with(Pod::serving(move |guest| {
        let right = wholes(guest.stream(), UP, &WHOLES);
        in_bits(guest.stream(), DOWN, &WHOLES);
        let _ = tell.send(right);
    }));

    let conn = ground.open();
    in_bits(conn.stream(), UP, &WHOLES);
    assert!(wholes(conn.stream(), DOWN, &WHOLES));
    assert!(told.next());
}

fn wholes(from: &TcpStream, seed: u64, sizes: &[usize]) -> bool {
    let mut noise = Noise::new(seed);
    sizes.iter().all(|&size| {
        let mut whole = vec![0; size];
        let got = recv(from, whole.as_mut_slice(), RecvFlags::WAITALL);
        got.is_ok_and(|(_, count)| count == size) && noise.differs(&whole).is_none()
    })
}

/// Sends in segments of all sizes, with pauses now and then.
fn in_bits(to: &TcpStream, seed: u64, sizes: &[usize]) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut noise = Noise::new(seed);
    let mut left = sizes.iter().sum::<usize>() as u64;
    while left > 0 {
        let bit = random.u64(1..=200_000).min(left);
        let _ = noise.pour(to, bit, &AtomicU64::new(0));
        left -= bit;
        if random.u8(..) < 64 {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

pub(super) fn urgent_bytes_stay_in_their_place(way: Way) {
    /// Bytes before each urgent one.
    const BEFORE: [u64; 7] = [0, 1, 1000, 20_000, 200_000, 2 * MIB, 3];
    let (tell, told) = telling();
    let ground = way.with(Pod::serving(move |guest| {
        let heard = hear(guest.stream(), UP);
        let _ = tell.send(heard);
        urgent(guest.stream(), DOWN, &BEFORE);
    }));

    let total = BEFORE.iter().map(|before| before + 1).sum();
    let conn = ground.open();
    urgent(conn.stream(), UP, &BEFORE);
    told.next().is_whole(total);
    // It is an ordinary byte by now: nothing is urgent behind a proxy.
    hear(conn.stream(), DOWN).is_whole(total);
}

/// Sends noise of which one byte now and then is urgent, then FIN.
fn urgent(to: &TcpStream, seed: u64, before: &[u64]) {
    let mut noise = Noise::new(seed);
    for bytes in before {
        let _ = noise.pour(to, *bytes, &AtomicU64::new(0));
        let _ = SockRef::from(to).send_out_of_band(noise.next(1));
    }
    let _ = to.shutdown(Shutdown::Write);
}

pub(super) fn the_smallest_receive_buffers(way: Way) {
    const SIZE: u64 = 256 << 10;
    let (tell, told) = telling();
    let ground = way.with(Pod::serving(move |guest| {
        let _ = SockRef::from(guest.stream()).set_recv_buffer_size(1);
        let _ = tell.send(talk(guest.stream(), (DOWN, SIZE), UP));
    }));

    let to = ground.entry().port(1024);
    let conn = ground.net.client().run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        // The kernel makes 2304 of it.
        socket.set_recv_buffer_size(1).expect("receive buffer");
        socket.connect_timeout(&to.into(), SOON).expect("connect");
        Conn::new(socket.into()).expect("conn")
    });
    let heard: Heard = talk(conn.stream(), (UP, SIZE), DOWN);
    heard.is_whole(SIZE);
    told.next().is_whole(SIZE);
}
