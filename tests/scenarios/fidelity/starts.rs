//! What comes in one segment with a header, a line or an answer.

use super::{DOWN, UP, Way, hear, pour, telling};
use snproxy_tests::{Noise, Peer, Pod, check, request_for};
use std::{net::Shutdown, thread};

/// Nothing, a byte, less and more than a segment, and what a mechanism of its own may begin at.
const SIZES: [usize; 8] = [0, 1, 100, 1460, 16 << 10, 64 << 10, 300_000, 3 << 20];

pub(super) fn bytes_right_behind_a_proxy_header(way: Way) {
    const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.77.0.1 4711 1024\r\n";
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let (tell, told) = telling();
    let (order, orders) = telling::<usize>();
    let ground = way.with(Pod::serving(move |guest| {
        let size = orders.next();
        let _ = guest.send(&Noise::bytes(DOWN, size));
        let _ = guest.stream().shutdown(Shutdown::Write);
        let _ = tell.send(guest.read_all());
    }));

    for size in SIZES {
        for header in [V1, V2] {
            for (port, passed_on) in [(1024, &b""[..]), (1025, header)] {
                order.send(size).expect("order");
                let conn = ground.entry().open(port);
                let sent = [header, &Noise::bytes(UP, size)].concat();
                let heard = thread::scope(|scope| {
                    scope.spawn(|| conn.send(&sent).half_close());
                    hear(conn.stream(), DOWN)
                });
                heard.is_whole(size as u64);
                let got = told.next();
                check(&got[..passed_on.len()], passed_on);
                let got = &got[passed_on.len()..];
                assert_eq!(got.len(), size, "behind {}", header.escape_ascii());
                assert_eq!(Noise::new(UP).differs(got), None);
            }
        }
    }
    ground.wait_for_all_to_be_gone();
    assert_eq!(ground.entry().ends("clean"), 4 * SIZES.len() as u64);
}

pub(super) fn bytes_right_behind_the_line_and_the_answer_of_a_peer(way: Way) {
    if way.across() {
        behind_the_answer(way);
    } else {
        behind_the_line(way);
    }
}

/// The other host's proxy is played here: its answer and the first bytes of its pod are one write.
fn behind_the_answer(way: Way) {
    for size in SIZES {
        let net = way.net();
        let [a, b] = net.all_hosts() else {
            panic!("two hosts")
        };
        let (tell, told) = telling();
        b.peer(Peer::scripted(move |_, guest| {
            let answer = [b"SENDPROXY=false\r\n", &Noise::bytes(DOWN, size)[..]].concat();
            let _ = guest.send(&answer);
            let _ = guest.stream().shutdown(Shutdown::Write);
            let _ = tell.send(hear(guest.stream(), UP));
        }));
        way.choose(a).start();

        let conn = a.open(1024);
        thread::scope(|scope| {
            // There before anybody has answered.
            scope.spawn(|| pour(conn.stream(), UP, size as u64));
            hear(conn.stream(), DOWN).is_whole(size as u64);
        });
        told.next().is_whole(size as u64);
    }
}

/// The other host's proxy is played here: its line and the first bytes of its client are one write.
fn behind_the_line(way: Way) {
    let (tell, told) = telling();
    let (order, orders) = telling::<usize>();
    let ground = way.with(Pod::serving(move |guest| {
        let size = orders.next();
        let _ = guest.send(&Noise::bytes(DOWN, size));
        let _ = guest.stream().shutdown(Shutdown::Write);
        let _ = tell.send(hear(guest.stream(), UP));
    }));

    for size in SIZES {
        order.send(size).expect("order");
        let conn = ground.entry().call(ground.entry());
        let sent = [request_for(1024).as_bytes(), &Noise::bytes(UP, size)].concat();
        thread::scope(|scope| {
            scope.spawn(|| conn.send(&sent).half_close());
            assert_eq!(conn.line(), "SENDPROXY=false");
            let heard = hear(conn.stream(), DOWN);
            heard.is_whole(size as u64);
        });
        told.next().is_whole(size as u64);
    }
}
