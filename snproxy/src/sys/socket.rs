//! What a socket still holds, and options that have no safe wrapper.

#![expect(unsafe_code, reason = "neither call has a safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes written to a TCP socket that the other end has not acknowledged; a FIN that waits counts as one.
///
/// Source: tcp(7), SIOCOUTQ.
pub fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the length of the call, and TIOCOUTQ (the same number as SIOCOUTQ) writes
    // one c_int to where the pointer says.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 {
        Ok(usize::try_from(bytes).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets `bind()` to port 0 leave the choice of the port to `connect()`.
///
/// Source: ip(7), `IP_BIND_ADDRESS_NO_PORT` (Linux 4.2), for both families.
pub fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the length of the call, and the kernel reads one c_int, whose size it is told.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_nobody_takes_is_unsent_until_somebody_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut to, _) = listener.accept().unwrap();
        assert_eq!(unsent(&from).unwrap(), 0);
        from.set_nonblocking(true).unwrap();
        while from.write(&[0; 4096]).is_ok() {}
        assert!(unsent(&from).unwrap() > 0);
        drop(from);
        to.read_to_end(&mut Vec::new()).unwrap();
    }
}
