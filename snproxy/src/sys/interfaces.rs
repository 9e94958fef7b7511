//! The addresses of this host's interfaces.

#![expect(unsafe_code, reason = "getifaddrs(3) has no safe wrapper")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// Most addresses that are read.
const MAX_ADDRESSES: usize = 65_536;

/// Returns the IPv4 and IPv6 addresses of all interfaces.
///
/// # Errors
///
/// The kernel does not list them.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: the call writes one pointer to a list that is ours until freeifaddrs.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = first.cast_const();
    // SAFETY: each entry of the list is valid until freeifaddrs, and the last one points to null.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: an entry's address is null, or one that begins with its family.
        found.extend(unsafe { ip(entry.ifa_addr) });
        if found.len() == MAX_ADDRESSES {
            break;
        }
        next = entry.ifa_next;
    }
    // SAFETY: getifaddrs made the list, nothing of it is used after this.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// The IP address that a socket address has.
///
/// # Safety
///
/// `addr` is null, or points to a socket address as long as its family says.
unsafe fn ip(addr: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: by the caller's promise there is a family, where there is an address.
    let family = unsafe { addr.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: by the caller's promise it is a sockaddr_in; unaligned in case it is packed.
            let addr = unsafe { addr.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(addr.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: by the caller's promise it is a sockaddr_in6; as above.
            let addr = unsafe { addr.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(addr.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_address_of_this_host() {
        let found = addresses().unwrap();
        assert!(found.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
    }
}
