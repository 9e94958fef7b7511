//! How many pods a host may claim: one that claims far more than the others would draw nearly every connection.

/// A claim counts up to this multiple of what the others have, by their median.
const MULTIPLE: u32 = 8;

/// A claim that was too high.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Capped {
    /// Number of the group.
    pub(super) group: usize,
    pub(super) claimed: u32,
    pub(super) counted: u32,
}

/// Bounds the weights of all groups but the first, which is this host; gives the highest claim that was bounded.
///
/// What a claim is compared with are the other groups that have pods: a host that serves a port alone is believed.
pub(super) fn cap(weights: &mut [u32]) -> Option<Capped> {
    let (_, claims) = weights.split_first()?;
    // Everybody has at least one: no claim up to here is ever bounded.
    if claims.iter().all(|claim| *claim <= MULTIPLE) {
        return None;
    }
    let mut all: Vec<u32> = weights.iter().copied().filter(|it| *it > 0).collect();
    // Without one of the higher ones there is one less: the upper median of the others.
    let rank = all.len().checked_sub(1)? / 2;
    if all.len() < 2 {
        return None;
    }
    let (_, median, _) = all.select_nth_unstable(rank);
    let most = median.saturating_mul(MULTIPLE);
    let mut highest: Option<Capped> = None;
    for (group, weight) in weights.iter_mut().enumerate().skip(1) {
        if *weight <= most {
            continue;
        }
        let capped = Capped {
            group,
            claimed: *weight,
            counted: most,
        };
        if highest.is_none_or(|highest| highest.claimed < capped.claimed) {
            highest = Some(capped);
        }
        *weight = most;
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weights: &[u32], expected: &[u32]) {
        let mut capped = weights.to_vec();
        let highest = cap(&mut capped);
        assert_eq!(capped, expected);
        assert_eq!(highest.is_some(), weights != expected);
    }

    #[test]
    fn a_claim_counts_up_to_eight_times_the_others_median() {
        // Alone, or with nothing else to go by.
        check(&[0, 65_535], &[0, 65_535]);
        check(&[0, 0, 500, 0], &[0, 0, 500, 0]);
        check(&[1, 65_535], &[1, 8]);
        check(&[0, 2, 65_535], &[0, 2, 16]);
        check(&[3, 2, 65_535, 4], &[3, 2, 24, 4]);
        // What hosts of different sizes have is theirs.
        check(&[1, 8], &[1, 8]);
        check(&[10, 40, 60, 0, 12], &[10, 40, 60, 0, 12]);
        // This host is believed, and one other host that has as many makes it plausible.
        check(&[500, 1, 2, 1], &[500, 1, 2, 1]);
        check(&[1, 100, 100], &[1, 100, 100]);
        check(&[0, 100, 1], &[0, 8, 1]);
    }

    #[test]
    fn the_highest_of_several_claims_is_told() {
        let mut weights = [1, 1, 1, 1, 1, 1000, 60_000];
        let capped = cap(&mut weights).unwrap();
        assert_eq!(
            (capped.group, capped.claimed, capped.counted),
            (6, 60_000, 8)
        );
        assert_eq!(weights[5..], [8, 8]);
    }
}
