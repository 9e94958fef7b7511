//! The pods of one pick, as every policy sees them.

/// Pods by number: which may be taken, what they weigh and what they carry.
pub(super) struct Pods<'s, E, L> {
    pub(super) count: usize,
    /// By pod; empty where all weigh the same.
    pub(super) weights: &'s [u16],
    /// What a pod weighs that is not in `weights`.
    pub(super) weight: u16,
    pub(super) eligible: E,
    pub(super) load: L,
}

impl<E: Fn(usize) -> bool, L: Fn(usize) -> u32> Pods<'_, E, L> {
    pub(super) fn weight(&self, pod: usize) -> u32 {
        u32::from(self.weights.get(pod).copied().unwrap_or(self.weight))
    }

    /// Whether a pick may give it.
    pub(super) fn is_open(&self, pod: usize) -> bool {
        pod < self.count && self.weight(pod) > 0 && (self.eligible)(pod)
    }

    pub(super) fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.count).filter(|pod| self.is_open(*pod))
    }

    pub(super) fn load(&self, pod: usize) -> u32 {
        (self.load)(pod)
    }

    /// Whether `pod` has fewer connections per weight than `other`.
    ///
    /// Multiplied out: a division would call 1/3 and 2/7 equal.
    pub(super) fn is_less_loaded(&self, pod: usize, other: usize) -> bool {
        let per = |one, by| u64::from(self.load(one)) * u64::from(self.weight(by));
        per(pod, other) < per(other, pod)
    }

    /// The same, where one more connection at the lighter of both would not change it: a connection that is idle or
    /// about to end is no load worth a preference.
    pub(super) fn is_clearly_less_loaded(&self, pod: usize, other: usize) -> bool {
        let per = |one, by| u64::from(self.load(one)) * u64::from(self.weight(by));
        let one = u64::from(self.weight(pod).max(self.weight(other)));
        per(pod, other) + one < per(other, pod)
    }
}

/// Numbers of pods, one after the other, in as few bytes as they need.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Slots {
    Narrow(Box<[u8]>),
    Wide(Box<[u32]>),
}

impl Slots {
    pub(super) fn new(pods: &[u32]) -> Self {
        let narrow = pods.iter().map(|pod| u8::try_from(*pod));
        match narrow.collect() {
            Ok(narrow) => Self::Narrow(narrow),
            Err(_) => Self::Wide(pods.into()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(pods) => pods.len(),
            Self::Wide(pods) => pods.len(),
        }
    }

    pub(super) fn get(&self, slot: usize) -> Option<usize> {
        match self {
            Self::Narrow(pods) => pods.get(slot).map(|pod| usize::from(*pod)),
            Self::Wide(pods) => pods.get(slot).map(|pod| *pod as usize),
        }
    }
}
