//! Which port brings so many connections at once that those of other ports wait behind them in the one accept queue.

use std::collections::HashMap;

/// What is accepted in one go before anybody is suspected.
const FREE: usize = 32;
/// Connections of one port among the further ones that make it a crowd.
const CROWD: u32 = 64;

/// Counts ports while a queue is emptied.
#[derive(Debug, Default)]
pub(super) struct Crowd(HashMap<u16, u32>);

impl Crowd {
    /// Notes a connection of `port` before which `before` others were accepted in the same go: the port, when that makes it a
    /// crowd. While few wait nobody's port is asked for.
    pub(super) fn note(
        &mut self,
        before: usize,
        port: impl FnOnce() -> Option<u16>,
    ) -> Option<u16> {
        if before < FREE {
            if before == 0 && !self.0.is_empty() {
                self.0.clear();
            }
            return None;
        }
        let port = port()?;
        let count = self.0.entry(port).or_default();
        *count += 1;
        (*count == CROWD).then_some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which ports are a crowd in one go that brings these connections.
    fn crowds(crowd: &mut Crowd, ports: impl IntoIterator<Item = u16>) -> Vec<u16> {
        let ports = ports.into_iter().enumerate();
        ports
            .filter_map(|(before, port)| crowd.note(before, || Some(port)))
            .collect()
    }

    #[test]
    fn a_port_that_fills_the_queue_is_a_crowd_and_said_once() {
        let mut crowd = Crowd::default();
        assert_eq!(crowds(&mut crowd, vec![1024; 95]), [0; 0]);
        assert_eq!(crowds(&mut crowd, vec![1024; 256]), [1024]);
        // The next go counts anew.
        assert_eq!(crowds(&mut crowd, vec![1024; 95]), [0; 0]);
        assert_eq!(crowds(&mut crowd, vec![1024; 96]), [1024]);
    }

    #[test]
    fn many_ports_with_a_few_each_are_none() {
        let mut crowd = Crowd::default();
        let many = (0..256).map(|index| 1024 + index % 8);
        assert_eq!(crowds(&mut crowd, many), [0; 0]);
        // Whoever waits among a crowd is not part of it.
        let one_among_many = (0..256).map(|index| if index % 10 == 0 { 2000 } else { 1024 });
        assert_eq!(crowds(&mut crowd, one_among_many), [1024]);
    }

    #[test]
    fn nobody_is_asked_for_a_port_while_few_wait() {
        let mut crowd = Crowd::default();
        for before in 0..FREE {
            let asked = crowd.note(before, || panic!("asked"));
            assert_eq!(asked, None);
        }
        // Who is gone already has none.
        assert_eq!(crowd.note(FREE, || None), None);
    }
}
