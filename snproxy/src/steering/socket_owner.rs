//! Which user has the other end of a connection within this network namespace, from the kernel's `sock_diag`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

use super::conflict::{
    AF_INET, AF_INET6, ANSWER_LEN, HEADER_LEN, LISTEN, NLM_F_REQUEST, NLMSG_ERROR, REQUEST_LEN,
    SOCK_DIAG_BY_FAMILY, invalid, request,
};

/// Room for one answer with its attributes.
const ANSWER_MAX: usize = 1024;
/// The one request of a socket.
const SEQUENCE: u32 = 1;

/// A socket of this network namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketOwner {
    /// In the user namespace of the reader.
    pub uid: u32,
}

/// The owner of the TCP socket at `local` that is connected to `remote`; `None`: there is no such socket, or no
/// program has it open.
///
/// One look-up in the kernel's table of connections, which takes some microseconds and waits for nothing.
///
/// # Errors
///
/// Those of the kernel's, where it has no `tcp_diag`.
pub fn owner(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<SocketOwner>> {
    let Some(request) = exact(local, remote) else {
        return Ok(None);
    };
    let (answer, len) = ask(&request)?;
    let answer = fixed_part(answer.get(..len).unwrap_or_default())?;
    Ok(answer.and_then(|fixed| found(fixed, &request)))
}

/// Whether a program of this network namespace listens for connections to `addr`, as the kernel would find it; costs
/// what [`owner`] does, and the program sees nothing of it.
///
/// # Errors
///
/// Those of the kernel's, where it has no `tcp_diag`.
pub fn listens(addr: SocketAddr) -> io::Result<bool> {
    let any: IpAddr = match addr.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let Some(request) = exact(addr, SocketAddr::new(any, 0)) else {
        return Ok(false);
    };
    let (answer, len) = ask(&request)?;
    let answer = fixed_part(answer.get(..len).unwrap_or_default())?;
    Ok(answer.is_some_and(|fixed| fixed.get(1) == Some(&LISTEN)))
}

/// The kernel's answer to a request for one socket.
fn ask(request: &[u8]) -> io::Result<([u8; ANSWER_MAX], usize)> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_SOCK_DIAG)),
    )?;
    socket.send(request)?;
    let mut answer = [0; ANSWER_MAX];
    // The kernel answers before the send returns.
    let (len, _) = recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    Ok((answer, len))
}

/// A request for one socket; `None`: the ends differ in family.
fn exact(local: SocketAddr, remote: SocketAddr) -> Option<[u8; HEADER_LEN + REQUEST_LEN]> {
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = request(family, SEQUENCE);
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    // In any state: `struct inet_diag_sockid` alone tells.
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes[24..26].copy_from_slice(&local.port().to_be_bytes());
    bytes[26..28].copy_from_slice(&remote.port().to_be_bytes());
    match (local.ip(), remote.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            bytes[28..32].copy_from_slice(&local.octets());
            bytes[44..48].copy_from_slice(&remote.octets());
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            bytes[28..44].copy_from_slice(&local.octets());
            bytes[44..60].copy_from_slice(&remote.octets());
        }
        _ => return None,
    }
    // A link-local socket belongs to its interface.
    if let SocketAddr::V6(local) = local {
        bytes[60..64].copy_from_slice(&local.scope_id().to_ne_bytes());
    }
    // INET_DIAG_NOCOOKIE, twice.
    bytes[64..72].copy_from_slice(&[0xff; 8]);
    Some(bytes)
}

/// The `inet_diag_msg` of an answer; `None`: there is no such socket.
fn fixed_part(answer: &[u8]) -> io::Result<Option<&[u8]>> {
    let (header, body) = answer
        .split_first_chunk::<HEADER_LEN>()
        .ok_or_else(invalid)?;
    let [_, _, _, _, t0, t1, ..] = *header;
    match u16::from_ne_bytes([t0, t1]) {
        SOCK_DIAG_BY_FAMILY => {}
        NLMSG_ERROR => {
            let errno = body.first_chunk().map(|errno| i32::from_ne_bytes(*errno));
            return match errno {
                Some(errno) if errno == -libc::ENOENT => Ok(None),
                Some(errno) if errno < 0 => {
                    Err(io::Error::from_raw_os_error(errno.saturating_neg()))
                }
                _ => Err(invalid()),
            };
        }
        _ => return Err(invalid()),
    }
    body.get(..ANSWER_LEN).ok_or_else(invalid).map(Some)
}

/// The owner of the socket of this request.
fn found(fixed: &[u8], request: &[u8]) -> Option<SocketOwner> {
    let number = |at: usize| {
        let word = fixed.get(at..).and_then(|rest| rest.first_chunk().copied());
        word.map_or(0, u32::from_ne_bytes)
    };
    // Without a connection the kernel gives a listening socket at `local`.
    let is_it = ends(fixed, 4).is_some_and(|found| Some(found) == ends(request, 24));
    // A socket that its program has closed has no inode, and counts as root's.
    let (uid, inode) = (number(64), number(68));
    (is_it && inode != 0).then_some(SocketOwner { uid })
}

/// Ports and addresses of `struct inet_diag_sockid`, which begins at `at`. An IPv6 socket that is connected over IPv4 has
/// mapped addresses.
fn ends(bytes: &[u8], at: usize) -> Option<([u8; 4], [u8; 16], [u8; 16])> {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let (ports, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (local, rest) = rest.split_first_chunk::<16>()?;
    let (remote, _) = rest.split_first_chunk::<16>()?;
    let canonical = |address: &[u8; 16]| {
        let mut plain = [0; 16];
        match address.strip_prefix(&MAPPED) {
            Some(v4) => plain[..4].copy_from_slice(v4),
            None => plain = *address,
        }
        plain
    };
    Some((*ports, canonical(local), canonical(remote)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::addr::canonical;

    fn pair(at: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(at).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_connected_socket_has_its_owner_until_it_is_closed() {
        let uid = rustix::process::geteuid().as_raw();
        for at in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let (client, accepted) = pair(at);
            let ends = (
                canonical(accepted.peer_addr().unwrap()),
                canonical(accepted.local_addr().unwrap()),
            );
            let ask = || owner(ends.0, ends.1).unwrap();
            assert_eq!(ask(), Some(SocketOwner { uid }));
            // The kernel keeps the connection while the other end is open.
            drop(client);
            assert_eq!(ask(), None);
        }
    }

    #[test]
    fn a_listener_at_the_same_port_is_not_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(owner(at, "127.0.0.1:9".parse().unwrap()).unwrap(), None);
        let mixed = owner(at, "[::1]:9".parse().unwrap()).unwrap();
        assert_eq!(mixed, None);
    }

    #[test]
    fn a_listener_is_found_without_a_connection() {
        for (at, by) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.7"),
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "::1"),
        ] {
            let listener = TcpListener::bind(at).unwrap();
            listener.set_nonblocking(true).unwrap();
            let port = listener.local_addr().unwrap().port();
            let addr = SocketAddr::new(by.parse().unwrap(), port);
            assert!(listens(addr).unwrap(), "{at} {by}");
            assert!(listener.accept().is_err(), "nobody connected");
            drop(listener);
            assert!(!listens(addr).unwrap(), "{at} {by}");
        }
    }

    #[test]
    fn cut_and_damaged_answers_never_panic() {
        let request = exact(
            "127.0.0.1:1".parse().unwrap(),
            "127.0.0.1:2".parse().unwrap(),
        );
        let request = request.unwrap();
        let mut answer = [0; HEADER_LEN + ANSWER_LEN];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        for len in 0..answer.len() {
            assert!(fixed_part(&answer[..len]).is_err(), "{len}");
        }
        let fixed = fixed_part(&answer).unwrap().unwrap();
        assert_eq!(found(fixed, &request), None);
    }
}
