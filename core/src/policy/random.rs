//! Random numbers for jitter and for tests: a value of its own, so that one seed gives one history.

/// Draws numbers by a seed: SplitMix64 (Steele, Lea, Flood 2014). Any seed will do, also neighbouring ones. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from 0 to `largest`, both included.
    pub fn up_to(&mut self, largest: u64) -> u64 {
        // The high half of a 128-bit product maps the draw onto the range without a division and without its bias.
        ((u128::from(self.draw()) * (u128::from(largest) + 1)) >> 64) as u64
    }

    /// Returns a number below `end`, which is not 0. Its bias is of the order of `end` / 2^64.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// Returns the next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
