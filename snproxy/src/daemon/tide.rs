//! When the memory of connections that ended goes back to the kernel.

/// So many must have ended: their memory is worth a walk through the heaps.
const MANY: u64 = 1000;

/// The most connections at once since memory was last given back. No clock: it is asked now and then.
#[derive(Debug, Default)]
pub(super) struct Tide {
    high: u64,
}

impl Tide {
    /// Whether half of the connections have ended, and many of them.
    pub(super) fn has_ebbed(&mut self, live: u64) -> bool {
        self.high = self.high.max(live);
        let ended = self.high - live;
        let ebbed = ended >= MANY && ended >= self.high / 2;
        if ebbed {
            self.high = live;
        }
        ebbed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_bursts_only() {
        let mut tide = Tide::default();
        let seen = [
            (0, false),
            (900, false),
            (0, false),
            (9000, false),
            (4501, false),
            (4500, true),
            (4400, false),
            (0, true),
            (0, false),
            (9000, false),
            (0, true),
        ];
        for (live, ebbed) in seen {
            assert_eq!(tide.has_ebbed(live), ebbed, "{live}");
        }
    }
}
