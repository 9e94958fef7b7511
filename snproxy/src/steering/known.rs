//! What the kernel was told, port by port.

use crate::addr::Action;

/// The action of every port as last written; `None` where a write failed half way.
#[derive(Clone, Debug)]
pub struct Known(Box<[Option<Action>]>);

impl Known {
    /// A new map: every port passes.
    pub fn new() -> Self {
        Self(vec![Some(Action::Pass); 65_536].into_boxed_slice())
    }

    pub fn get(&self, port: u16) -> Option<Action> {
        self.0[usize::from(port)]
    }

    /// What was written for a port is no longer so.
    pub fn forget(&mut self, port: u16) {
        self.0[usize::from(port)] = None;
    }

    /// Makes the ports named in `want` so; writes only what differs. Gives the number of changes.
    ///
    /// Nothing to do: `write` is not called. Errors: those of `write`; the ports it was given are
    /// unknown from then on, so that the next call writes them again, whatever is wanted then.
    pub fn bring<E>(
        &mut self,
        want: impl IntoIterator<Item = (u16, Action)>,
        write: impl FnOnce(&[(u16, Action)]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let changes: Vec<(u16, Action)> = want
            .into_iter()
            .filter(|(port, action)| self.get(*port) != Some(*action))
            .collect();
        if changes.is_empty() {
            return Ok(0);
        }
        let written = write(&changes);
        for (port, action) in &changes {
            self.0[usize::from(*port)] = written.is_ok().then_some(*action);
        }
        written.map(|()| changes.len())
    }
}

impl Default for Known {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{Pass, Refuse, Steer};

    type Changes = [(u16, Action)];

    #[track_caller]
    fn writes(known: &mut Known, want: &Changes, expected: &Changes) {
        let made = known.bring(want.iter().copied(), |changes| {
            assert_eq!(changes, expected);
            Ok::<_, ()>(())
        });
        assert_eq!(made, Ok(expected.len()));
    }

    #[track_caller]
    fn fails(known: &mut Known, want: &Changes) {
        let made = known.bring(want.iter().copied(), |_| Err("no"));
        assert_eq!(made, Err("no"));
    }

    #[test]
    fn only_differences_are_written() {
        let mut known = Known::new();
        writes(
            &mut known,
            &[(1, Pass), (2, Steer), (3, Refuse)],
            &[(2, Steer), (3, Refuse)],
        );
        writes(
            &mut known,
            &[(1, Pass), (2, Steer), (3, Steer)],
            &[(3, Steer)],
        );
        // Ports that are not named stay what they are.
        writes(&mut known, &[(65535, Pass), (2, Pass)], &[(2, Pass)]);
        assert_eq!(known.get(3), Some(Steer));
    }

    #[test]
    fn nothing_is_called_when_nothing_differs() {
        let made = Known::new().bring([(1, Pass)], |_| -> Result<(), ()> {
            panic!("nothing to write")
        });
        assert_eq!(made, Ok(0));
    }

    #[test]
    fn after_a_failed_write_its_ports_are_written_whatever_is_wanted_then() {
        let mut known = Known::new();
        writes(
            &mut known,
            &[(1, Steer), (2, Steer)],
            &[(1, Steer), (2, Steer)],
        );
        fails(&mut known, &[(1, Pass), (2, Steer), (3, Steer)]);
        assert_eq!(
            [1, 2, 3].map(|port| known.get(port)),
            [None, Some(Steer), None]
        );
        // The failed set may be half there: going back to the old one writes, too.
        fails(&mut known, &[(1, Steer), (2, Steer), (3, Pass)]);
        writes(
            &mut known,
            &[(1, Steer), (2, Steer), (3, Pass)],
            &[(1, Steer), (3, Pass)],
        );
        writes(&mut known, &[(1, Steer), (2, Steer), (3, Pass)], &[]);
    }
}
