//! Frames on the wires of a namespace, counted without a program of the kernel.

use crate::Namespace;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::Read,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// All protocols; the kernel wants it in network byte order.
const ETH_P_ALL: u16 = 0x0003;
const BEAT: Duration = Duration::from_millis(50);
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Counts attempts to reach some addresses; dropped, it ends.
pub struct Watch {
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    syns: AtomicU64,
    asked: AtomicU64,
    stop: AtomicBool,
}

/// A frame that tries to reach somebody.
#[derive(Debug, Eq, PartialEq)]
enum Attempt {
    Syn {
        from: Ipv4Addr,
        to: Ipv4Addr,
    },
    /// Who has this address?
    Asked {
        from: Ipv4Addr,
        whom: Ipv4Addr,
    },
}

impl Namespace {
    /// Counts what `from`, an address of this namespace, sends to reach the addresses that `to` picks.
    #[track_caller]
    pub fn watch(&self, from: Ipv4Addr, to: impl Fn(Ipv4Addr) -> bool + Send + 'static) -> Watch {
        let all = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = self
            .run(|| Socket::new(Domain::PACKET, Type::RAW, Some(all)))
            .expect("packet socket");
        socket.set_read_timeout(Some(BEAT)).expect("read timeout");
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let thread = thread::spawn(move || {
            let mut frame = [0; 128];
            while !shared.stop.load(Relaxed) {
                let Ok(length) = (&socket).read(&mut frame) else {
                    continue;
                };
                match attempt(&frame[..length]) {
                    Some(Attempt::Syn { from: by, to: whom }) if by == from && to(whom) => {
                        shared.syns.fetch_add(1, Relaxed);
                    }
                    Some(Attempt::Asked { from: by, whom }) if by == from && to(whom) => {
                        shared.asked.fetch_add(1, Relaxed);
                    }
                    _ => {}
                }
            }
        });
        Watch {
            counts,
            thread: Some(thread),
        }
    }
}

impl Watch {
    /// SYN segments, those sent again included.
    pub fn syns(&self) -> u64 {
        self.counts.syns.load(Relaxed)
    }

    /// ARP requests: an address that nobody has is asked for, and no SYN follows.
    pub fn asked(&self) -> u64 {
        self.counts.asked.load(Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.counts.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads an Ethernet frame with IPv4 and TCP, or with ARP; all others are `None`.
fn attempt(frame: &[u8]) -> Option<Attempt> {
    let address = |at: usize| {
        let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    match frame.get(12..14)? {
        [0x08, 0x06] if frame.get(20..22)? == [0, 1] => Some(Attempt::Asked {
            from: address(28)?,
            whom: address(38)?,
        }),
        [0x08, 0x00] if *frame.get(23)? == 6 => {
            let header = usize::from(frame.get(14)? & 0x0f) * 4;
            let flags = frame.get(14 + header + 13)?;
            (flags & (SYN | ACK) == SYN).then_some(Attempt::Syn {
                from: address(26)?,
                to: address(30)?,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const TO: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);

    fn tcp(flags: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend(FROM.octets());
        frame.extend(TO.octets());
        frame.extend([0; 13]);
        frame.push(flags);
        frame
    }

    #[test]
    fn a_syn_and_a_question_are_told_from_all_else() {
        let mut question = vec![0; 12];
        question.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0]);
        question.extend(FROM.octets());
        question.extend([0; 6]);
        question.extend(TO.octets());
        let asked = Attempt::Asked {
            from: FROM,
            whom: TO,
        };
        assert_eq!(attempt(&question), Some(asked));
        assert_eq!(
            attempt(&tcp(SYN)),
            Some(Attempt::Syn { from: FROM, to: TO })
        );
        for other in [
            tcp(ACK),
            tcp(SYN | ACK),
            vec![0; 60],
            tcp(SYN)[..40].to_vec(),
        ] {
            assert_eq!(attempt(&other), None, "{other:?}");
        }
    }
}
