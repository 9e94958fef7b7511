//! `rr`: one after the other.

/// The pod whose turn it is; the turns of pods that are out go round among the others.
pub(super) fn pick(count: usize, eligible: impl Fn(usize) -> bool, turn: u32) -> Option<usize> {
    let turn = turn as usize;
    let next = turn.checked_rem(count)?;
    if eligible(next) {
        return Some(next);
    }
    let open = (0..count).filter(|pod| eligible(*pod)).count();
    (0..count)
        .filter(|pod| eligible(*pod))
        .nth(turn.checked_rem(open)?)
}
