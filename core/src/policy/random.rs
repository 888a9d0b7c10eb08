//! Random numbers for jitter: a value of its own, so that one seed gives one history.

/// Draws numbers that spread callers over time. Not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from 0 to `largest`, both included.
    pub(super) fn up_to(&mut self, largest: u64) -> u64 {
        // The high half of a 128-bit product maps the draw onto the range without a division and without its bias.
        ((u128::from(self.draw()) * (u128::from(largest) + 1)) >> 64) as u64
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): any seed will do, also neighbouring ones.
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
