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
    open: BTreeMap<u16, L>,
}

impl<L> Sockets<L> {
    pub fn new(host: IpAddr) -> Self {
        Self {
            host,
            open: BTreeMap::new(),
        }
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
            } else if !self.open.contains_key(port) {
                let addr = SocketAddr::new(self.host, *port);
                match open(addr) {
                    Ok(listener) => {
                        self.open.insert(*port, listener);
                    }
                    Err(source) => {
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
        assert_eq!(sockets.open().copied().collect::<Vec<_>>(), [1, 3]);

        // The same again, as a retry does: what is open stays, what failed is made.
        let mut opened = Vec::new();
        let again = sockets.write(&want, |addr| {
            opened.push(addr.port());
            Ok(addr.port())
        });
        assert!(again.is_ok());
        assert_eq!(opened, [2]);

        sockets
            .write(
                &[(1, Action::Refuse), (3, Action::Pass)],
                |_| unreachable!(),
            )
            .unwrap();
        assert_eq!(sockets.open().copied().collect::<Vec<_>>(), [2]);
    }
}
