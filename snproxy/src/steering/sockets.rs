//! `STEERING listeners`: the same without eBPF, one ordinary socket for each steered port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::addr::Action;

use super::SteeringError;

/// Most ports that `STEERING auto` opens one by one; with more it asks for eBPF.
pub const MAX_AUTO: usize = 1024;

/// The open listeners by port; `L` listens until it is dropped.
#[derive(Debug)]
pub struct Sockets<L> {
    host: IpAddr,
    /// Ports that are not served at `host`.
    apart: BTreeMap<u16, IpAddr>,
    open: BTreeMap<u16, L>,
    /// Ports that could not be opened, and the number of the error.
    failed: BTreeMap<u16, i32>,
}

impl<L> Sockets<L> {
    pub fn new(host: IpAddr) -> Self {
        Self {
            host,
            apart: BTreeMap::new(),
            open: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Ports that could not be opened, with the number of the error; 0: it has none.
    pub fn failed(&self) -> &BTreeMap<u16, i32> {
        &self.failed
    }

    /// From now on these ports have addresses of their own. Gives those that moved, which are closed.
    pub fn place(&mut self, apart: BTreeMap<u16, IpAddr>) -> Vec<u16> {
        let moved = |port: &u16| apart.get(port) != self.apart.get(port);
        let moved: Vec<u16> = self.open.keys().copied().filter(moved).collect();
        for port in &moved {
            self.open.remove(port);
        }
        self.apart = apart;
        moved
    }

    /// Opens what is to be steered, closes all else. A port without a socket is refused by the kernel.
    ///
    /// Errors: the first bind that failed; all others were made. Call again with the same changes.
    pub fn write(
        &mut self,
        changes: &[(u16, Action)],
        mut open: impl FnMut(SocketAddr) -> io::Result<L>,
    ) -> Result<(), SteeringError> {
        let mut first = None;
        for (port, action) in changes {
            if !action.is_steered() {
                self.open.remove(port);
                self.failed.remove(port);
            } else if !self.open.contains_key(port) {
                let ip = self.apart.get(port).unwrap_or(&self.host);
                let addr = SocketAddr::new(*ip, *port);
                match open(addr) {
                    Ok(listener) => {
                        self.open.insert(*port, listener);
                        self.failed.remove(port);
                    }
                    Err(source) => {
                        let number = source.raw_os_error().unwrap_or_default();
                        self.failed.insert(*port, number);
                        first = first.or(Some((addr, source)));
                    }
                }
            }
        }
        match first {
            None => Ok(()),
            Some((addr, source)) => Err(SteeringError::Sys {
                operation: "listen on",
                object: addr.to_string(),
                source,
            }),
        }
    }

    pub fn get(&self, port: u16) -> Option<&L> {
        self.open.get(&port)
    }

    pub fn open(&self) -> impl Iterator<Item = &L> {
        self.open.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_that_cannot_be_opened_holds_up_no_other() {
        let mut sockets = Sockets::new(IpAddr::from([127, 0, 0, 1]));
        let want = [(1, Action::Steer), (2, Action::Steer), (3, Action::Steer)];
        let error = sockets
            .write(&want, |addr| match addr.port() {
                2 => Err(io::ErrorKind::AddrInUse.into()),
                port => Ok(port),
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "listen on 127.0.0.1:2");
        assert!(sockets.failed().keys().eq(&[2]));
        assert_eq!(sockets.open().copied().collect::<Vec<_>>(), [1, 3]);

        // The same again, as a retry does: what is open stays, what failed is made.
        let mut opened = Vec::new();
        let again = sockets.write(&want, |addr| {
            opened.push(addr.port());
            Ok(addr.port())
        });
        assert!(again.is_ok() && sockets.failed().is_empty());
        assert_eq!(opened, [2]);

        sockets
            .write(
                &[(1, Action::Refuse), (3, Action::Pass)],
                |_| unreachable!(),
            )
            .unwrap();
        assert_eq!(sockets.open().copied().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_port_with_another_address_is_opened_there() {
        let ip = |last| IpAddr::from([127, 0, 0, last]);
        let mut sockets = Sockets::new(ip(1));
        let want = [(1, Action::Steer), (2, Action::Steer)];
        let open = |sockets: &mut Sockets<IpAddr>| {
            sockets.write(&want, |addr| Ok(addr.ip())).unwrap();
            sockets.open().copied().collect::<Vec<_>>()
        };
        assert!(sockets.place([(2, ip(2))].into()).is_empty());
        assert_eq!(open(&mut sockets), [ip(1), ip(2)]);
        assert_eq!(sockets.place([(1, ip(3))].into()), [1, 2]);
        assert_eq!(open(&mut sockets), [ip(3), ip(1)]);
        assert!(sockets.place([(1, ip(3))].into()).is_empty());
    }
}
