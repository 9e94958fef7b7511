//! Ports that other local programs listen on, from the kernel's `sock_diag`.

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::addr::canonical;

/// `struct nlmsghdr` and message types, `include/uapi/linux/netlink.h`.
pub(super) const HEADER_LEN: usize = 16;
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
pub(super) const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// `include/uapi/linux/sock_diag.h`.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`, `struct inet_diag_msg`, `include/uapi/linux/inet_diag.h`.
pub(super) const REQUEST_LEN: usize = 56;
pub(super) const ANSWER_LEN: usize = 72;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// The kernel sends no longer message, whatever room there is.
const MESSAGE_MAX: usize = 32 * 1024;
/// The two top bits of an attribute's type are flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// `TCP_LISTEN`, `include/net/tcp_states.h`.
pub(super) const LISTEN: u8 = 10;

/// An answer is there at once; a kernel that gives none must not hold the caller.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a dump that changed under our eyes is asked for again.
const TRIES: u32 = 5;

/// A TCP socket in state LISTEN, of any program in this network namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listening {
    /// Where it listens; port in host byte order, no mapped addresses, no scope.
    pub addr: SocketAddr,
    /// An IPv6 socket that takes no IPv4 connections.
    pub v6_only: bool,
    /// Owner, in the user namespace of the reader.
    pub uid: u32,
    /// As `/proc/<pid>/fd` shows it. Those of [`inode`] are our own.
    pub inode: u32,
}

/// All listening TCP sockets of the calling thread's network namespace, IPv4 and IPv6.
///
/// Needs no privilege. Errors: `NotFound` where the kernel has no `tcp_diag`; `Interrupted` where
/// sockets came and went through all tries, to be asked again.
pub fn listening() -> io::Result<Vec<Listening>> {
    let mut found = dump(AF_INET)?;
    found.extend(dump(AF_INET6)?);
    Ok(found)
}

/// The inode of a socket of our own.
pub fn inode(socket: &impl AsFd) -> io::Result<u32> {
    let stat = rustix::fs::fstat(socket)?;
    u32::try_from(stat.st_ino).map_err(io::Error::other)
}

/// Whether `listening` takes connections to an address of `host`, so that steering its port would
/// take them away.
pub fn owner_of(host: IpAddr, listening: &Listening) -> bool {
    let at = listening.addr.ip();
    match (host.to_canonical(), at) {
        // Dual stack: every address of both families is ours.
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), _) => true,
        (IpAddr::V4(host), IpAddr::V4(at)) => {
            host.is_unspecified() || at.is_unspecified() || host == at
        }
        (IpAddr::V4(_), IpAddr::V6(at)) => at.is_unspecified() && !listening.v6_only,
        (IpAddr::V6(host), IpAddr::V6(at)) => at.is_unspecified() || host == at,
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn dump(family: u8) -> io::Result<Vec<Listening>> {
    for sequence in 1..=TRIES {
        if let Some(found) = dump_once(family, sequence)? {
            return Ok(found);
        }
    }
    Err(ErrorKind::Interrupted.into())
}

/// `None`: the kernel says that the list changed while it was read.
fn dump_once(family: u8, sequence: u32) -> io::Result<Option<Vec<Listening>>> {
    // A socket per dump: what an earlier one left unread is gone with it.
    let mut socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_SOCK_DIAG)),
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&request(family, sequence))?;
    let mut buffer = vec![0; MESSAGE_MAX];
    let mut dump = Dump::new(sequence);
    while !dump.is_done {
        let len = match socket.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        dump.take(buffer.get(..len).unwrap_or_default())?;
    }
    Ok((!dump.has_changed).then_some(dump.found))
}

/// A request for all listening sockets of a family.
pub(super) fn request(family: u8, sequence: u32) -> [u8; HEADER_LEN + REQUEST_LEN] {
    let mut bytes = [0; HEADER_LEN + REQUEST_LEN];
    let len = u32::try_from(bytes.len()).unwrap_or_default();
    bytes[0..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = IPPROTO_TCP;
    bytes[20..24].copy_from_slice(&(1u32 << LISTEN).to_ne_bytes());
    // The rest asks for nothing more: any address, any port.
    bytes
}

/// An answer in the making.
struct Dump {
    sequence: u32,
    found: Vec<Listening>,
    has_changed: bool,
    is_done: bool,
}

impl Dump {
    fn new(sequence: u32) -> Self {
        Self {
            sequence,
            found: Vec::new(),
            has_changed: false,
            is_done: false,
        }
    }

    /// Takes one datagram: messages one after the other.
    ///
    /// Errors: the kernel's, or `InvalidData` where the bytes are not such messages.
    fn take(&mut self, mut datagram: &[u8]) -> io::Result<()> {
        while !datagram.is_empty() && !self.is_done {
            let header: &[u8; HEADER_LEN] = datagram.first_chunk().ok_or_else(invalid)?;
            let [l0, l1, l2, l3, t0, t1, f0, f1, s0, s1, s2, s3, ..] = *header;
            let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3]))
                .ok()
                .filter(|len| *len >= HEADER_LEN)
                .ok_or_else(invalid)?;
            let body = datagram.get(HEADER_LEN..len).ok_or_else(invalid)?;
            datagram = after(datagram, len);
            if u32::from_ne_bytes([s0, s1, s2, s3]) != self.sequence {
                // Not an answer to us.
                continue;
            }
            self.has_changed |= u16::from_ne_bytes([f0, f1]) & NLM_F_DUMP_INTR != 0;
            match u16::from_ne_bytes([t0, t1]) {
                SOCK_DIAG_BY_FAMILY => self.found.extend(answer(body)?),
                NLMSG_DONE | NLMSG_ERROR => {
                    // Both carry a negative errno, or 0; DONE may leave it out.
                    match body.first_chunk().map(|errno| i32::from_ne_bytes(*errno)) {
                        Some(errno) if errno < 0 => {
                            return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
                        }
                        _ => self.is_done = true,
                    }
                }
                NLMSG_OVERRUN => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// One `inet_diag_msg` with its attributes; `None` for a socket that is not in LISTEN.
fn answer(body: &[u8]) -> io::Result<Option<Listening>> {
    let (fixed, mut attributes): (&[u8; ANSWER_LEN], _) =
        body.split_first_chunk().ok_or_else(invalid)?;
    let word = |at: usize| fixed.get(at..).and_then(|rest| rest.first_chunk().copied());
    let number = |at| word(at).map_or(0, u32::from_ne_bytes);
    let [family, state, _, _, port0, port1, _, _, source @ ..] = fixed;
    if *state != LISTEN {
        return Ok(None);
    }
    let ip: IpAddr = match *family {
        AF_INET => word(8).map(Ipv4Addr::from).ok_or_else(invalid)?.into(),
        AF_INET6 => {
            let address: &[u8; 16] = source.first_chunk().ok_or_else(invalid)?;
            Ipv6Addr::from(*address).into()
        }
        _ => return Err(invalid()),
    };
    let mut v6_only = false;
    while let Some([l0, l1, t0, t1]) = attributes.first_chunk().copied() {
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(4..len).ok_or_else(invalid)?;
        if u16::from_ne_bytes([t0, t1]) & ATTRIBUTE_TYPE == INET_DIAG_SKV6ONLY {
            v6_only = value.first().is_some_and(|only| *only != 0);
        }
        attributes = after(attributes, len);
    }
    let port = u16::from_be_bytes([*port0, *port1]);
    Ok(Some(Listening {
        addr: canonical(SocketAddr::new(ip, port)),
        v6_only,
        uid: number(64),
        inode: number(68),
    }))
}

/// What follows an item of `len` bytes: items begin at multiples of four, the last needs no padding.
fn after(bytes: &[u8], len: usize) -> &[u8] {
    bytes.get(len.next_multiple_of(4)..).unwrap_or_default()
}

pub(super) fn invalid() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "not a sock_diag answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of Linux 6.18: IPv4 127.0.0.1:1024 of user 1000 and 0.0.0.0:80.
    const IPV4: &str = "\
        7c0000001400020001000000df3e0000020a0000040000007f00000100000000000000000000000000000000\
        000000000000000000000000000000000800000000000000000000000000000005000000e8030000f7b80300\
        050008000000000008000f00000000000c001500010000000000000006001600520000007c00000014000200\
        01000000df3e0000020a00000050000000000000000000000000000000000000000000000000000000000000\
        0000000000000000090000000000000000000000000000000500000000000000f8b803000500080000000000\
        08000f00000000000c00150001000000000000000600160052000000";
    /// IPv6 `[::]:2000` for both families, `[::ffff:127.0.0.3]:2002`, `[::1]:2001` for IPv6 only.
    const IPV6: &str = "\
        840000001400020001000000df3e00000a0a000007d000000000000000000000000000000000000000000000\
        000000000000000000000000000000000a0000000000000000000000000000000500000000000000f9b80300\
        050008000000000005000b000000000008000f00000000000c00150001000000000000000600160012000000\
        840000001400020001000000df3e00000a0a000007d2000000000000000000000000ffff7f00000300000000\
        000000000000000000000000000000000b0000000000000000000000000000000500000000000000fbb80300\
        050008000000000005000b000000000008000f00000000000c00150001000000000000000600160012000000\
        840000001400020001000000df3e00000a0a000007d100000000000000000000000000000000000100000000\
        000000000000000000000000000000000c0000000000000000000000000000000500000000000000fab80300\
        050008000000000005000b000100000008000f00000000000c00150001000000000000000600160012000000";
    const DONE: &str = "140000000300020001000000df3e000000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.chunks(2).map(|pair| byte(pair).unwrap()).collect()
    }

    fn at(addr: &str, v6_only: bool, uid: u32, inode: u32) -> Listening {
        Listening {
            addr: addr.parse().unwrap(),
            v6_only,
            uid,
            inode,
        }
    }

    #[test]
    fn answers_in_several_parts_are_one_list() {
        let mut dump = Dump::new(1);
        for part in [IPV4, IPV6, DONE] {
            assert!(!dump.is_done);
            dump.take(&bytes(part)).unwrap();
        }
        assert!(dump.is_done && !dump.has_changed);
        let expected = [
            at("127.0.0.1:1024", false, 1000, 243_959),
            at("0.0.0.0:80", false, 0, 243_960),
            at("[::]:2000", false, 0, 243_961),
            at("127.0.0.3:2002", false, 0, 243_963),
            at("[::1]:2001", true, 0, 243_962),
        ];
        assert_eq!(dump.found, expected);
    }

    #[test]
    fn a_cut_answer_is_an_error_or_wants_more() {
        let whole = bytes(&[IPV4, IPV6, DONE].concat());
        let mut all = Dump::new(1);
        all.take(&whole).unwrap();
        for len in 0..whole.len() {
            let mut dump = Dump::new(1);
            let taken = dump.take(&whole[..len]);
            assert!(!dump.is_done, "{len}");
            assert!(all.found.starts_with(&dump.found), "{len}");
            // Whole messages, or InvalidData.
            let whole_messages = [0, 124, 248, 380, 512, 644].contains(&len);
            assert_eq!(taken.is_ok(), whole_messages, "{len}");
        }
    }

    #[test]
    fn damaged_answers_never_panic() {
        let whole = bytes(&[IPV4, IPV6, DONE].concat());
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..200_000 {
            let mut damaged = whole.clone();
            for _ in 0..=random() % 4 {
                let at = usize::try_from(random()).unwrap() % damaged.len();
                damaged[at] = random().to_le_bytes()[0];
            }
            let _ = Dump::new(1).take(&damaged);
        }
    }

    #[test]
    fn the_kernels_errors_are_errors() {
        let refused = |hex: &str| Dump::new(1).take(&bytes(hex)).unwrap_err();
        // NLMSG_ERROR with -ENOENT, NLMSG_DONE with -EINVAL, NLMSG_OVERRUN.
        let error =
            refused("240000000200000001000000000000 00feffffff0000000000000000000000000000000000");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = refused("140000000300020001000000a4360000eaffffff");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        let error = refused("10000000040000000100000000000000");
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    }

    #[test]
    fn a_changed_list_is_marked_and_other_answers_are_left_out() {
        let mut dump = Dump::new(1);
        // NLM_F_DUMP_INTR beside NLM_F_MULTI.
        dump.take(&bytes("140000000300120001000000a436000000000000"))
            .unwrap();
        assert!(dump.is_done && dump.has_changed);

        let mut later = Dump::new(2);
        later.take(&bytes(&[IPV4, DONE].concat())).unwrap();
        assert!(!later.is_done && later.found.is_empty());
    }

    #[test]
    fn a_listener_owns_what_it_would_be_given() {
        #[track_caller]
        fn check(host: &str, listening: &str, v6_only: bool, owns: bool) {
            let listening = at(&format!("{listening}:1024"), v6_only, 0, 0);
            assert_eq!(owner_of(host.parse().unwrap(), &listening), owns, "{host}");
        }
        check("192.0.2.1", "192.0.2.1", false, true);
        check("192.0.2.1", "127.0.0.1", false, false);
        check("192.0.2.1", "0.0.0.0", false, true);
        check("192.0.2.1", "[::]", false, true);
        check("192.0.2.1", "[::]", true, false);
        check("192.0.2.1", "[::1]", false, false);
        check("0.0.0.0", "127.0.0.1", false, true);
        check("0.0.0.0", "[::]", false, true);
        check("0.0.0.0", "[::]", true, false);
        check("0.0.0.0", "[::1]", false, false);
        check("2001:db8::1", "[2001:db8::1]", false, true);
        check("2001:db8::1", "[::]", true, true);
        check("2001:db8::1", "[::1]", false, false);
        check("2001:db8::1", "0.0.0.0", false, false);
        check("::", "127.0.0.1", false, true);
        check("::", "[::1]", true, true);
        check("::", "[::]", true, true);
        check("::ffff:192.0.2.1", "192.0.2.1", false, true);
    }

    #[test]
    fn our_own_listener_is_listed_without_any_privilege() {
        let ours = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(ours.local_addr().unwrap()).unwrap();
        let found = listening().unwrap();
        let found_here: Vec<_> = found
            .iter()
            .filter(|one| one.inode == inode(&ours).unwrap())
            .collect();
        let expected = Listening {
            addr: ours.local_addr().unwrap(),
            v6_only: false,
            uid: rustix::process::geteuid().as_raw(),
            inode: inode(&ours).unwrap(),
        };
        assert_eq!(found_here, [&expected]);
        let other = inode(&connected).unwrap();
        assert!(found.iter().all(|one| one.inode != other));
    }
}
