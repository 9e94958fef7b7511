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
